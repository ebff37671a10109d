"""Build on an imported image with CDK's Image Builder constructs.

pip install 'cdk-vm-import[imagebuilder]'
cdk deploy --app "python3 examples/image_builder_constructs.py" -c task=import-ami-0123456789abcdef0
"""

import aws_cdk as cdk
from aws_cdk import aws_imagebuilder_alpha as imagebuilder
from constructs import Construct

from cdk_vm_import import ImportedVmImage, Platform


class ImageBuilderConstructs(cdk.Stack):
    """A stack with an image, a recipe and a pipeline."""

    def __init__(self, scope: Construct, construct_id: str, *, vm_import_task_id: str) -> None:
        """Import the image and create the recipe and its pipeline."""
        super().__init__(scope, construct_id)
        image = ImportedVmImage(
            self,
            "Image",
            image_name="rhel9-golden",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=vm_import_task_id,
        )
        recipe = imagebuilder.ImageRecipe(
            self,
            "Recipe",
            image_recipe_version="1.0.x",
            base_image=image.to_base_image(),
            components=[
                imagebuilder.ComponentConfiguration(
                    component=imagebuilder.AmazonManagedComponent.update_os(
                        self, "UpdateOS", platform=imagebuilder.Platform.LINUX
                    )
                )
            ],
        )
        imagebuilder.ImagePipeline(self, "Pipeline", recipe=recipe)


app = cdk.App()
ImageBuilderConstructs(
    app, "ImageBuilderConstructs", vm_import_task_id=app.node.get_context("task")
)
app.synth()
