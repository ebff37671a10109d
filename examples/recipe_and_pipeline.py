"""Import a disk from a bucket as an image, and build on it every week with a recipe and a pipeline.

cdk deploy --app "python3 examples/recipe_and_pipeline.py" -c bucket=my-vm-disks -c key=rhel9.vmdk
"""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_vm_import import ImportedVmImage, LicenseType, Platform, VmDisk, VmImportTask


class RecipeAndPipeline(cdk.Stack):
    """A stack with an import task, its image, a recipe and a pipeline."""

    def __init__(self, scope: Construct, construct_id: str, *, bucket_name: str, key: str) -> None:
        """Import the disk and create the recipe and its pipeline."""
        super().__init__(scope, construct_id)
        bucket = s3.Bucket.from_bucket_name(self, "Disks", bucket_name)
        task = VmImportTask(
            self,
            "Import",
            disks=[VmDisk.from_bucket(bucket, key)],
            platform=Platform.LINUX,
            license_type=LicenseType.BYOL,
        )
        image = ImportedVmImage(
            self,
            "Image",
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task=task,
            # A new disk replaces the image. Then nothing of the old one remains.
            removal_policy=cdk.RemovalPolicy.DESTROY,
            delete_ami=True,
        )
        recipe = imagebuilder.CfnImageRecipe(
            self,
            "Recipe",
            # The pipeline's images have the recipe's name, so it differs from the image's.
            name="rhel9-golden-updated",
            # Image Builder cannot change a recipe. For a new image, the x is the next free number.
            version="1.0.x",
            parent_image=image.image_arn,
            components=[
                imagebuilder.CfnImageRecipe.ComponentConfigurationProperty(
                    component_arn=f"arn:{self.partition}:imagebuilder:{self.region}:aws:"
                    "component/update-linux/x.x.x"
                )
            ],
        )
        imagebuilder.CfnImagePipeline(
            self,
            "Pipeline",
            name="rhel9-golden-updated",
            image_recipe_arn=recipe.attr_arn,
            infrastructure_configuration_arn=self._infrastructure().attr_arn,
            schedule=imagebuilder.CfnImagePipeline.ScheduleProperty(
                schedule_expression="cron(0 3 ? * sun *)",
                pipeline_execution_start_condition="EXPRESSION_MATCH_ONLY",
            ),
        )

    def _infrastructure(self) -> imagebuilder.CfnInfrastructureConfiguration:
        """Return the instances that the pipeline builds on."""
        managed_policy = iam.ManagedPolicy.from_aws_managed_policy_name
        role = iam.Role(
            self,
            "BuildRole",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            managed_policies=[
                managed_policy("AmazonSSMManagedInstanceCore"),
                managed_policy("EC2InstanceProfileForImageBuilder"),
            ],
        )
        profile = iam.CfnInstanceProfile(self, "BuildProfile", roles=[role.role_name])
        return imagebuilder.CfnInfrastructureConfiguration(
            self,
            "Infrastructure",
            name="rhel9-golden-updated",
            instance_profile_name=profile.ref,
        )


app = cdk.App()
RecipeAndPipeline(
    app,
    "RecipeAndPipeline",
    bucket_name=app.node.get_context("bucket"),
    key=app.node.get_context("key"),
)
app.synth()
