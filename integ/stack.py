"""A stack of a check: deployed by the CDK CLI, and watched meanwhile."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from integ.check import CheckError
from integ.run import SIGNALS, raise_unless_missing
from local_aws import LocalAwsError
from local_aws.client.environment import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from integ.check import Record
    from integ.definition import Definition
    from integ.run import Run

_DEPLOY_MINUTES: Final = 120
_DELETE_MINUTES: Final = 60
_LOG_LINES: Final = 200
# What of a ResponseURL is no secret.
_SHOWN_OF_URL: Final = ("X-Amz-Date", "X-Amz-Expires")


class Stack:
    """A stack for the length of a `with` block, at the end of which it is deleted.

    Args:
        run: The run.
        record: The record of the check, which gets all events.
        name: What its name ends with.
    """

    def __init__(self, run: Run, record: Record, name: str) -> None:
        """Refer to a stack that does not exist yet."""
        self._run, self._record = run, record
        self.name = f"{run.prefix}-{name}"
        # What the CDK CLI prints stays there, beside the report.
        self._folder = run.folder / "cdk" / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._app = self._folder / "cdk.out"
        self._process: subprocess.Popen[str] | None = None
        self._output = self._folder / "output.txt"
        self._known_executions: set[str] = set()
        self._client = run.account.client
        self._id = ""

    def __enter__(self) -> Self:
        """Begin the block."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Delete the stack, unless the run is interrupted: then the clean-up of the run does."""
        self._run.end_processes()
        shutil.rmtree(self._app, ignore_errors=True)
        if error_type is None or issubclass(error_type, Exception):
            # An error here must not hide the one of the block. The clean-up of the run tries again.
            for step in (self.read_log, self.delete):
                try:
                    step()
                except (CheckError, BotoCoreError, ClientError, LocalAwsError) as problem:
                    self._record.observe(f"error at the end of {self.name}", str(problem))

    # --- operations ---

    def start(self, definition: Definition, *options: str) -> None:
        """Start `cdk deploy`.

        Args:
            definition: What the stack contains.
            options: More options of the command.
        """
        wanted = {"name": self.name, "definition": definition.as_json(), "tags": self._run.tags}
        file = self._folder / "definition.json"
        file.write_text(json.dumps(wanted))
        app = shlex.join([sys.executable, "-m", "integ.app", str(file)])
        self._start_cdk(
            "deploy", "--app", app, "--output", str(self._app), "--require-approval", "never",
            "--no-version-reporting", "--outputs-file", str(self._folder / "outputs.json"),
            *options,
        )  # fmt: skip

    def finish(self, *, fails: bool = False, hurry: bool = True) -> dict[str, str]:
        """Wait until `cdk deploy` ends, and return the outputs.

        Args:
            fails: Whether it must fail. Then there are no outputs.
            hurry: Whether the clock of the simulated AWS is moved meanwhile.

        Raises:
            CheckError: It failed, or it must and did not.
        """
        process = self._process
        if process is None:
            raise CheckError("no deployment was started")
        self._run.account.wait(
            lambda: self._watched(process.poll() is not None), _DEPLOY_MINUTES, hurry=hurry
        )
        self._watch()
        if process.poll() is None:
            raise CheckError(f"the deployment of {self.name} does not end")
        if bool(process.returncode) is not fails:
            raise CheckError(f"cdk ended with {process.returncode}: {self._reason()}")
        if fails:
            return {}
        found = json.loads((self._folder / "outputs.json").read_text())
        return dict(found[self.name])

    def _reason(self) -> str:
        """Return the failed resources, if the CDK CLI printed some, or what it printed last."""
        lines = self._output.read_text().strip()
        return (
            lines[lines.rfind("Failed resources:") :][:1500] if "Failed" in lines else lines[-1500:]
        )

    def deploy(
        self, definition: Definition, *options: str, fails: bool = False, hurry: bool = True
    ) -> dict[str, str]:
        """Run `cdk deploy`; see `start` and `finish`."""
        self.start(definition, *options)
        return self.finish(fails=fails, hurry=hurry)

    def destroy(self) -> None:
        """Run `cdk destroy`, and record the events that it causes.

        Raises:
            CheckError: The stack still exists.
        """
        self._start_cdk("destroy", "--app", str(self._app), "--force")
        self.await_status("DELETE_COMPLETE", minutes=_DELETE_MINUTES)

    def delete(self) -> None:
        """Delete the stack if it exists, without the CDK CLI.

        Raises:
            CheckError: It still exists.
        """
        if not self.stack_id or self.status() == "DELETE_COMPLETE":
            return
        self._client("cloudformation").delete_stack(StackName=self.stack_id)
        self.await_status("DELETE_COMPLETE", minutes=_DELETE_MINUTES)

    def await_status(self, *statuses: str, minutes: float = _DEPLOY_MINUTES) -> str:
        """Wait until the stack has one of the statuses, and return it.

        Raises:
            CheckError: It does not get there.
        """
        self._run.account.wait(lambda: self._watched(self.status() in statuses), minutes)
        self._watch()
        if (status := self.status()) not in statuses:
            raise CheckError(f"{self.name} is {status}, not {' or '.join(statuses)}")
        return status

    # --- what is seen of it ---

    @property
    def stack_id(self) -> str:
        """The ARN of the stack, or nothing while it does not exist."""
        if not self._id:
            try:
                found = self._client("cloudformation").describe_stacks(StackName=self.name)
            except ClientError as error:
                raise_unless_missing(error)
                return ""
            self._id = str(found["Stacks"][0]["StackId"])
        return self._id

    def status(self) -> str:
        """Return the status of the stack, or nothing while it does not exist."""
        if not self.stack_id:
            return ""
        try:
            found = self._client("cloudformation").describe_stacks(StackName=self.stack_id)
        except ClientError as error:
            raise_unless_missing(error)
            return "DELETE_COMPLETE"  # AWS forgets it after 90 days, MiniStack earlier
        return str(found["Stacks"][0]["StackStatus"])

    def stack_events(self) -> list[dict[str, Any]]:
        """Return the stack events, the oldest first."""
        pages = self._client("cloudformation").get_paginator("describe_stack_events")
        found = [e for page in pages.paginate(StackName=self.stack_id) for e in page["StackEvents"]]
        return found[::-1]

    def failed(self, resource_type: str = "") -> dict[str, str]:
        """Return why resources failed, by logical id, without those that were cancelled.

        Args:
            resource_type: Their type. Default: any.
        """
        return {
            event["LogicalResourceId"]: event.get("ResourceStatusReason", "")
            for event in self.stack_events()
            if event["ResourceStatus"].endswith("_FAILED")
            and event["LogicalResourceId"] != self.name
            and event["ResourceType"].startswith(resource_type)
            and "cancel" not in event.get("ResourceStatusReason", "").lower()
        }

    def resources(self, resource_type: str) -> dict[str, str]:
        """Return logical and physical ids of the resources of a type."""
        pages = self._client("cloudformation").get_paginator("list_stack_resources")
        return {
            found["LogicalResourceId"]: found.get("PhysicalResourceId", "")
            for page in pages.paginate(StackName=self.stack_id)
            for found in page["StackResourceSummaries"]
            if found["ResourceType"] == resource_type
        }

    def tasks(self) -> list[dict[str, Any]]:
        """Return the import tasks that the stack started."""
        pages = self._client("ec2").get_paginator("describe_import_image_tasks")
        found = [task for page in pages.paginate() for task in page["ImportImageTasks"]]
        own = [task for task in found if f":stack/{self.name}/" in str(task.get("Tags"))]
        for task in own:
            ami = task.get("ImageId") or self._run.tasks.get(task["ImportTaskId"], "")
            self._run.tasks[task["ImportTaskId"]] = ami
        return own

    def active_tasks(self) -> list[str]:
        """Return the ids of its tasks that still import."""
        return [task["ImportTaskId"] for task in self.tasks() if task["Status"] == "active"]

    def images(self) -> dict[str, str]:
        """Return the states of the images that have the tags of the stack, by ARN."""
        client = self._client("imagebuilder")
        versions = [
            version["arn"]
            for page in client.get_paginator("list_images").paginate(owner="Self")
            for version in page["imageVersionList"]
            if version["name"].startswith(self.name)
        ]
        return {
            build["arn"]: build["state"]["status"]
            for version in versions
            for page in client.get_paginator("list_image_build_versions").paginate(
                imageVersionArn=version
            )
            for build in page["imageSummaryList"]
        }

    def events_of(self, logical_id_prefix: str) -> list[dict[str, Any]]:
        """Return the events that the function received for a resource, in their order."""
        return [
            event
            for event in self._record.events
            if event["stack"] == self.name
            and event["event"]["LogicalResourceId"].startswith(logical_id_prefix)
            and not event["follows"]
        ]

    # --- records ---

    def _watched(self, over: bool) -> bool:  # noqa: FBT001 - passed through
        self._watch()
        return over

    def _watch(self) -> None:
        """Record the events that the function received: the inputs of the executions.

        They disappear with the state machine, so they are read while an operation runs.
        """
        if not self.stack_id:
            return
        client, uuid = self._client("stepfunctions"), self.stack_id.split("/")[2]
        machines = [
            machine["stateMachineArn"]
            for page in client.get_paginator("list_state_machines").paginate()
            for machine in page["stateMachines"]
            if machine["name"].endswith(uuid)
        ]
        for machine in machines:
            try:
                found = client.list_executions(stateMachineArn=machine, maxResults=1000)
                new = [
                    client.describe_execution(executionArn=execution["executionArn"])
                    for execution in found["executions"]
                    if execution["executionArn"] not in self._known_executions
                ]
            except ClientError as error:  # the state machine was deleted meanwhile
                raise_unless_missing(error)
                continue
            for execution in sorted(new, key=lambda one: str(one["startDate"])):
                self._known_executions.add(execution["executionArn"])
                self._record.events.append(
                    {
                        "stack": self.name,
                        "at": execution["startDate"].timestamp(),
                        "follows": execution["name"].startswith("follow-"),
                        "event": redacted(json.loads(execution["input"])["Event"]),
                    }
                )

    def read_log(self) -> None:
        """Record the stack events, and what the function logged about calls that it repeated."""
        if not self.stack_id or self.status() == "DELETE_COMPLETE":
            return
        self._watch()
        self._record.stack_events += [
            {
                "stack": self.name,
                "at": event["Timestamp"].timestamp(),
                "resource": event["LogicalResourceId"],
                "status": event["ResourceStatus"],
                "reason": event.get("ResourceStatusReason", ""),
            }
            for event in self.stack_events()
        ]
        lines = self.log_lines()
        repeated = [line for line in lines if "repeated after" in line]
        if repeated:
            self._record.observe(
                f"calls that the function of {self.name} repeated", repeated[:_LOG_LINES]
            )
        if lines:
            self._record.expect(
                "The function's log contains no signed ResponseURL",
                not any("X-Amz-Signature" in line for line in lines),
                f"{len(lines)} lines",
            )

    def log_lines(self) -> list[str]:
        """Return the lines of the function's log."""
        lines: list[str] = []
        for group in self.resources("AWS::Logs::LogGroup").values():
            try:
                pages = self._client("logs").get_paginator("filter_log_events")
                found = [e for page in pages.paginate(logGroupName=group) for e in page["events"]]
            except ClientError as error:  # nothing was logged
                raise_unless_missing(error)
                continue
            lines += [event["message"].strip()[:500] for event in found]
        return lines

    # --- the CDK CLI ---

    def _start_cdk(self, command: str, *options: str) -> None:
        inherited = {name: v for name, v in os.environ.items() if not name.startswith("AWS_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command_line = [str(CHECKOUT / "node_modules/.bin/cdk"), command, self.name, "--no-notices"]
        environment = {
            **inherited,
            **self._run.account.environment,
            "PATH": path,
            "CI": "true",
            # The app runs in another folder than this program.
            "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path),
        }
        # An interruption must not come before the run knows the process that it has to end.
        with self._output.open("a") as output, _interrupted_later():
            self._process = subprocess.Popen(  # noqa: S603 - the pinned CLI
                [*command_line, *options],
                cwd=self._folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                # Ctrl-C in the terminal must reach this program only, which then cleans up.
                start_new_session=True,
            )
            self._run.processes.append(self._process)


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Let an interruption of the block take effect at its end.

    A signal mask would not do: it is that of one thread, and another one receives the signal.
    """
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def redacted(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event without the signature of its ResponseURL, which anybody could use."""
    if "ResponseURL" not in event:
        return event
    url = urlsplit(event["ResponseURL"])
    shown = parse_qs(url.query)
    query = "&".join(f"{name}={shown[name][0]}" for name in _SHOWN_OF_URL if name in shown)
    return {**event, "ResponseURL": f"{url.scheme}://{url.netloc}/(redacted)?{query}"}
