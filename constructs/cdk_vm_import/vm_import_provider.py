"""The Lambda function behind the custom resources."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Unpack, cast

import aws_cdk as cdk
import jsii
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct, IValidation

from cdk_vm_import import _log_queries, _metrics, _policies, _validation
from cdk_vm_import._cdk_types import AnyKey, AnyRole
from cdk_vm_import._disk_access import DiskAccess, StoredDisk
from cdk_vm_import._event_state_machine import EventStateMachine
from cdk_vm_import._handler import handler_code
from cdk_vm_import._inline_policy import Statements, attach_policy, set_inline_policy
from cdk_vm_import._metrics import MetricOptions
from cdk_vm_import._signature import shows_arguments

# The function's logical id derives from this id. CloudFormation refuses to update a resource whose
# ServiceToken changed, so another id would break every stack that is deployed.
SHARED_ID = "VmImportProvider"
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
_MEMORY = range(128, 10_241)
# https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# The handler needs Python 3.11.
_RUNTIME = re.compile(r"python3\.(1[1-9]|[2-9]\d)")
_TRACING: Final = {lambda_.Tracing.ACTIVE: "Active", lambda_.Tracing.PASS_THROUGH: "PassThrough"}
_LAMBDA: Final = "lambda.amazonaws.com"
_ADVICE: Final = (
    "use fewer roles and fewer buckets for the import tasks of the stack, or give some of the "
    "tasks another provider."
)


@dataclass(frozen=True, kw_only=True)
class ProviderConfig:
    """What a custom resource needs to know about its provider."""

    service_token: str
    state_machine_arn: str


@shows_arguments(architecture="Architecture.X86_64", runtime="Runtime.PYTHON_3_13")
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
        runtime: lambda_.Runtime = lambda_.Runtime.PYTHON_3_13,
        function_name: str | None = None,
        role: AnyRole | None = None,
        reserved_concurrent_executions: int | None = None,
        dead_letter_queue: sqs.IQueue | None = None,
        tracing: lambda_.Tracing = lambda_.Tracing.DISABLED,
        log_executions: bool = False,
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
            encryption_key: KMS key that encrypts the log groups, the function's environment and the
                executions of the state machine. It does not encrypt the function's code, which is
                that of this library. If this app creates the key, its policy is extended so that
                CloudWatch Logs and, with `log_executions`, the delivery of logs can use it. The
                policy of an imported key must already allow that, see docs/permissions.md and
                https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
                Default: keys that AWS owns.
            log_retention: How long CloudWatch retains the function's log. Default: three months.
            architecture: Processor architecture of the function. Default: x86_64.
            memory_size: Memory of the function in MiB, 128 to 10240. Default: 256.
            runtime: Runtime of the function, Python 3.11 or newer. Default: Python 3.13.
            function_name: Name of the function, 1 to 64 letters, digits, hyphens or underscores.
                Do not set, change or remove it once images are deployed: another name is another
                function, and CloudFormation does not allow a resource to change its function.
                Default: CloudFormation generates the name.
            role: Role that the function runs with. Lambda must be allowed to assume it. The stack
                attaches a policy to it, with all that the function needs. If the role accepts no
                policies, for example because it was imported with `mutable=False`, it must have
                the permissions of docs/permissions.md already, from before the deployment until
                after the deletion of the stack; a warning says so. Default: a role of its own. If
                `iam.Role.customize_roles` replaces it, CDK's report lists what it needs.
            reserved_concurrent_executions: How many invocations may run at the same time, 1 or
                more. Lambda reserves them for this function, and AWS takes them from the quota of
                the account. An invocation that exceeds the number is retried: those of
                CloudFormation for an hour, those of the state machine for about 73 minutes. So a
                low number delays the responses of images that are imported at the same time. See
                https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
                Default: no reservation.
            dead_letter_queue: Standard SQS queue of this Region, for CloudFormation's events that
                Lambda could not deliver to the function. A message contains the event with its
                `ResponseURL`, so encrypt the queue. See
                https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
                Default: Lambda discards such an event.
            tracing: Whether X-Ray traces the function and, with `Tracing.ACTIVE`, the executions
                of the state machine. Default: no traces.
            log_executions: Whether a log group of its own receives the history of the executions,
                without their data. Default: Step Functions alone retains the history.

        Raises:
            ValueError: Arguments are not valid, or the stack has its provider already. The message
                lists all problems. At synthesis: Lambda may not assume the role, or its policy
                would exceed the 10,240 characters that IAM allows.
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
                *_function(runtime, function_name, reserved_concurrent_executions),
                *_validation.optional("role", role, "assume_role_action", "an iam.Role"),
                *_dead_letter_queue(dead_letter_queue),
                *_observation(tracing, log_executions),
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
        self._log_group = log_group
        if encryption_key:
            encryption_key.add_to_resource_policy(_policies.encrypt_logs())
            if log_executions:
                encryption_key.add_to_resource_policy(_policies.decrypt_delivered_logs())
        # Of the import tasks that the function starts.
        self._disks = DiskAccess()
        self._passed_roles: dict[str, None] = {}
        self._role = role or iam.Role(
            self,
            "Role",
            description="Permissions of the function that imports VM images into Image Builder",
            assumed_by=iam.ServicePrincipal(_LAMBDA),
        )
        with handler_code(self) as code:
            self._function = lambda_.Function(
                self,
                "Handler",
                description="Imports virtual machines into EC2 Image Builder for CloudFormation",
                function_name=function_name,
                runtime=runtime,
                handler="index.handler",
                code=code,
                timeout=cdk.Duration.minutes(15),
                # Lambda retries an event for six hours, but CloudFormation stops waiting after
                # one. An image that is created later would belong to no stack.
                max_event_age=cdk.Duration.hours(1),
                memory_size=memory_size,
                reserved_concurrent_executions=reserved_concurrent_executions,
                architecture=architecture,
                role=self._role,
                log_group=log_group,
                environment_encryption=encryption_key,
                vpc=vpc,
                vpc_subnets=vpc_subnets,
                # jsii takes no other sequences than lists.
                security_groups=None if security_groups is None else list(security_groups),
            )
        # CDK's arguments for both would add a second policy to the role.
        cfn_function = cast("lambda_.CfnFunction", self._function.node.default_child)
        if mode := _TRACING.get(tracing):
            cfn_function.tracing_config = lambda_.CfnFunction.TracingConfigProperty(mode=mode)
        if dead_letter_queue:
            cfn_function.dead_letter_config = lambda_.CfnFunction.DeadLetterConfigProperty(
                target_arn=dead_letter_queue.queue_arn
            )
        self._state_machine = EventStateMachine(
            self,
            "EventStateMachine",
            function=self._function,
            encryption_key=encryption_key,
            tracing=tracing is lambda_.Tracing.ACTIVE,
            log_retention=log_retention if log_executions else None,
            # The function reaches AWS through the routes and the endpoints of the VPC.
            dependencies=[*([vpc] if vpc else []), *(security_groups or [])],
        )
        statements = [
            *_policies.manage_images(),
            _policies.write_log(log_group),
            *([_policies.run_in_vpc()] if vpc else []),
            *([_policies.send_traces()] if tracing in _TRACING else []),
            *(_policies.send_to_dead_letter_queue(dead_letter_queue) if dead_letter_queue else []),
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
        self._allow(role, lambda: [*statements, *self._start_import_tasks()])

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
        _validation.place(scope, SHARED_ID)
        stack = cdk.Stack.of(scope)
        child = stack.node.try_find_child(SHARED_ID)
        if child is None:
            return cls(stack, SHARED_ID)
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
    def log_group(self) -> logs.ILogGroup:
        """The function's log group, for example for queries and subscriptions."""
        return self._log_group

    def metric_errors(self, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return the metric `Errors` of the function: how many invocations failed.

        An import that fails is not an error of the function. The state machine repeats an
        invocation that failed, so most errors delay an event and do not fail it; for those that do
        see `metric_failed_executions`. An event that does not even reach the state machine,
        because the function fails each time, is only in this metric. See
        https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html

        Args:
            **options: Options of `cloudwatch.MetricOptions`, such as `period`, `statistic` and
                `label`, without `dimensions_map`. Default: the sum over 5 minutes.

        Raises:
            ValueError: The options are not valid.
        """
        dimensions = {"FunctionName": self._function.function_name}
        return _metrics.of_aws(self, "AWS/Lambda", "Errors", dimensions, options)

    def metric_failed_executions(self, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return the metric `ExecutionsFailed` of the state machine: events without a response.

        An execution fails when the function still fails after all retries, or when CloudFormation
        accepts no response. CloudFormation then waits until the resource times out, after up to an
        hour. An import that fails does not fail its execution. See
        https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html

        Args:
            **options: As in `metric_errors`. Default: the sum over 5 minutes.

        Raises:
            ValueError: The options are not valid.
        """
        dimensions = {"StateMachineArn": self._state_machine.arn}
        return _metrics.of_aws(self, "AWS/States", "ExecutionsFailed", dimensions, options)

    def add_query_definitions(self) -> list[logs.CfnQueryDefinition]:
        """Save queries for the running and the failed imports in CloudWatch Logs Insights.

        Their names begin with the name of the stack. `ImportedVmImage.add_query_definition` saves
        one for the history of an image. See
        https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_Insights-Saving-Queries.html

        Returns:
            The two queries.

        Raises:
            ValueError: The method was called already.
        """
        if self.node.try_find_child("RunningImportsQuery"):
            raise ValueError(
                f"{self.node.path}: add_query_definitions was called already: call it once for a "
                "provider."
            )
        folder = f"{cdk.Stack.of(self).stack_name}/{self.node.id}"
        return [
            _log_queries.save(
                self,
                construct_id,
                name=f"{folder}/{title}",
                query=query,
                log_group=self._log_group,
            )
            for construct_id, title, query in (
                ("RunningImportsQuery", "Running imports", _log_queries.RUNNING_IMPORTS),
                ("FailedImportsQuery", "Failed imports", _log_queries.FAILED_IMPORTS),
            )
        ]

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

    def _allow(self, given: iam.IRole | None, statements: Statements) -> None:
        """Give the function's role its policy.

        Args:
            given: The role, if it is not the provider's own.
            statements: Returns the statements.
        """
        if given is None:
            set_inline_policy(cast("iam.Role", self._role), "VmImport", statements, advice=_ADVICE)
            return
        if isinstance(given, iam.Role):
            self.node.add_validation(cast("IValidation", _TrustValidation(given)))
        policy = attach_policy(given, self, "Policy", statements, advice=_ADVICE)
        if policy:
            # Lambda checks some of the permissions when it creates the function. Each custom
            # resource depends on the function, so the policy outlives the last event.
            self._function.node.add_dependency(policy)
        else:
            cdk.Annotations.of(self).add_warning_v2(
                "cdk-vm-import:immutableRole",
                "the role of the function accepts no policies from this app: give it the "
                "permissions that docs/permissions.md lists before you deploy, and keep them until "
                "the stack is deleted.",
            )

    def _start_import_tasks(self) -> list[iam.PolicyStatement]:
        if not self._passed_roles:
            return []
        return [
            *_policies.start_import_tasks(),
            *_policies.check_disks(self._disks),
            *_policies.pass_roles_to_vm_import(list(self._passed_roles)),
        ]


@jsii.implements(IValidation)
class _TrustValidation:
    """Checks at synthesis that Lambda may assume a role: its trust policy may still change."""

    def __init__(self, role: iam.Role) -> None:
        self._role = role

    def validate(self) -> list[str]:
        """List the problem, if there is one."""
        trust = self._role.stack.resolve(self._role.assume_role_policy)
        if _LAMBDA in json.dumps(trust):
            return []
        problem = f"Lambda may not assume the role {self._role.node.path}: create it with"
        return [f"{problem} assumed_by=iam.ServicePrincipal({_LAMBDA!r})."]


def _exists(scope: Construct, construct_id: str) -> Iterator[str]:
    if isinstance(scope.node.try_find_child(construct_id), VmImportProvider):
        yield (
            "the provider exists already, because an image, a task or a dashboard needed it "
            "before: create the provider before them."
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
    elif memory_size not in _MEMORY and not _is_number_token(memory_size):
        yield (
            f"memory_size {_validation.shown(memory_size)} is not valid: use a whole number from "
            f"{_MEMORY.start} to {_MEMORY.stop - 1} MiB."
        )


def _is_number_token(value: object) -> bool:
    """Return whether a number stands for one that only the deployment knows."""
    # jsii ends if it is asked about an infinite number.
    is_finite = isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return is_finite and cdk.Token.is_unresolved(value)


def _function(
    runtime: object, function_name: object, reserved_concurrent_executions: object
) -> Iterator[str]:
    if not isinstance(runtime, lambda_.Runtime):
        yield (
            f"runtime {_validation.shown(runtime)} is not a Runtime: use one, such as "
            "lambda_.Runtime.PYTHON_3_13."
        )
    elif not _RUNTIME.fullmatch(runtime.name):
        yield (
            f"runtime {_validation.shown(runtime.name)} is not valid: use Python 3.11 or newer, "
            "such as lambda_.Runtime.PYTHON_3_13."
        )
    yield from _validation.text("function_name", function_name, 64)
    if not (
        not isinstance(function_name, str)
        or cdk.Token.is_unresolved(function_name)
        or _FUNCTION_NAME.fullmatch(function_name)
    ):
        yield (
            f"function_name {_validation.shown(function_name)} is not valid: use 1 to 64 letters, "
            "digits, hyphens or underscores."
        )
    reserved = reserved_concurrent_executions
    if reserved is None or _is_number_token(reserved):
        return
    if isinstance(reserved, bool) or not isinstance(reserved, int):
        yield (
            f"reserved_concurrent_executions {_validation.shown(reserved)} is not a whole number: "
            "use 1 or more, or leave it out."
        )
    elif reserved < 1:
        yield (
            f"reserved_concurrent_executions {_validation.shown(reserved)} is not valid, because "
            "the function could never run: use 1 or more, or leave it out."
        )


def _dead_letter_queue(queue: object) -> Iterator[str]:
    yield from _validation.optional("dead_letter_queue", queue, "queue_arn", "an sqs.Queue")
    if getattr(queue, "fifo", False):
        yield (
            "dead_letter_queue is a FIFO queue, which Lambda does not support: use a standard "
            "queue, or leave it out."
        )


def _observation(tracing: object, log_executions: object) -> Iterator[str]:
    if not isinstance(tracing, lambda_.Tracing):
        yield (
            f"tracing {_validation.shown(tracing)} is not valid: use a member of lambda_.Tracing."
        )
    yield from _validation.flag("log_executions", log_executions)
