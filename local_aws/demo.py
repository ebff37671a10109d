"""`make demo`: the main job from a disk to a recipe, step by step, on the AWS on this machine."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_aws.cdk_cli import CdkCli, CdkError
from local_aws.client import LocalAws, LocalAwsError
from local_aws.prerequisites import BUCKET, DISK, Prerequisites

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import FrameType

# An hour of AWS time is a minute; the import takes half an hour of it.
SPEED: Final = 60
IMPORT_SECONDS: Final = 1800


class DemoError(Exception):
    """A step did not end as it should."""


def main() -> int:
    """Run the demo.

    Returns:
        0 if every step was as said.
    """
    # SIGINT too: a shell that runs the demo in the background has it ignored
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="cdk-vm-import-demo-") as folder,
            LocalAws.start(speed=SPEED, auth=True) as aws,
        ):
            aws.knobs(import_seconds=IMPORT_SECONDS)
            Demo(aws, Path(folder)).run()
    except (DemoError, LocalAwsError, CdkError) as error:
        sys.stderr.write(f"\n✗ {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    say(f"\nAll as said, in {time.monotonic() - started:.0f} seconds.")
    return 0


class Demo:
    """The steps, in order, and what they share."""

    def __init__(self, aws: LocalAws, folder: Path) -> None:
        """Make the clients.

        Args:
            aws: A running local AWS.
            folder: For the disk and what the CDK CLI writes.
        """
        self.aws = aws
        self.folder = folder
        session = aws.session()
        clients: Any = session.client
        endpoint = aws.environment["AWS_ENDPOINT_URL"]
        self.ec2, self.images = (
            clients(name, endpoint_url=endpoint) for name in ("ec2", "imagebuilder")
        )
        self.cdk = CdkCli(aws, folder)
        self.step = 0

    def run(self) -> None:
        """Do it all; raise DemoError as soon as something is not as said."""
        self.heading("A disk of a virtual machine, in a bucket that VM Import may read")
        prerequisites = Prerequisites(self.aws)
        say(f"  s3://{BUCKET}/{DISK}")

        self.heading("cdk bootstrap")
        self.cdk.bootstrap()

        self.heading("aws ec2 import-image")
        task = prerequisites.import_image()
        say(f"  {task}")

        self.heading("cdk deploy: the task becomes an image, and a recipe builds on it")
        with ThreadPoolExecutor() as background:
            deployment = background.submit(self.deploy, task)
            self.show_progress(task, deployment)
            image, recipe = deployment.result()
        parent = self.images.get_image_recipe(imageRecipeArn=recipe)["imageRecipe"]["parentImage"]
        self.check(parent == image, f"the recipe's parent image is {parent}")
        described = self.images.get_image(imageBuildVersionArn=image)["image"]
        self.check(described["state"]["status"] == "AVAILABLE", "the image is AVAILABLE")
        say(f"  AMI: {described['outputResources']['amis'][0]['image']}")

        self.heading("cdk deploy again")
        calls = len(self.aws.calls())
        self.check(self.deploy(task) == (image, recipe), "the same image and the same recipe")
        self.check(len(self.aws.calls()) == calls, "nothing was called: nothing had changed")

        self.heading("cdk deploy with another tag")
        self.check(self.deploy(task, tags="stage=live")[0] == image, "the same image")
        tag = self.images.get_image(imageBuildVersionArn=image)["image"]["tags"].get("stage")
        self.check(tag == "live", "it has the tag stage=live")

        self.heading("cdk deploy with semantic_version=1.1.0")
        second, _ = self.deploy(task, semantic_version="1.1.0")
        self.check(second != image, f"another image, {second}")
        self.check(self.status(image) == "AVAILABLE", f"{image} is kept: that is the default")

        self.heading("cdk deploy with semantic_version=1.2.0 and removal_policy=destroy")
        third, _ = self.deploy(task, semantic_version="1.2.0", removal_policy="destroy")
        self.check(self.status(second) is None, f"{second} is gone")
        self.check(self.status(third) is not None, f"{third} is there")

        self.heading("cdk destroy")
        self.cdk.destroy(vm_import_task_id=task)
        self.check(self.status(third) is None, f"{third} is gone")
        self.show_what_is_left(image)

    def deploy(self, task: str, **context: str) -> tuple[str, str]:
        """Deploy the example app; return the ARNs of its image and its recipe."""
        context = {"vm_import_task_id": task, **context}
        self.say_command("deploy", *(f"-c {name}={value}" for name, value in context.items()))
        outputs = self.cdk.deploy(**context)
        for name, value in outputs.items():
            say(f"  {name} = {value}")
        (image,) = (value for name, value in outputs.items() if name.startswith("ImageImageArn"))
        return image, outputs["RecipeArn"]

    def say_command(self, *words: str) -> None:
        """Say what a person would type."""
        say("  $ cdk " + " ".join(words))

    def show_progress(self, task: str, deployment: Future[tuple[str, str]]) -> None:
        """Show what EC2 tells of its import, until the deployment is done."""
        shown = ""
        while not deployment.done():
            (described,) = self.ec2.describe_import_image_tasks(ImportTaskIds=[task])[
                "ImportImageTasks"
            ]
            progress = f"{described['Progress']:>3} %" if "Progress" in described else "     "
            line = f"  {progress}  {described.get('StatusMessage', described['Status'])}"
            if line != shown:
                say(line)
            shown = line
            time.sleep(0.5)

    def status(self, image: str) -> str | None:
        """The state of an image; None if it is gone."""
        try:
            state = self.images.get_image(imageBuildVersionArn=image)["image"]["state"]
        except self.images.exceptions.ResourceNotFoundException:
            return None
        return str(state["status"])

    def show_what_is_left(self, image: str) -> None:
        """Show, and check, what outlives the stack."""
        listed = self.images.list_images(owner="Self")["imageVersionList"]
        left = [version["arn"] for version in listed]
        kept = image.rpartition("/")[0]
        self.check(
            [arn.startswith(kept) for arn in left] == [True],
            f"left in Image Builder: {image}, which was retained",
        )
        amis = self.ec2.describe_images(Owners=["self"])["Images"]
        self.check(len(amis) == 1, f"left in EC2: {amis[0]['ImageId']}, with its snapshot")
        say(f"  left in S3: s3://{BUCKET}/{DISK}")

    def heading(self, text: str) -> None:
        """Begin a step."""
        self.step += 1
        say(f"\n{self.step}. {text}")

    def check(self, holds: bool, text: str) -> None:  # noqa: FBT001 - reads as a sentence
        """Say that something holds, or end the demo because it does not."""
        if not holds:
            raise DemoError(f"not so: {text}")
        say(f"  ✓ {text}")


def say(text: str) -> None:
    """Print, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _interrupt(*_: int | FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
