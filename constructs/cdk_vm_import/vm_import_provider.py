"""The Lambda function behind the custom resources."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import aws_cdk as cdk
import jsii
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk_vm_import import _policies, _validation
from cdk_vm_import._cdk_types import AnyKey
from cdk_vm_import._disk_access import DiskAccess, StoredDisk
from cdk_vm_import._event_state_machine import EventStateMachine
from cdk_vm_import._handler import handler_code
from cdk_vm_import._inline_policy import set_inline_policy
from cdk_vm_import._signature import shows_arguments

# The function's logical id derives from this id. CloudFormation refuses to update a resource whose
# ServiceToken changed, so another id would break every stack that is deployed.
_ID = "VmImportProvider"
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
_MEMORY = range(128, 10_241)


@dataclass(frozen=True, kw_only=True)
class ProviderConfig:
    """What a custom resource needs to know about its provider."""

    service_token: str
    state_machine_arn: str


@shows_arguments(architecture="Architecture.X86_64")
@jsii.implements(iam.IGrantable)
class VmImportProvider(Construct):
    """The Lambda function that imports, tags and deletes images for the resources of one stack.

    The function starts an execution of a state machine for each event of CloudFormation. The state
    machine then calls the function again, until the event is over: for example, until the import
    has ended. So each event is handled once and in order.

    A stack creates its provider when the first image needs it. To choose the settings, create the
    provider before the first image, with the id `VmImportProvider` in the stack. All images of the
    stack then use it. A provider with another id serves only the images that name it as their
    `provider`. Do not change the provider of a deployed image: CloudFormation does not allow a
    resource to change its function.

    The function's role allows writes only to resources with the tag `cdk-vm-import:stack` of this
    stack.
    """

    def __init__(  # noqa: PLR0913 - flat arguments, as CDK's own
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc: ec2.IVpc | None = None,
        vpc_subnets: ec2.SubnetSelection | None = None,
        security_groups: Sequence[ec2.ISecurityGroup] | None = None,
        encryption_key: AnyKey | None = None,
        log_retention: logs.RetentionDays = logs.RetentionDays.THREE_MONTHS,
        architecture: lambda_.Architecture = lambda_.Architecture.X86_64,
        memory_size: int = 256,
    ) -> None:
        """Create the function, its role, its log group and the state machine.

        Args:
            scope: The construct to create this one in.
            construct_id: The id of this construct in the scope.
            vpc: VPC that the function runs in. From there it must reach the APIs of Image Builder,
                EC2, Step Functions, CloudFormation and CloudWatch Logs, and S3, where
                CloudFormation receives responses: through NAT or through VPC endpoints. The
                resources of the VPC are created first. If its endpoints are constructs elsewhere
                in the stack, use `provider.node.add_dependency(endpoint)`. Default: the function
                runs in no VPC.
            vpc_subnets: Subnets of the VPC. Default: the private subnets.
            security_groups: Security groups in the VPC. Default: a new security group that allows
                all outbound and no inbound traffic.
            encryption_key: KMS key that encrypts the log group, the function's code and environment
                and the executions of the state machine. If this app creates the key, its policy is
                extended so that CloudWatch Logs can use it. The policy of an imported key must
                already allow that, see
                https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
                Default: keys that AWS owns.
            log_retention: How long CloudWatch retains the function's log. Default: three months.
            architecture: Processor architecture of the function. Default: x86_64.
            memory_size: Memory of the function in MiB, 128 to 10240. Default: 256.

        Raises:
            ValueError: Arguments are not valid, or the stack has its provider already. The message
                lists all problems.
        """
        _validation.place(scope, construct_id)
        _validation.check(
            scope,
            construct_id,
            [
                *_exists(scope, construct_id),
                *_vpc(vpc, vpc_subnets, security_groups),
                *_validation.optional("encryption_key", encryption_key, "key_arn", "a kms.Key"),
                *_settings(log_retention, architecture, memory_size),
            ],
        )
        super().__init__(scope, construct_id)
        log_group = logs.LogGroup(
            self,
            "LogGroup",
            retention=log_retention,
            encryption_key=encryption_key,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        if encryption_key:
            encryption_key.add_to_resource_policy(_policies.encrypt_logs())
        # Of the import tasks that the function starts.
        self._disks = DiskAccess()
        self._passed_roles: dict[str, None] = {}
        self._role = iam.Role(
            self,
            "Role",
            description="Permissions of the function that imports VM images into Image Builder",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        )
        with handler_code(self) as code:
            self._function = lambda_.Function(
                self,
                "Handler",
                description="Imports virtual machines into EC2 Image Builder for CloudFormation",
                runtime=lambda_.Runtime.PYTHON_3_13,
                handler="index.handler",
                code=code,
                timeout=cdk.Duration.minutes(15),
                # Lambda retries an event for six hours, but CloudFormation stops waiting after
                # one. An image that is created later would belong to no stack.
                max_event_age=cdk.Duration.hours(1),
                memory_size=memory_size,
                architecture=architecture,
                role=self._role,
                log_group=log_group,
                environment_encryption=encryption_key,
                vpc=vpc,
                vpc_subnets=vpc_subnets,
                security_groups=security_groups,
            )
        self._state_machine = EventStateMachine(
            self,
            "EventStateMachine",
            function=self._function,
            encryption_key=encryption_key,
            # The function reaches AWS through the routes and the endpoints of the VPC.
            dependencies=[*([vpc] if vpc else []), *(security_groups or [])],
        )
        statements = [
            *_policies.manage_images(),
            _policies.write_log(log_group),
            *([_policies.run_in_vpc()] if vpc else []),
            *_policies.run_executions(
                self._state_machine.arn_by_name, self._state_machine.executions_arn
            ),
        ]
        if encryption_key:
            statements.append(
                _policies.encrypt_executions(
                    encryption_key, self._state_machine.arn_by_name, "StartEncryptedExecutions"
                )
            )
        set_inline_policy(
            self._role,
            "VmImport",
            lambda: [*statements, *self._start_import_tasks()],
            advice="use fewer roles and fewer buckets for the import tasks of the stack, or give "
            "some of the tasks another provider.",
        )

    @classmethod
    def get_or_create(cls, scope: Construct) -> "VmImportProvider":
        """Return the provider that the images of a stack share.

        Args:
            scope: Any construct of the stack.

        Returns:
            The provider with the id `VmImportProvider` in the stack. It is created if the stack
            has none.

        Raises:
            ValueError: The scope is not a construct, or another kind of construct has that id.
        """
        _validation.place(scope, _ID)
        stack = cdk.Stack.of(scope)
        child = stack.node.try_find_child(_ID)
        if child is None:
            return cls(stack, _ID)
        if isinstance(child, cls):
            return child
        raise ValueError(
            f"{child.node.path}: this construct is not a VmImportProvider, but it has the id that "
            "the shared provider of the stack needs: give the construct another id, or give the "
            "images a provider."
        )

    @property
    def function(self) -> lambda_.Function:
        """The function, for example for alarms on its metrics."""
        return self._function

    @property
    def grant_principal(self) -> iam.IPrincipal:
        """The function's role, as the principal of grants."""
        return self._role.grant_principal

    def _bind(
        self, *, passed_role: iam.IRole | None = None, disks: Sequence[StoredDisk] = ()
    ) -> ProviderConfig:
        """Allow the function what a resource needs, and return how to reach the function.

        Args:
            passed_role: Role of an import task that the function starts. The function may pass no
                other roles. Default: the resource starts no import task.
            disks: Disks of the import task.
        """
        if passed_role is not None:
            self._passed_roles[passed_role.role_arn] = None
        self._disks.add(disks)
        return ProviderConfig(
            service_token=self._function.function_arn, state_machine_arn=self._state_machine.arn
        )

    def _start_import_tasks(self) -> list[iam.PolicyStatement]:
        if not self._passed_roles:
            return []
        return [
            *_policies.start_import_tasks(),
            *_policies.check_disks(self._disks),
            *_policies.pass_roles_to_vm_import(list(self._passed_roles)),
        ]


