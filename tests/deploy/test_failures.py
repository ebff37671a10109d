"""What a user sees in the terminal when `cdk deploy` fails, with the real CDK CLI.

Each stack has been deployed, and a change of it fails. Its output is in tests/deploy/failures, and
docs/failures.md shows it. UPDATE_FAILURES=1 writes it.
"""

from __future__ import annotations

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.environment import CHECKOUT
from tests.deploy.deployed import HOUR, Account, StackView
from tests.deploy.failures_app import synthesize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

OUTPUTS: Final = Path(__file__).parent / "failures"
PAGE: Final = CHECKOUT / "docs/failures.md"
UNKNOWN: Final = "import-ami-0123456789abcdef0"
# By how many seconds of AWS time the clock is moved, and how often, in real seconds: the log shows
# how an import failed only if less than 2 minutes pass between that and the failure of the stack.
_STEP: Final = 15
_PAUSE: Final = 0.05
COMPONENT: Final = "arn:aws:imagebuilder:us-east-1:aws:component/update-linux/x.x.x"
# What differs between two runs.
VARIABLE: Final = {
    r"\d+:\d\d:\d\d [AP]M": "10:00:00 AM",
    r"\| +\d+(/\d+)? \|": "| 6/6 |",
    r"import-ami-(?!0123456789abcdef0)[0-9a-f]{17}": "import-ami-1234567890abcdef0",
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": (
        "a1b2c3d4-5678-90ab-cdef-1234567890ab"
    ),
    r"(VmImportProvider\w+)-[0-9A-F]{13}": r"\1-EXAMPLE12345",
    r"after 3\d minutes": "after 30 minutes",
    r"[0-9.]+s$": "10s",
}


class Stacks:
    """The stacks of tests/deploy/failures_app.py, deployed with an image each."""

    NAMES: Final = ("BadDisk", "Timeout", "Denied", "UnknownTask", "InUse", "Destroyed")

    def __init__(self, local: LocalAws, folder: Path) -> None:
        self.local = local
        self._folder = folder
        self.account = Account(local)
        local.knobs(import_seconds=60, image_watch_seconds=0)
        tasks = {name: self.account.import_image() for name in self.NAMES}
        cdk_cli = CdkCli(local, folder, app=synthesize(folder / "first", "1.0.0", tasks))
        cdk_cli.deploy("--concurrency", "3")
        local.advance(HOUR)
        local.knobs(import_seconds=12 * HOUR)

    def start(self, command: str, name: str, task: str | None) -> Future[str]:
        """Start a command of the CDK CLI for a stack; return what it prints."""
        app = synthesize(self._folder / f"{name}-app", "1.1.0", {name: task})
        cdk_cli = CdkCli(self.local, self._folder, app=app)
        arguments = [command, name, "--app", app, "--output", f"{self._folder / name}.out"]
        arguments += ["--no-notices"]
        arguments += ["--force"] if command == "destroy" else ["--require-approval", "never"]

        def run() -> str:
            try:
                return cdk_cli.run(arguments)
            except CdkError as error:
                return str(error)

        executor = ThreadPoolExecutor(max_workers=1)
        command_run = executor.submit(run)
        executor.shutdown(wait=False)
        return command_run

    def deploy(self, name: str, task: str | None) -> str:
        """Deploy a change of a stack, and return what the CDK CLI prints."""
        return self.start("deploy", name, task).result()

    def deploy_and_wait(self, name: str, task: str) -> str:
        """Deploy a new version of an image, and let its import pass quickly until it has failed."""
        deployment = self.start("deploy", name, task)
        (log_group,) = StackView(self.account, name).resources("AWS::Logs::LogGroup").values()
        begun = int(self.local.now() * 1000)

        def has_failed() -> object:
            found = self.account.logs.filter_log_events(
                logGroupName=log_group, startTime=begun, filterPattern="ERROR"
            )
            return deployment.done() or found["events"]

        while not has_failed():
            self.local.advance(_STEP)
            time.sleep(_PAUSE)
        return deployment.result()

    def use(self, name: str) -> None:
        """Build a recipe, outside of the stack, on the image of a stack."""
        (arn,) = self.account.builds(f"golden-{name.lower()}")
        self.account.images.create_image_recipe(
            name=f"webserver-{name.lower()}",
            semanticVersion="1.0.0",
            parentImage=arn,
            components=[{"componentArn": COMPONENT}],
        )


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    # Slower than in the other tests: the CDK CLI shows the log from 2 minutes before the failure
    # to 15 minutes after it.
    with LocalAws.start(speed=10, auth=True) as local, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODE_NO_WARNINGS", "1")
        folder = tmp_path_factory.mktemp("failures")
        CdkCli(local, folder).bootstrap()
        yield Stacks(local, folder)


