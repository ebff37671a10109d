"""The Lambda function behind the custom resources, and what it may do."""

from collections.abc import Sequence

import aws_cdk as cdk
import jsii
from aws_cdk import Aws
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk_vm_import._contract import OwnTag
from cdk_vm_import._handler_asset import handler_code
from cdk_vm_import._waiter import Waiter

# CloudFormation refuses a resource whose ServiceToken changed, and the function's logical id is
# made of this id: another one would brick every stack that is deployed.
_ID = "VmImportProvider"
# The fence: what carries the tag of the function's own stack.
_OF_THIS_STACK = {"StringEquals": {f"aws:ResourceTag/{OwnTag.STACK}": Aws.STACK_ID}}


@jsii.implements(iam.IGrantable)
class VmImportProvider(Construct):
    """The Lambda function that imports, tags and deletes images for the resources of one stack.

    A state machine takes each event of CloudFormation, once and in their order, and calls the
    function with it, until the import of its image is over.

    A stack makes one by itself. To choose its settings, make it before the first image, under the
    id `VmImportProvider` in the stack: then every image of the stack uses it. Under another id it
    is for the images that name it as their `provider`. Leave an image with the function that it
    was deployed with: CloudFormation lets no resource change its function.

    Its role allows to write only to images that carry the tag `cdk-vm-import:stack` of this stack.
    """

    def __init__(  # noqa: PLR0913 - flat arguments, as CDK's own
        self,
        scope: Construct,
        construct_id: str,
        *,
        vpc: ec2.IVpc | None = None,
        vpc_subnets: ec2.SubnetSelection | None = None,
        security_groups: Sequence[ec2.ISecurityGroup] | None = None,
        encryption_key: kms.IKey | None = None,
        log_retention: logs.RetentionDays = logs.RetentionDays.THREE_MONTHS,
        architecture: lambda_.Architecture = lambda_.Architecture.X86_64,
        memory_size: int = 256,
    ) -> None:
        """Make the function, its role and its log group.

        Args:
            scope: The construct to put this one in.
            construct_id: Its id there.
            vpc: VPC that the function runs in. It must reach the APIs of Image Builder, EC2 and
                CloudWatch Logs, and S3, where CloudFormation waits for answers: by NAT or by VPC
                endpoints. Default: the function runs in no VPC.
            vpc_subnets: Subnets of the VPC. Default: its private ones.
            security_groups: Security groups in the VPC. Default: a new one that lets all out and
                nothing in.
            encryption_key: Key for the log group, for the function's code and environment, and for
                the executions of the state machine. A key of this app is made to let
                CloudWatch Logs use it; an imported one must do so already, see
                https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
                Default: keys that AWS owns.
            log_retention: How long the function's log is kept. Default: three months.
            architecture: Processor that the function runs on. Default: x86_64.
            memory_size: Memory of the function in MiB, 128 to 10240. Default: 256.

        Raises:
            ValueError: Subnets or security groups are given, but no VPC.
        """
        if vpc is None and (vpc_subnets or security_groups):
            raise ValueError(
                f"wrong arguments for the provider {scope.node.path}/{construct_id}: "
                "vpc_subnets and security_groups are of a VPC: give vpc too"
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
            encryption_key.add_to_resource_policy(_logs_may_use_key())
        self._passed_roles: iam.PolicyStatement | None = None
        self._deletes_amis = False
        statements = [*_statements(log_group), *([_network_interfaces()] if vpc else [])]
        self._policy = iam.PolicyDocument(statements=statements)
        self._role = iam.Role(
            self,
            "Role",
            description="What the import of virtual machines into EC2 Image Builder may do",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            # In the role itself, not a policy of its own: whatever depends on the function can
            # count on the permissions, from the first create to the last delete.
            inline_policies={"VmImport": self._policy},
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
                # Lambda keeps what it cannot deliver for six hours, but CloudFormation has given
                # an event up after one: handled then, it would make what nobody removes.
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
        self._waiter = Waiter(
            self, "Waiter", function=self._function, encryption_key=encryption_key
        )
        self._policy.add_statements(*_start_and_end_waits(self._waiter))

    @classmethod
    def get_or_create(cls, scope: Construct) -> "VmImportProvider":
        """Give the provider of a stack, the same one every time.

        Args:
            scope: Any construct of the stack.

        Returns:
            The provider under the id `VmImportProvider` in the stack, made when there is none.

        Raises:
            ValueError: Something else has that id.
        """
        stack = cdk.Stack.of(scope)
        child = stack.node.try_find_child(_ID)
        if child is None:
            return cls(stack, _ID)
        if isinstance(child, cls):
            return child
        raise ValueError(
            f"{child.node.path} is no VmImportProvider, but has the id of the one that the images "
            "of the stack share: give it another id, or give the images a provider"
        )

    def allow_imports(self, role: iam.IRole) -> None:
        """Let the function start import tasks, and pass VM Import a role for them.

        Args:
            role: The role; no other that was not given may be passed.
        """
        if self._passed_roles is None:
            self._passed_roles = _pass_to_vm_import()
            self._policy.add_statements(*_import_disks(), self._passed_roles)
        self._passed_roles.add_resources(role.role_arn)

    def allow_deletion_of_amis(self) -> None:
        """Let the function delete AMIs that the imports of this stack made, and their snapshots."""
        if not self._deletes_amis:
            self._deletes_amis = True
            self._policy.add_statements(*_delete_amis())

    @property
    def service_token(self) -> str:
        """What a custom resource gives as its ServiceToken: the function's ARN."""
        return self._function.function_arn

    @property
    def waiter(self) -> str:
        """What a custom resource gives as its Waiter: the ARN of the state machine."""
        return self._waiter.arn

    @property
    def function(self) -> lambda_.Function:
        """The function, for alarms on its metrics."""
        return self._function

    @property
    def grant_principal(self) -> iam.IPrincipal:
        """The function's role."""
        return self._role.grant_principal


def _statements(log_group: logs.ILogGroup) -> list[iam.PolicyStatement]:
    images = f"arn:{Aws.PARTITION}:imagebuilder:{Aws.REGION}:{Aws.ACCOUNT_ID}:image/*"
    roles = f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/aws-service-role"
    return [
        # TagResource: ImportVmImage sets the tags, and asks for it as an action of its own.
        iam.PolicyStatement(
            sid="ImportImagesOfThisStack",
            actions=["imagebuilder:ImportVmImage", "imagebuilder:TagResource"],
            resources=[images],
            conditions={"StringEquals": {f"aws:RequestTag/{OwnTag.STACK}": Aws.STACK_ID}},
        ),
        # A fence by tag, not by name: the policy stays as long for 400 images as for one.
        iam.PolicyStatement(
            sid="ChangeImagesOfThisStack",
            actions=[
                "imagebuilder:CancelImageCreation",
                "imagebuilder:DeleteImage",
                "imagebuilder:TagResource",
                "imagebuilder:UntagResource",
            ],
            resources=[images],
            conditions=_OF_THIS_STACK,
        ),
        # To find an image by its tags before making it. The list takes no condition, and what is
        # gone has no tags to ask for.
        iam.PolicyStatement(
            sid="ReadImages",
            actions=["imagebuilder:GetImage", "imagebuilder:ListImageBuildVersions"],
            resources=[images],
        ),
        # ImportVmImage reads the task and its AMI as the caller, and the handler tells why a task
        # failed. Neither action knows resources.
        iam.PolicyStatement(
            sid="ReadImportTasks",
            actions=["ec2:DescribeImages", "ec2:DescribeImportImageTasks"],
            resources=["*"],
        ),
        # The first import of an account makes the role that Image Builder follows the task with.
        iam.PolicyStatement(
            sid="CreateServiceLinkedRole",
            actions=["iam:CreateServiceLinkedRole"],
            resources=[f"{roles}/imagebuilder.amazonaws.com/AWSServiceRoleForImageBuilder"],
            conditions={"StringEquals": {"iam:AWSServiceName": "imagebuilder.amazonaws.com"}},
        ),
        # ImportImage tags only the task. What has no tag of a stack yet may get this one's.
        iam.PolicyStatement(
            sid="TagAmisOfThisStack",
            actions=["ec2:CreateTags"],
            resources=[_of_ec2("image"), _of_ec2("snapshot")],
            conditions={
                "StringEquals": {f"aws:RequestTag/{OwnTag.STACK}": Aws.STACK_ID},
                "StringEqualsIfExists": {f"aws:ResourceTag/{OwnTag.STACK}": Aws.STACK_ID},
            },
        ),
        iam.PolicyStatement(
            sid="UntagAmisOfThisStack",
            actions=["ec2:DeleteTags"],
            resources=[_of_ec2("image"), _of_ec2("snapshot")],
            conditions=_OF_THIS_STACK,
        ),
        # In place of the managed policy, which reaches every log group of the account.
        iam.PolicyStatement(
            sid="WriteOwnLog",
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resources=[log_group.log_group_arn],
        ),
    ]


def _import_disks() -> list[iam.PolicyStatement]:
    tasks = f"arn:{Aws.PARTITION}:ec2:{Aws.REGION}:{Aws.ACCOUNT_ID}:import-image-task/*"
    return [
        # The tags are of the task, and ImportImage asks for them as an action of its own.
        iam.PolicyStatement(
            sid="ImportDisksOfThisStack",
            actions=["ec2:ImportImage", "ec2:CreateTags"],
            resources=[tasks],
            conditions={"StringEquals": {f"aws:RequestTag/{OwnTag.STACK}": Aws.STACK_ID}},
        ),
        # What ImportImage makes, and the snapshots that it reads, carry no tag of the request.
        iam.PolicyStatement(
            sid="ImportDisks",
            actions=["ec2:ImportImage"],
            resources=[_of_ec2("image"), _of_ec2("snapshot")],
        ),
        iam.PolicyStatement(
            sid="ChangeImportTasksOfThisStack",
            actions=["ec2:CancelImportTask", "ec2:CreateTags", "ec2:DeleteTags"],
            resources=[tasks],
            conditions=_OF_THIS_STACK,
        ),
        # A task that is cancelled at its very end may leave snapshots.
        *_delete_snapshots(),
    ]


def _pass_to_vm_import() -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid="PassRolesToVmImport",
        actions=["iam:PassRole"],
        conditions={"StringEquals": {"iam:PassedToService": "vmie.amazonaws.com"}},
    )


def _delete_amis() -> list[iam.PolicyStatement]:
    return [
        iam.PolicyStatement(
            sid="DeleteAmisOfThisStack",
            actions=["ec2:DeregisterImage"],
            resources=[_of_ec2("image")],
            conditions=_OF_THIS_STACK,
        ),
        # To see whether anyone else uses them. None of these takes a condition.
        iam.PolicyStatement(
            sid="SeeWhoUsesAmis",
            actions=["ec2:DescribeImageAttribute", "imagebuilder:ListImages"],
            resources=["*"],
        ),
        *_delete_snapshots(),
    ]


def _delete_snapshots() -> list[iam.PolicyStatement]:
    # EC2 deletes none that an AMI uses. Added twice, CDK renders them once.
    return [
        iam.PolicyStatement(
            sid="DeleteSnapshotsOfThisStack",
            actions=["ec2:DeleteSnapshot"],
            resources=[_of_ec2("snapshot")],
            conditions=_OF_THIS_STACK,
        ),
        iam.PolicyStatement(sid="SeeSnapshots", actions=["ec2:DescribeSnapshots"], resources=["*"]),
    ]


def _of_ec2(kind: str) -> str:
    # AMIs and snapshots have no account in their ARN.
    return f"arn:{Aws.PARTITION}:ec2:{Aws.REGION}::{kind}/*"


def _start_and_end_waits(waiter: Waiter) -> list[iam.PolicyStatement]:
    return [
        iam.PolicyStatement(
            sid="StartWaits",
            actions=["states:ListExecutions", "states:StartExecution"],
            resources=[waiter.arn_by_name],
        ),
        iam.PolicyStatement(
            sid="EndWaits",
            actions=["states:StopExecution"],
            resources=[waiter.executions_arn],
        ),
    ]


def _network_interfaces() -> iam.PolicyStatement:
    # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html - Lambda checks that the
    # role has these on all resources.
    return iam.PolicyStatement(
        sid="RunInVpc",
        actions=[
            "ec2:AssignPrivateIpAddresses",
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:UnassignPrivateIpAddresses",
        ],
        resources=["*"],
    )


def _logs_may_use_key() -> iam.PolicyStatement:
    # CloudFormation names the log group, so the narrowest condition is the account's log groups.
    log_groups = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:*"
    return iam.PolicyStatement(
        sid="EncryptLogs",
        principals=[iam.ServicePrincipal(f"logs.{Aws.REGION}.{Aws.URL_SUFFIX}")],
        actions=[
            "kms:Decrypt*",
            "kms:Describe*",
            "kms:Encrypt*",
            "kms:GenerateDataKey*",
            "kms:ReEncrypt*",
        ],
        resources=["*"],
        conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
    )
