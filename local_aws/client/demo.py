"""`make demo`: the main job, from a disk to a recipe, on the AWS on this machine."""

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

# An hour of AWS time is a minute; the import takes twenty minutes of it.
SPEED: Final = 60


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
        client: Any = aws.session().client
        self.cloudformation, self.ec2, self.images, self.s3 = map(
            client, ("cloudformation", "ec2", "imagebuilder", "s3")
        )
        self.cdk = CdkCli(aws, folder)
        self.disk = folder / "disk.raw"
        self.step = 0

    def run(self) -> None:
        """Do it all; raise DemoError as soon as something is not as said."""
        self.heading("A disk of a virtual machine, on this machine")
        self.disk.write_bytes(raw_disk())
        say(f"  {self.disk}, {self.disk.stat().st_size / 2**20:.0f} MiB")

        self.heading("cdk bootstrap")
        self.cdk.bootstrap()

        self.heading("cdk deploy: upload, import, image and recipe, in one deployment")
        with self.progress_shown():
            image, recipe = self.deploy()
        parent = self.images.get_image_recipe(imageRecipeArn=recipe)["imageRecipe"]["parentImage"]
        self.check(parent == image, f"the recipe's parent image is {parent}")
        described = self.images.get_image(imageBuildVersionArn=image)["image"]
        self.check(described["state"]["status"] == "AVAILABLE", "the image is AVAILABLE")
        ami = described["outputResources"]["amis"][0]["image"]
        say(f"  AMI: {ami}")

        self.heading("cdk deploy again")
        calls = len(self.aws.calls())
        self.check(self.deploy() == (image, recipe), "the same image and the same recipe")
        self.check(len(self.aws.calls()) == calls, "nothing was called: nothing had changed")

        self.heading("cdk deploy with another tag")
        self.check(self.deploy(tags="stage=live")[0] == image, "the same image")
        tag = self.images.get_image(imageBuildVersionArn=image)["image"]["tags"].get("stage")
        self.check(tag == "live", "it has the tag stage=live")

        self.heading("cdk deploy with semantic_version=1.1.0")
        second, _ = self.deploy(semantic_version="1.1.0")
        self.check(second != image, f"another image, {second}")
        self.check(self.status(image) == "AVAILABLE", f"{image} is kept: that is the default")

        self.heading("cdk deploy with semantic_version=1.2.0 and removal_policy=destroy")
        third, _ = self.deploy(semantic_version="1.2.0", removal_policy="destroy")
        self.check(self.status(second) is None, f"{second} is gone")
        self.check(self.status(third) is not None, f"{third} is there")

        started = self.aws.calls("ImportImage")
        self.check(len(started) == 1, "EC2 imported the disk once, for all three images")

        self.heading("cdk destroy")
        self.destroy()
        self.check(self.status(third) is None, f"{third} is gone")

        self.heading("What is left: what was retained, and what cdk deploy uploaded")
        self.show_what_is_left(image, ami)

    def deploy(self, **context: str) -> tuple[str, str]:
        """Deploy the example app; return the ARNs of its image and its recipe."""
        context = {"disk": str(self.disk), **context}
        self.say_command("deploy", context)
        outputs = self.cdk.deploy(**context)
        for name, value in outputs.items():
            say(f"  {name} = {value}")
        (image,) = (value for name, value in outputs.items() if name.startswith("ImageImageArn"))
        return image, outputs["RecipeArn"]

    def destroy(self) -> None:
        """Destroy what was deployed."""
        context = {"disk": str(self.disk)}
        self.say_command("destroy", context)
        self.cdk.destroy(**context)

    def say_command(self, command: str, context: dict[str, str]) -> None:
        """Say what a person would type."""
        say(" ".join([f"  $ cdk {command}", *(f"-c {k}={v}" for k, v in context.items())]))

    @contextmanager
    def progress_shown(self) -> Iterator[None]:
        """Show what EC2 tells of its import, beside what goes on in the `with` block."""
        over = Event()
        # the block stays in the main thread, where an interruption ends what it runs
        with ThreadPoolExecutor() as background:
            shown = background.submit(self.show_progress, over)
            try:
                yield
            finally:
                over.set()
        shown.result()

    def show_progress(self, over: Event) -> None:
        """Show what EC2 tells of its import, until it is all over."""
        shown = ""
        while not over.wait(0.5):
            for task in self.ec2.describe_import_image_tasks()["ImportImageTasks"]:
                progress = f"{task['Progress']:>3} %" if "Progress" in task else "     "
                line = f"  {progress}  {task.get('StatusMessage', task['Status'])}"
                if line != shown:
                    say(line)
                shown = line

    def status(self, image: str) -> str | None:
        """The state of an image; None if it is gone."""
        try:
            state = self.images.get_image(imageBuildVersionArn=image)["image"]["state"]
        except self.images.exceptions.ResourceNotFoundException:
            return None
        return str(state["status"])

    def show_what_is_left(self, image: str, ami: str) -> None:
        """Show, and check, what outlives the stack."""
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
