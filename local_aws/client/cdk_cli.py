"""The real CDK CLI, pointed at the simulated AWS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_aws.client.environment import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_aws.client.local_aws import LocalAws


class CdkError(Exception):
    """A command of the CDK CLI failed; the message is its output."""


@dataclass(frozen=True)
class CdkCli:
    """The CDK CLI that package.json pins, for one app.

    Attributes:
        aws: The simulated AWS to deploy to.
        folder: The folder for cloud assemblies and outputs.
        app: The command that runs the app. Default: the one in the project's cdk.json.
        project: The folder that the CLI runs in, with its cdk.json. Default: this checkout.
    """

    aws: LocalAws
    folder: Path
    app: str | None = None
    project: Path = CHECKOUT

    def bootstrap(self, *execution_policies: str) -> None:
        """Bootstrap the account and Region of the simulated AWS.

        Args:
            execution_policies: ARNs of the managed policies of CloudFormation's execution role.
                Default: AdministratorAccess.

        Raises:
            CdkError: The command failed.
        """
        clients: Any = self.aws.session().client
        sts = clients("sts", endpoint_url=self.aws.environment["AWS_ENDPOINT_URL"])
        account, region = sts.get_caller_identity()["Account"], self.aws.environment["AWS_REGION"]
        # Bootstrapping needs no app, so it runs in a folder without one.
        policies = ["--cloudformation-execution-policies", ",".join(execution_policies)]
        arguments = ["bootstrap", f"aws://{account}/{region}"]
        self.run(arguments + (policies if execution_policies else []), cwd=self.folder)

    def deploy(self, *options: str, **context: str) -> dict[str, str]:
        """Deploy all stacks of the app.

        Args:
            options: More options of the command, such as `--no-rollback`.
            context: Context values for the app.

        Returns:
            The outputs of the stacks.

        Raises:
            CdkError: The command failed.
        """
        outputs = self.folder / "outputs.json"
        arguments = ["--all", "--require-approval", "never", "--outputs-file", str(outputs)]
        self.run(["deploy", *self._on_app(context), *arguments, *options])
        stacks = json.loads(outputs.read_text()).values()
        return {name: value for values in stacks for name, value in values.items()}

    def destroy(self, **context: str) -> None:
        """Destroy all stacks of the app.

        Args:
            context: Context values for the app.

        Raises:
            CdkError: The command failed.
        """
        self.run(["destroy", *self._on_app(context), "--all", "--force"])

    def _on_app(self, context: Mapping[str, str]) -> list[str]:
        arguments = ["--output", str(self.folder / "cdk.out"), "--no-notices"]
        if self.app:
            arguments += ["--app", self.app]
        for name, value in context.items():
            arguments += ["--context", f"{name}={value}"]
        return arguments

    def run(self, arguments: list[str], cwd: Path | None = None) -> str:
        """Run a command.

        Args:
            arguments: The command and its options.
            cwd: The folder that it runs in. Default: the project.

        Returns:
            What it printed.

        Raises:
            CdkError: The command failed.
        """
        inherited = {name: v for name, v in os.environ.items() if not name.startswith("AWS_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with subprocess.Popen(  # noqa: S603 - the pinned CLI
            [str(CHECKOUT / "node_modules/.bin/cdk"), *arguments],
            cwd=cwd or self.project,
            env={**inherited, **self.aws.environment, "PATH": path, "CI": "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # In a process group of its own, an interruption ends all its child processes too.
            start_new_session=True,
        ) as process:
            try:
                printed, _ = process.communicate()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            raise CdkError(printed)
        return printed
