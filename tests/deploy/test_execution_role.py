"""CloudFormation's execution role needs exactly these permissions for our constructs.

https://docs.aws.amazon.com/cdk/v2/guide/bootstrapping-customizing.html
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageProperty, ResourceType
from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli
from local_aws.client.prerequisites import Prerequisites
from tests.deploy.waiting_app import synthesize
from tests.support.execution_policy import execution_policies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

pytestmark = pytest.mark.slow

# For the recipe and the launch template that the app builds on its image.
ACTIONS_OF_THE_APP = {
    "ec2:CreateLaunchTemplate",
    "ec2:CreateLaunchTemplateVersion",
    "ec2:DeleteLaunchTemplate",
    "ec2:DescribeImages",
    "imagebuilder:CreateImageRecipe",
    "imagebuilder:DeleteImageRecipe",
    "imagebuilder:GetImage",
    "imagebuilder:GetImageRecipe",
}
TASK = "import-ami-0123456789abcdef0"
BUCKET = "cdk-hnb659fds-assets-123456789012-us-east-1"
ROLE = "arn:aws:iam::123456789012:role/cdk-hnb659fds-cfn-exec-role-123456789012-us-east-1"


@dataclass
class Account:
    """An account whose administrator restricts CloudFormation's execution role."""

    local: LocalAws
    folder: Path

    def __post_init__(self) -> None:
        self._seen: set[str] = set()
        session: Any = self.local.session()
        self.iam, self.cloudformation = session.client("iam"), session.client("cloudformation")
        self.s3 = session.client("s3")
        document = _policy(ACTIONS_OF_THE_APP)
        policy = self.iam.create_policy(PolicyName="Deploys", PolicyDocument=document)
        self.policy = str(policy["Policy"]["Arn"])
        CdkCli(self.local, self.folder).bootstrap(self.policy)
        self.task = Prerequisites(self.local).import_image()
        self.local.knobs(import_seconds=600)

    def allow(self, actions: Collection[str]) -> None:
        """Allow the execution role these actions, those of the app and no others."""
        for version in self.iam.list_policy_versions(PolicyArn=self.policy)["Versions"]:
            if not version["IsDefaultVersion"]:
                version_id = version["VersionId"]
                self.iam.delete_policy_version(PolicyArn=self.policy, VersionId=version_id)
        document = _policy({*actions, *ACTIONS_OF_THE_APP})
        self.iam.create_policy_version(
            PolicyArn=self.policy, PolicyDocument=document, SetAsDefault=True
        )

    def app(self, name: str, version: str = "1.0.0") -> Path:
        """Synthesize a stack with an image that two resources wait for."""
        image = {"image_name": name, "semantic_version": version, "vm_import_task_id": self.task}
        folder = self.folder / f"{name}-{version}"
        synthesize(folder, name, {**image, "minutes": 120})
        return folder

    def template(self, name: str) -> str:
        """Return the template of such a stack, after its asset is uploaded."""
        folder = self.app(name)
        (asset,) = folder.glob("asset.*")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in asset.rglob("*"):
                archive.write(path, path.relative_to(asset))
        for key in (f"{asset.name.partition('.')[2]}.zip", "changed.zip"):
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=packed.getvalue())
        return (folder / f"{name}.template.json").read_text()

    def denials(self, name: str, without: tuple[str, str] | None = None) -> dict[str, str]:
        """Create, change and delete a stack, each with the policy that its template needs.

        Args:
            name: Name of the stack.
            without: An operation, and an action that its policy lacks.

        Returns:
            What was denied in each operation.
        """
        template = self.template(name)
        policies = execution_policies(json.loads(template))
        if without:
            operation, action = without
            policies[operation].remove(action)
        named = {"StackName": name}
        request = {**named, "Capabilities": ["CAPABILITY_IAM"], "RoleARN": ROLE}
        self.allow(policies["deploy"])
        self.cloudformation.create_stack(**request, TemplateBody=template)
        denied = {"deploy": self._denied(name)}
        if not denied["deploy"]:
            self.allow(policies["update"])
            self.cloudformation.update_stack(**request, TemplateBody=_changed(template))
            denied["update"] = self._denied(name)
        self.allow(policies["destroy"])
        self.cloudformation.delete_stack(**named)
        denied["destroy"] = self._denied(name)
        return denied

    def _denied(self, name: str) -> str:
        """Wait for the end of an operation that has begun, and return what was denied in it."""
        ended = False
        while not ended:
            time.sleep(0.1)
            events = self.cloudformation.describe_stack_events(StackName=name)["StackEvents"]
            new = [event for event in events if event["EventId"] not in self._seen]
            ended = any(
                event["LogicalResourceId"] == name
                and not event["ResourceStatus"].endswith("_IN_PROGRESS")
                for event in new
            )
        self._seen |= {event["EventId"] for event in new}
        reasons = (event.get("ResourceStatusReason", "") for event in new)
        return "\n".join(reason for reason in reasons if "is not authorized" in reason)


