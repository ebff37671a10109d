"""No statement of our policies is missing, and none is superfluous.

With all statements, no step in the life of a stack is denied. Without any one of them, a step is.
"""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from aws_cdk.assertions import Template

from cdk_vm_import import ImportedVmImage, Platform, VmDisk, VmImportProvider, VmImportTask
from contract import ImageProperty, ResourceType
from local_aws import LocalAws
from local_aws.client.prerequisites import BUCKET, DISK, Prerequisites, raw_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# The statements of our roles and keys, and the step that is denied without each of them.
_FIRST = "first import of the account"
LICENSES = (
    "arn:aws:license-manager:us-east-1:123456789012:license-configuration:lic-0123456789abcdef"
)
STATEMENTS = {
    "AttachLicenses": _FIRST,
    "ChangeAmisOfThisStack": "replacement of the task",
    "ChangeImagesOfThisStack": _FIRST,
    "ChangeImportTasksOfThisStack": _FIRST,
    "CheckDisks": _FIRST,
    "CreateAmi": _FIRST,
    "CreateServiceLinkedRole": _FIRST,
    "DecryptDisks": _FIRST,
    "DeleteSnapshotsOfThisStack": "replacement of the task",
    "EncryptAmi": _FIRST,
    "EncryptExecutions": _FIRST,
    "EncryptLogs": _FIRST,
    "FindDisks": _FIRST,
    "ImportDisks": _FIRST,
    "ImportDisksOfThisStack": _FIRST,
    "ImportImagesOfThisStack": _FIRST,
    "InvokeFunction": _FIRST,
    "PassRolesToVmImport": _FIRST,
    "ReadDisks": _FIRST,
    "ReadImages": _FIRST,
    "ReadImportTasks": _FIRST,
    "ReadSnapshots": "replacement of the task",
    "ReadStatusOfThisStack": "replacement",
    "ReadUsesOfAmis": "replacement of the task",
    "RunInVpc": _FIRST,
    "StartEncryptedExecutions": _FIRST,
    "StartExecutions": _FIRST,
    "StopExecutions": "event that supersedes another",
    "TagAmisOfThisStack": _FIRST,
    "TagImagesOfThisStack": _FIRST,
    "UntagAmisOfThisStack": "change of tags",
    "WriteOwnLog": _FIRST,
}
DENIALS = (
    "AccessDenied",
    "UnauthorizedOperation",
    "not authorized",
    "not have permissions",
    "not have sufficient permissions",
    "not have access to the given resource",
    "is not allowed to be used",
)


class DeniedError(Exception):
    """A step was denied."""


@dataclass
class Aws:
    """An account in which IAM is enforced."""

    local: LocalAws
    code: Path

    def __post_init__(self) -> None:
        self.prerequisites = Prerequisites(self.local)
        session: Any = self.local.session()
        self.cloudformation = session.client("cloudformation")
        self.iam, self.logs = session.client("iam"), session.client("logs")
        self.machines, self.functions = session.client("stepfunctions"), session.client("lambda")
        buckets = session.client("s3")
        self.disk_key = session.client("kms").create_key()["KeyMetadata"]["Arn"]
        for name in (DISK, "other.raw"):
            buckets.put_object(
                Bucket=BUCKET,
                Key=name,
                Body=raw_disk(),
                ServerSideEncryption="aws:kms",
                SSEKMSKeyId=self.disk_key,
            )
        buckets.create_bucket(Bucket="code")
        template(self.code, self.disk_key)
        (asset,) = self.code.glob("asset.*")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in asset.rglob("*"):
                archive.write(path, path.relative_to(asset))
        buckets.put_object(Bucket="code", Key="code.zip", Body=packed.getvalue())


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with LocalAws.start(speed=60, auth=True) as local:
        yield Aws(local, tmp_path_factory.mktemp("code"))


