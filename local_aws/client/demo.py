"""`make demo`: deploy a VM disk as an image with a recipe, in the simulated AWS."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.local_aws import LocalAws, LocalAwsError
from local_aws.client.prerequisites import raw_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# An hour of AWS time takes a minute. The import takes twenty minutes of AWS time.
SPEED: Final = 60


class DemoError(Exception):
    """A check of the demo failed."""


def main() -> int:
    """Run the demo.

    Returns:
        0 if all checks passed.
    """
    # SIGINT needs a handler too: a shell ignores it in a program that it runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    started = time.monotonic()
    print_line("\nThe real CDK CLI deploys to a simulated AWS on this machine; no account is used.")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="cdk-vm-import-demo-") as folder,
            LocalAws.start(speed=SPEED, auth=True) as aws,
        ):
            Demo(aws, Path(folder)).run()
    except (DemoError, LocalAwsError, CdkError) as error:
        sys.stderr.write(f"\n✗ {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    print_line(f"\nAll checks passed in {time.monotonic() - started:.0f} seconds.")
    return 0


class Demo:
    """The steps of the demo, in order, and what they share."""

    def __init__(self, aws: LocalAws, folder: Path) -> None:
        """Create the clients.

        Args:
            aws: A running simulated AWS.
            folder: The folder for the disk and the files of the CDK CLI.
        """
        self.aws = aws
        client: Any = aws.session().client
        self.cloudformation, self.ec2, self.images, self.s3 = map(
            client, ("cloudformation", "ec2", "imagebuilder", "s3")
        )
        self.cdk = CdkCli(aws, folder)
        self.disk = folder / "disk.raw"
        self.step = 0

    def run(self) -> None:
        """Run all steps; raise DemoError when a check fails."""
        self.heading("Create the disk of a virtual machine")
        self.disk.write_bytes(raw_disk())
        print_line(f"  {self.disk}, {self.disk.stat().st_size / 2**20:.0f} MiB")

        self.heading("cdk bootstrap")
        self.cdk.bootstrap()

        self.heading("cdk deploy: upload the disk, import it, create the image and its recipe")
        with self.progress_printed():
            image, recipe = self.deploy()
        parent = self.images.get_image_recipe(imageRecipeArn=recipe)["imageRecipe"]["parentImage"]
        self.check(parent == image, f"the parent image of the recipe is {parent}")
        described = self.images.get_image(imageBuildVersionArn=image)["image"]
        self.check(described["state"]["status"] == "AVAILABLE", "the image is AVAILABLE")
        ami = described["outputResources"]["amis"][0]["image"]
        print_line(f"  AMI: {ami}")

        self.heading("cdk deploy again, without changes")
        calls = len(self.aws.calls())
        self.check(self.deploy() == (image, recipe), "image and recipe are the same")
        self.check(
            len(self.aws.calls()) == calls, "CloudFormation called nothing, because nothing changed"
        )

        self.heading("cdk deploy with the tag stage=live")
        self.check(self.deploy(tags="stage=live")[0] == image, "the image is the same")
        tag = self.images.get_image(imageBuildVersionArn=image)["image"]["tags"].get("stage")
        self.check(tag == "live", "the image has the tag stage=live")

        self.heading("cdk deploy with semantic_version=1.1.0")
        second, _ = self.deploy(semantic_version="1.1.0")
        self.check(second != image, f"the new image is {second}")
        self.check(self.status(image) == "AVAILABLE", f"{image} is retained, which is the default")

        self.heading("cdk deploy with semantic_version=1.2.0 and removal_policy=destroy")
        third, _ = self.deploy(semantic_version="1.2.0", removal_policy="destroy")
        self.check(self.status(second) is None, f"{second} is deleted")
        self.check(self.status(third) is not None, f"{third} exists")

        started = self.aws.calls("ImportImage")
        self.check(len(started) == 1, "EC2 imported the disk once for all three images")

        self.heading("cdk destroy")
        self.destroy()
        self.check(self.status(third) is None, f"{third} is deleted")

        self.heading("What still exists: retained images, and the uploads of cdk deploy")
        self.check_what_still_exists(image, ami)

    def deploy(self, **context: str) -> tuple[str, str]:
        """Deploy the example app and return the ARNs of its image and its recipe."""
        context = {"disk": str(self.disk), **context}
        self.print_command("deploy", context)
        outputs = self.cdk.deploy(**context)
        for name, value in outputs.items():
            print_line(f"  {name} = {value}")
        (image,) = (value for name, value in outputs.items() if name.startswith("ImageImageArn"))
        return image, outputs["RecipeArn"]

    def destroy(self) -> None:
        """Destroy the stack of the example app."""
        context = {"disk": str(self.disk)}
        self.print_command("destroy", context)
        self.cdk.destroy(**context)

    def print_command(self, command: str, context: dict[str, str]) -> None:
        """Print the command that a user would type."""
        print_line(" ".join([f"  $ cdk {command}", *(f"-c {k}={v}" for k, v in context.items())]))

    @contextmanager
    def progress_printed(self) -> Iterator[None]:
        """Print the progress of EC2's import while the `with` block runs."""
        over = Event()
        # The block stays in the main thread, where an interruption ends its child processes.
        with ThreadPoolExecutor() as background:
            printing = background.submit(self.print_progress, over)
            try:
                yield
            finally:
                over.set()
        printing.result()

    def print_progress(self, over: Event) -> None:
        """Print the progress of EC2's import until the event is set."""
        shown = ""
        while not over.wait(0.5):
            for task in self.ec2.describe_import_image_tasks()["ImportImageTasks"]:
                progress = f"{task['Progress']:>3} %" if "Progress" in task else "     "
                line = f"  {progress}  {task.get('StatusMessage', task['Status'])}"
                if line != shown:
                    print_line(line)
                shown = line

    def status(self, image: str) -> str | None:
        """Return the state of an image, or None if it is deleted."""
        try:
            state = self.images.get_image(imageBuildVersionArn=image)["image"]["state"]
        except self.images.exceptions.ResourceNotFoundException:
            return None
        return str(state["status"])

    def check_what_still_exists(self, image: str, ami: str) -> None:
        """Check and print what still exists after the stack is deleted."""
        stacks = self.cloudformation.describe_stacks()["Stacks"]
        self.check(
            [stack["StackName"] for stack in stacks] == ["CDKToolkit"],
            "in CloudFormation: CDKToolkit, the stack of cdk bootstrap",
        )
        versions = self.images.list_images(owner="Self")["imageVersionList"]
        self.check(
            [image.startswith(version["arn"]) for version in versions] == [True],
            f"in Image Builder: {image}",
        )
        amis = [found["ImageId"] for found in self.ec2.describe_images(Owners=["self"])["Images"]]
        described = self.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        snapshots = [snapshot["SnapshotId"] for snapshot in described]
        self.check(
            (amis, len(snapshots)) == ([ami], 1),
            f"in EC2: {ami} and its snapshot {', '.join(snapshots)}",
        )
        disks = [
            f"s3://{bucket['Name']}/{found['Key']}"
            for bucket in self.s3.list_buckets()["Buckets"]
            for found in self.s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
            if found["Key"].endswith(self.disk.suffix)
        ]
        self.check(len(disks) == 1, f"in S3: the disk, {', '.join(disks)}")

    def heading(self, text: str) -> None:
        """Print the heading of a step."""
        self.step += 1
        print_line(f"\n{self.step}. {text}")

    def check(self, holds: bool, text: str) -> None:  # noqa: FBT001 - reads as a sentence
        """Print that a check passed, or end the demo because it failed."""
        if not holds:
            raise DemoError(f"check failed: {text}")
        print_line(f"  ✓ {text}")


def print_line(text: str) -> None:
    """Print a line immediately."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _interrupt(*_: int | FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