def _exists(scope: Construct, construct_id: str) -> Iterator[str]:
    if isinstance(scope.node.try_find_child(construct_id), VmImportProvider):
        yield (
            "the provider exists already, because an image or a task needed it before: create the "
            "provider before the first image and the first task."
        )


def _vpc(vpc: object, vpc_subnets: object, security_groups: object) -> Iterator[str]:
    yield from _validation.optional("vpc", vpc, "vpc_id", "an ec2.Vpc")
    if not (vpc_subnets is None or isinstance(vpc_subnets, (ec2.SubnetSelection, dict))):
        yield (
            f"vpc_subnets {_validation.shown(vpc_subnets)} is not a SubnetSelection: use one, or "
            "leave it out."
        )
    if security_groups is not None:
        problems = [*_validation.listed("security_groups", security_groups, object, "groups")]
        yield from problems
        for group in security_groups if not problems else ():  # type: ignore[attr-defined]
            yield from _validation.optional(
                "security_groups:", group, "security_group_id", "an ec2.SecurityGroup"
            )
    if vpc is None and (vpc_subnets is not None or security_groups):
        yield (
            "vpc_subnets and security_groups need a vpc: give the vpc that they belong to, or "
            "leave them out."
        )


def _settings(log_retention: object, architecture: object, memory_size: object) -> Iterator[str]:
    if not isinstance(log_retention, logs.RetentionDays):
        yield (
            f"log_retention {_validation.shown(log_retention)} is not valid: use a member of "
            "logs.RetentionDays."
        )
    if not isinstance(architecture, lambda_.Architecture):
        yield (
            f"architecture {_validation.shown(architecture)} is not valid: use "
            "lambda_.Architecture.X86_64 or lambda_.Architecture.ARM_64."
        )
    if isinstance(memory_size, bool) or not isinstance(memory_size, (int, float)):
        yield f"memory_size {_validation.shown(memory_size)} is not a number: use 128 to 10240."
    # jsii ends if it is asked about an infinite number.
    elif memory_size not in _MEMORY and not (
        abs(memory_size) <= sys.float_info.max and cdk.Token.is_unresolved(memory_size)
    ):
        yield (
            f"memory_size {_validation.shown(memory_size)} is not valid: use a whole number from "
            f"{_MEMORY.start} to {_MEMORY.stop - 1} MiB."
        )