def template(
    folder: Path,
    disk_key: str,
    disk: str = DISK,
    running: str | None = None,
    *,
    waits: bool = False,
    hardened: bool = False,
    **arguments: Any,
) -> dict[str, Any]:
    """Return the template of a stack that uses every option of a provider.

    Args:
        folder: Where to synthesize.
        disk_key: ARN of the key of the disks.
        disk: Key of the disk in the bucket.
        running: An import task for a second image. Default: there is none.
        waits: Whether the second image waits for its import.
        hardened: Whether the provider has the user's role, and what security reviews ask for.
        **arguments: Those of the first image.
    """
    app = cdk.App(outdir=str(folder))
    synthesizer = cdk.DefaultStackSynthesizer(generate_bootstrap_version_rule=False)
    stack = cdk.Stack(app, "Stack", synthesizer=synthesizer)
    vpc = ec2.Vpc.from_vpc_attributes(
        stack,
        "Vpc",
        vpc_id="vpc-0123456789abcdef0",
        availability_zones=["us-east-1a"],
        private_subnet_ids=["subnet-0123456789abcdef0"],
    )
    key = kms.Key(stack, "Key")
    provider = VmImportProvider(
        stack,
        "VmImportProvider",
        vpc=vpc,
        security_groups=[
            ec2.SecurityGroup.from_security_group_id(stack, "Group", "sg-0123456789abcdef0")
        ],
        encryption_key=key,
        **(_hardening(stack) if hardened else {}),
    )
    bucket = s3.Bucket.from_bucket_attributes(
        stack,
        "Bucket",
        bucket_name=BUCKET,
        encryption_key=kms.Key.from_key_arn(stack, "DiskKey", disk_key),
    )
    tags = arguments.pop("tags", {"a": "1", "b": "1"})
    task = VmImportTask(
        stack,
        "Task",
        disks=[VmDisk.from_bucket(bucket, disk)],
        platform=Platform.LINUX,
        license_configurations=[LICENSES],
        encryption_key=key,
        tags=tags,
        provider=provider,
    )
    ImportedVmImage(
        stack,
        "Image",
        image_name="golden image",
        platform=Platform.LINUX,
        vm_import_task=task,
        removal_policy=cdk.RemovalPolicy.DESTROY,
        delete_ami=True,
        provider=provider,
        tags=tags,
        **{"semantic_version": "1.0.0", **arguments},
    )
    if running:
        ImportedVmImage(
            stack,
            "Running",
            image_name="running",
            semantic_version="1.0.0",
            platform=Platform.LINUX,
            vm_import_task_id=running,
            wait_for_available=waits,
            removal_policy=cdk.RemovalPolicy.DESTROY,
            provider=provider,
        )
    body = dict(Template.from_stack(stack).to_json())
    for resource in body["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            resource["Properties"]["Code"] = {"S3Bucket": "code", "S3Key": "code.zip"}
    return body


def _hardening(stack: cdk.Stack) -> dict[str, Any]:
    queue = "arn:aws:sqs:us-east-1:123456789012:undelivered"
    principal = iam.ServicePrincipal("lambda.amazonaws.com")
    return {
        "role": iam.Role(stack, "Own", assumed_by=principal),
        "reserved_concurrent_executions": 20,
        "dead_letter_queue": sqs.Queue.from_queue_arn(stack, "Queue", queue),
        "tracing": lambda_.Tracing.ACTIVE,
        "log_executions": True,
    }


def documents(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The policies in a template: of roles, of keys, and policies of their own."""
    for resource in body["Resources"].values():
        properties = resource.get("Properties", {})
        for policy in properties.get("Policies", []):
            yield policy["PolicyDocument"]
        for name in ("PolicyDocument", "KeyPolicy"):
            if name in properties:
                yield properties[name]


@dataclass
class Stack:
    """A stack whose policies lack a statement."""

    aws: Aws
    name: str
    folder: Path
    without: str | None
    hardened: bool = False

    def steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """The steps in the life of a stack."""
        yield "first import of the account", self.first_import
        changed, other = {"tags": {"a": "2"}}, {"disk": "other.raw"}
        yield "change of tags", lambda: self.update(**changed)
        yield "replacement", lambda: self.update(**changed, semantic_version="2.0.0")
        yield "replacement of the task", lambda: self.update(**other)
        self.aws.local.knobs(import_seconds=10**6)
        yield "event that supersedes another", self.supersede
        running = self.aws.prerequisites.import_image()
        self.aws.local.knobs(import_seconds=36000)
        failing = self.aws.prerequisites.import_image()
        # Before the disk is read, which is denied.
        self.aws.local.fail_import("ClientError: no", task_id=failing, fail_at_progress=2)
        yield "image without a wait", lambda: self.update(**other, running=failing)
        yield "wait for a failed image", lambda: self.wait_for_failed(failing, **other)
        yield "another image without a wait", lambda: self.update(**other, running=running)
        yield "deletion of a running import", self.delete

    def first_import(self) -> None:
        role = "AWSServiceRoleForImageBuilder"
        if role in str(self.aws.iam.list_roles()["Roles"]):
            self.aws.iam.delete_service_linked_role(RoleName=role)
        self.act("create_stack", self.template())
        if not any("ImportVmImage" in line for line in self.log()):
            raise DeniedError("the function is not authorized to log")
        assert role in str(self.aws.iam.list_roles()["Roles"])

    def update(self, **arguments: Any) -> None:
        self.act("update_stack", self.template(**arguments))

    def wait_for_failed(self, task: str, **arguments: Any) -> None:
        """Let the hour pass in which the import of the image without a wait fails; wait for it."""
        self.aws.local.advance(3600)
        template = self.template(**arguments, running=task, waits=True)
        self.act("update_stack", template, "UPDATE_ROLLBACK_COMPLETE")

    def delete(self) -> None:
        self.aws.cloudformation.delete_stack(StackName=self.id)
        self.settle()

    def supersede(self) -> None:
        """Send the function a Delete while it still waits for the image of a Create."""
        resources = self.resources()
        (function,) = resources["AWS::Lambda::Function"]
        (machine,) = resources["AWS::StepFunctions::StateMachine"]
        properties = {
            "ServiceToken": function,
            ImageProperty.NAME: "superseded",
            ImageProperty.SEMANTIC_VERSION: "1.0.0",
            ImageProperty.PLATFORM: "Linux",
            ImageProperty.VM_IMPORT_TASK_ID: self.aws.prerequisites.import_image(),
            ImageProperty.STATE_MACHINE_ARN: machine,
            ImageProperty.TIMEOUT_SECONDS: "3600",
        }
        for request_type in ("Create", "Delete"):
            event = {
                "RequestType": request_type,
                "RequestId": str(uuid.uuid4()),
                "StackId": self.id,
                "LogicalResourceId": "Superseded",
                "PhysicalResourceId": "none",
                "ResourceType": ResourceType.IMAGE,
                "ResponseURL": f"https://localhost:{self.aws.local.port}/_ministack/cfn-response/no",
                "ResourceProperties": properties,
            }
            self.aws.functions.invoke(FunctionName=function, Payload=json.dumps(event))
            # An execution that has not begun is refused, and not stopped.
            while not self.has_begun("superseded"):
                self.check([])
                time.sleep(0.1)
        stopped: dict[str, Any] = {"stateMachineArn": machine, "statusFilter": "ABORTED"}
        while not self.aws.machines.list_executions(**stopped)["executions"]:
            self.check([])
            time.sleep(0.1)

    def has_begun(self, image_name: str) -> bool:
        """Whether the function asked for the import of an image."""
        asked = [call["request"] for call in self.aws.local.calls("ImportVmImage")]
        return any(r["name"] == image_name and self.id in r["tags"].values() for r in asked)

    def resources(self) -> dict[str, list[str]]:
        """The physical ids of its resources, by type."""
        found: dict[str, list[str]] = {}
        described = self.aws.cloudformation.describe_stack_resources(StackName=self.id)
        for resource in described["StackResources"]:
            id_ = resource.get("PhysicalResourceId", "")
            found.setdefault(resource["ResourceType"], []).append(id_)
        return found

    def log(self) -> list[str]:
        """The log of the function so far."""
        groups = self.resources().get("AWS::Logs::LogGroup", [])
        known = {
            group["logGroupName"] for group in self.aws.logs.describe_log_groups()["logGroups"]
        }
        return [
            event["message"]
            for group in groups
            if group in known
            for event in self.aws.logs.filter_log_events(logGroupName=group)["events"]
        ]

    def check(self, reasons: list[str]) -> None:
        """Raise an error if anything was denied."""
        imports = self.aws.local.calls("ImportImage")
        own = [call["error"] for call in imports if self.id in str(call["request"])]
        if {"InvalidParameter", "UnauthorizedOperation"} & set(own):
            # The handler repeats it for 90 seconds, because a role may be too new for EC2.
            raise DeniedError("ImportImage: not authorized, or the role is not sufficient")
        for reason in [*reasons, *self.causes(), *self.log()]:
            if any(denial in reason for denial in DENIALS):
                raise DeniedError(reason)

    def template(self, **arguments: Any) -> str:
        body = template(self.folder, self.aws.disk_key, hardened=self.hardened, **arguments)
        for document in documents(body):
            document["Statement"] = [
                statement
                for statement in document["Statement"]
                if statement.get("Sid") != self.without or self.without is None
            ]
        for resource in body["Resources"].values():
            policies = resource.get("Properties", {}).get("Policies", [])
            policies[:] = [policy for policy in policies if policy["PolicyDocument"]["Statement"]]
        return json.dumps(body)

    def act(self, action: str, body: str, status: str = "") -> None:
        response = getattr(self.aws.cloudformation, action)(
            StackName=self.name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"]
        )
        self.id = response["StackId"]
        self.settle(status)

    def settle(self, expected: str = "") -> None:
        """Wait until the stack operation ends, or something is denied.

        Args:
            expected: The status in the end. Default: that of a successful operation.
        """
        while True:
            (stack,) = self.aws.cloudformation.describe_stacks(StackName=self.id)["Stacks"]
            status = stack["StackStatus"]
            events = self.aws.cloudformation.describe_stack_events(StackName=self.id)
            reasons = [e.get("ResourceStatusReason", "") for e in events["StackEvents"]]
            self.check(reasons)
            if not status.endswith("_IN_PROGRESS"):
                break
            time.sleep(0.1)
        successful = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}
        assert status in ({expected} if expected else successful), reasons

    def causes(self) -> Iterator[str]:
        """The causes of failed tasks of the stack's state machine."""
        for machine in self.aws.machines.list_state_machines()["stateMachines"]:
            arn = machine["stateMachineArn"]
            if self.id.rpartition("/")[2] not in arn:
                continue
            for execution in self.aws.machines.list_executions(stateMachineArn=arn)["executions"]:
                history = self.aws.machines.get_execution_history(
                    executionArn=execution["executionArn"]
                )
                for event in history["events"]:
                    yield event.get("taskFailedEventDetails", {}).get("cause", "")


@pytest.fixture
def stack(aws: Aws, tmp_path: Path, request: pytest.FixtureRequest) -> Stack:
    aws.local.knobs(import_seconds=60)
    without = getattr(request, "param", None)
    return Stack(aws, f"Without{without}", tmp_path, without)


def test_with_all_statements_no_step_is_denied(stack: Stack) -> None:
    for _, step in stack.steps():
        step()


def test_with_a_role_of_the_user_and_all_hardening_no_step_is_denied(stack: Stack) -> None:
    stack.name, stack.hardened = "Hardened", True
    for _, step in stack.steps():
        step()


@pytest.mark.parametrize("stack", STATEMENTS, indirect=True)
def test_without_a_statement_a_step_is_denied(stack: Stack) -> None:
    for name, step in stack.steps():
        try:
            step()
        except DeniedError as denial:
            print(f"without {stack.without}: {name}: {str(denial)[:300]}")  # noqa: T201 - shows which call each statement is for
            assert name == STATEMENTS[stack.without or ""]
            return
    pytest.fail(f"{stack.without} is superfluous")


def test_each_statement_is_in_the_table(aws: Aws, tmp_path: Path) -> None:
    body = template(tmp_path, aws.disk_key)
    # CDK adds statements without a Sid: the account's in the key policy, and the roles' trust.
    found = [
        statement["Sid"]
        for document in documents(body)
        for statement in document["Statement"]
        if "Sid" in statement
    ]
    assert sorted(found) == sorted(STATEMENTS)
