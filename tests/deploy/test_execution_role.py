"""CloudFormation's execution role needs exactly these permissions for our constructs.

https://docs.aws.amazon.com/cdk/v2/guide/bootstrapping-customizing.html
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from local_aws import LocalAws
from local_aws.client.cdk_cli import CdkCli
from local_aws.client.prerequisites import Prerequisites
from tests.deploy.waiting_app import synthesize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# Writes only. CloudFormation's handlers also read, which the simulated CloudFormation does not.
ACTIONS = {
    "iam:CreateRole",
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:PassRole",
    "iam:PutRolePolicy",
    "lambda:CreateFunction",
    "lambda:DeleteFunction",
    "lambda:DeleteFunctionEventInvokeConfig",
    "lambda:InvokeFunction",
    "lambda:PutFunctionEventInvokeConfig",
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
    "lambda:UpdateFunctionEventInvokeConfig",
    "logs:CreateLogGroup",
    "logs:DeleteLogGroup",
    "logs:PutRetentionPolicy",
    "s3:GetObject",
    "states:CreateStateMachine",
    "states:DeleteStateMachine",
    "states:UpdateStateMachine",
}
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
BUCKET = "cdk-hnb659fds-assets-123456789012-us-east-1"
ROLE = "arn:aws:iam::123456789012:role/cdk-hnb659fds-cfn-exec-role-123456789012-us-east-1"


@dataclass
class Account:
    """An account whose administrator restricts CloudFormation's execution role."""

    local: LocalAws
    folder: Path

    def __post_init__(self) -> None:
        session: Any = self.local.session()
        self.iam, self.cloudformation = session.client("iam"), session.client("cloudformation")
        self.s3 = session.client("s3")
        document = _policy(ACTIONS | ACTIONS_OF_THE_APP)
        policy = self.iam.create_policy(PolicyName="Deploys", PolicyDocument=document)
        self.policy = str(policy["Policy"]["Arn"])
        CdkCli(self.local, self.folder).bootstrap(self.policy)
        self.task = Prerequisites(self.local).import_image()
        self.local.knobs(import_seconds=600)

    def allow(self, actions: Collection[str]) -> None:
        """Allow the execution role these actions and no others."""
        for version in self.iam.list_policy_versions(PolicyArn=self.policy)["Versions"]:
            if not version["IsDefaultVersion"]:
                version_id = version["VersionId"]
                self.iam.delete_policy_version(PolicyArn=self.policy, VersionId=version_id)
        document = _policy(actions)
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

    def denials(self, name: str) -> str:
        """Create, change and delete a stack; return what was denied."""
        template = self.template(name)
        named = {"StackName": name}
        request = {**named, "Capabilities": ["CAPABILITY_IAM"], "RoleARN": ROLE}
        self.cloudformation.create_stack(**request, TemplateBody=template)
        if self._status(name) == "CREATE_COMPLETE":
            self.cloudformation.update_stack(**request, TemplateBody=_changed(template))
            self._status(name)
        self.cloudformation.delete_stack(**named)
        self._status(name)
        events = self.cloudformation.describe_stack_events(**named)["StackEvents"]
        reasons = (event.get("ResourceStatusReason", "") for event in events)
        return "\n".join(reason for reason in reasons if "is not authorized" in reason)

    def _status(self, name: str) -> str:
        while True:
            time.sleep(0.1)
            events = self.cloudformation.describe_stack_events(StackName=name)["StackEvents"]
            status = next(e["ResourceStatus"] for e in events if e["LogicalResourceId"] == name)
            if not status.endswith("_IN_PROGRESS"):
                return str(status)


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


def test_these_permissions_suffice_to_create_change_and_destroy_a_stack(
    account: Account,
) -> None:
    account.allow(ACTIONS | ACTIONS_OF_THE_APP)
    for version in ("1.0.0", "2.0.0"):
        cdk = CdkCli(account.local, account.folder, str(account.app("Lives", version)))
        cdk.deploy()
    cdk.destroy()


def test_these_permissions_suffice_to_update_to_another_release(account: Account) -> None:
    account.allow(ACTIONS | ACTIONS_OF_THE_APP)
    assert account.denials("Changes") == ""


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_each_action_is_needed(account: Account, action: str) -> None:
    account.allow((ACTIONS | ACTIONS_OF_THE_APP) - {action})
    name = f"Without-{action.replace(':', '-')}"
    assert f"is not authorized to perform: {action} on" in account.denials(name)