def seen(printed: str) -> str:
    """What a person reads of an output: without the synthesis, and events that are no failure."""
    _, _, printed = printed.partition("[1/1]\n")
    lines = [line.rstrip() for line in printed.splitlines()]
    kept = [line for line in lines if "_FAILED" in line or not re.match(r"\w+ \| +\d+", line)]
    text = "\n".join(kept).strip() + "\n"
    for variable, constant in VARIABLE.items():
        text = re.sub(variable, constant, text, flags=re.MULTILINE)
    return text


def check(name: str, printed: str) -> None:
    """Compare an output with its file."""
    path, text = OUTPUTS / f"{name}.txt", seen(printed)
    if os.environ.get("UPDATE_FAILURES"):
        PAGE.write_text(PAGE.read_text().replace(path.read_text(), text))
        path.write_text(text)
    assert text == path.read_text()


def test_the_page_about_failures_shows_what_a_user_sees() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    assert sorted(blocks) == sorted(path.read_text() for path in OUTPUTS.glob("*.txt"))


@pytest.mark.slow
def test_a_bad_disk_is_shown_with_the_reason_of_ec2(stacks: Stacks) -> None:
    # It fails after 22 minutes: during the wait, also if the CDK CLI starts slowly.
    stacks.local.knobs(import_seconds=2.5 * HOUR)
    task = stacks.account.import_image()
    stacks.local.fail_import("ClientError: Unsupported kernel version 6.12.0-rc1.", task_id=task)

    check("bad-disk", stacks.deploy_and_wait("BadDisk", task))


@pytest.mark.slow
def test_a_timeout_is_shown_with_the_progress_of_the_import(stacks: Stacks) -> None:
    stacks.local.knobs(import_seconds=0.5 * HOUR)
    task = stacks.account.import_image()
    stacks.local.fail_import(None, task_id=task, fail_at_progress=28)

    check("timeout", stacks.deploy_and_wait("Timeout", task))


@pytest.mark.slow
def test_a_denied_call_is_shown_with_its_action(stacks: Stacks) -> None:
    iam: Any = stacks.local.session().client("iam")
    denial = {"Effect": "Deny", "Action": "imagebuilder:ImportVmImage", "Resource": "*"}
    roles = StackView(stacks.account, "Denied").resources("AWS::IAM::Role")
    (role,) = (name for logical_id, name in roles.items() if "ProviderRole" in logical_id)
    iam.put_role_policy(
        RoleName=role, PolicyName="Deny", PolicyDocument=json.dumps({"Statement": [denial]})
    )
    stacks.local.advance(HOUR)

    check("denied", stacks.deploy("Denied", stacks.account.import_image()))


@pytest.mark.slow
def test_an_unknown_task_is_shown_with_its_id(stacks: Stacks) -> None:
    check("unknown-task", stacks.deploy("UnknownTask", UNKNOWN))


@pytest.mark.slow
def test_an_image_in_use_stays_when_it_is_removed_from_its_stack(stacks: Stacks) -> None:
    stacks.use("InUse")

    check("in-use", stacks.deploy("InUse", None))


@pytest.mark.slow
def test_a_stack_whose_image_is_in_use_is_not_destroyed(stacks: Stacks) -> None:
    stacks.use("Destroyed")

    check("in-use-destroy", stacks.start("destroy", "Destroyed", UNKNOWN).result())
