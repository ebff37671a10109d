"""Import a disk of the repository and create a recipe, in a stage of CDK Pipelines.

cdk deploy --app "python3 examples/pipeline_stage.py" -c repository=my-org/images \
    -c connection=arn:aws:codeconnections:... -c disk=disks/rhel9.vmdk

Every commit runs the pipeline. Only a commit that changes the disk or the description of the image
starts an import.
"""

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder as imagebuilder
from aws_cdk import pipelines
from constructs import Construct

from cdk_vm_import import ImportedVmImage, LicenseType, Platform, VmDisk, VmImportTask


class GoldenImages(cdk.Stage):
    """What the pipeline deploys to one account and Region."""

    def __init__(
        self, scope: Construct, construct_id: str, *, disk: str, env: cdk.Environment | None = None
    ) -> None:
        """Create a stack with an import task, its image and a recipe."""
        super().__init__(scope, construct_id, env=env)
        stack = cdk.Stack(self, "GoldenImage")
        task = VmImportTask(
            stack,
            "Import",
            disks=[VmDisk.from_asset(disk)],
            platform=Platform.LINUX,
            license_type=LicenseType.BYOL,
        )
        image = ImportedVmImage(
            stack,
            "Image",
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task=task,
        )
        imagebuilder.CfnImageRecipe(
            stack,
            "Recipe",
            name="rhel9-golden-updated",
            version="1.0.x",
            parent_image=image.image_arn,
        )


class Pipeline(cdk.Stack):
    """The pipeline, which also updates itself."""

    def __init__(
        self, scope: Construct, construct_id: str, *, repository: str, connection: str, disk: str
    ) -> None:
        """Create the pipeline."""
        super().__init__(scope, construct_id)
        source = pipelines.CodePipelineSource.connection(
            repository, "main", connection_arn=connection
        )
        context = f"-c repository={repository} -c connection={connection} -c disk={disk}"
        synth = pipelines.ShellStep(
            "Synth",
            input=source,
            commands=[
                "pip install aws-cdk-lib cdk-vm-import",
                f'npx aws-cdk@2 synth --app "python3 pipeline_stage.py" {context}',
            ],
        )
        pipeline = pipelines.CodePipeline(self, "Pipeline", synth=synth)
        pipeline.add_stage(GoldenImages(self, "Live", disk=disk))


app = cdk.App()
Pipeline(
    app,
    "Pipeline",
    repository=app.node.get_context("repository"),
    connection=app.node.get_context("connection"),
    disk=app.node.get_context("disk"),
)
app.synth()