def _policy(actions: Collection[str]) -> str:
    statement = {"Effect": "Allow", "Action": sorted(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _changed(template: str) -> str:
    """Change the template as another release might."""
    more = {"PolicyName": "More", "PolicyDocument": json.loads(_policy(["ec2:DescribeRegions"]))}
    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "AWS::IAM::Role": lambda role: role["Policies"].append(more),
        "AWS::Lambda::EventInvokeConfig": lambda c: c.update(MaximumEventAgeInSeconds=7200),
        "AWS::Lambda::Function": lambda f: f.update(MemorySize=512),
        "AWS::Logs::LogGroup": lambda group: group.update(RetentionInDays=30),
        ResourceType.IMAGE: lambda image: image.update({ImageProperty.TAGS: {"release": "2"}}),
    }
    # A limit of the state machine.
    changed = json.loads(template.replace('TimeoutSeconds\\":46800', 'TimeoutSeconds\\":46900'))
    assert changed != json.loads(template)
    for resource in changed["Resources"].values():
        if change := changes.get(resource["Type"]):
            change(resource["Properties"])
            resource["Properties"].get("Code", {})["S3Key"] = "changed.zip"
    return json.dumps(changed)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with LocalAws.start(speed=1800, auth=True) as local:
        yield Account(local, tmp_path_factory.mktemp("account"))


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The policies for each operation on a stack of the app."""
    return _policies(tmp_path_factory.mktemp("template"))


def _policies(folder: Path) -> dict[str, set[str]]:
    image = {"image_name": "named", "semantic_version": "1.0.0", "vm_import_task_id": TASK}
    synthesize(folder, "Stack", {**image, "minutes": 120})
    return execution_policies(json.loads((folder / "Stack.template.json").read_text()))


def _operations() -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        found = _policies(Path(folder))
    return [(name, action) for name, actions in found.items() for action in sorted(actions)]


def test_the_generated_policies_suffice_to_create_change_and_destroy_a_stack(
    account: Account, policies: dict[str, set[str]]
) -> None:
    first, second = (
        CdkCli(account.local, account.folder, str(account.app("Lives", version)))
        for version in ("1.0.0", "2.0.0")
    )
    account.allow(policies["deploy"])
    first.deploy()
    account.allow(policies["update"])
    second.deploy()
    account.allow(policies["destroy"])
    second.destroy()


def test_the_generated_policies_suffice_to_update_to_another_release(account: Account) -> None:
    assert account.denials("Changes") == {"deploy": "", "update": "", "destroy": ""}


@pytest.mark.parametrize(("operation", "action"), _operations())
def test_each_action_of_a_generated_policy_is_needed(
    account: Account, operation: str, action: str
) -> None:
    name = f"Without-{operation}-{action.replace(':', '-')}"
    denied = account.denials(name, (operation, action))

    assert f"is not authorized to perform: {action} on" in denied[operation]
