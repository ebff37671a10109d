"""The IAM statements of the function, the state machine, the VM Import role and the keys.

Statements that change something are restricted to the stack's own resources by the tag
`cdk-vm-import:stack`, not by names. So a policy has the same size for 400 images as for one.
"""

from collections.abc import Mapping, Sequence

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs

from cdk_vm_import._disk_access import DiskAccess
from cdk_vm_import._handler import contract

VM_IMPORT_SERVICE = "vmie.amazonaws.com"

_REQUEST_TAG = {f"aws:RequestTag/{contract.OwnTag.STACK}": Aws.STACK_ID}
_RESOURCE_TAG = {f"aws:ResourceTag/{contract.OwnTag.STACK}": Aws.STACK_ID}
# To add the tag of this stack to a resource that has no tag of another stack. IAM cannot see
# whether a resource is being created, so this also allows to tag a resource of no stack.
_NEW_OR_OWN = {"StringEquals": _REQUEST_TAG, "StringEqualsIfExists": _RESOURCE_TAG}
# To change a resource with the tag of this stack, but not into a resource of another stack.
_OWN = {"StringEquals": _RESOURCE_TAG, "StringEqualsIfExists": _REQUEST_TAG}
_IMAGES = f"arn:{Aws.PARTITION}:imagebuilder:{Aws.REGION}:{Aws.ACCOUNT_ID}:image/*"
_IMPORT_TASKS = f"arn:{Aws.PARTITION}:ec2:{Aws.REGION}:{Aws.ACCOUNT_ID}:import-image-task/*"
# Of all resources of EC2, only AMIs and snapshots have ARNs without an account id.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
_AMIS_AND_SNAPSHOTS = f"arn:{Aws.PARTITION}:ec2:{Aws.REGION}::*"


# --- the function ---


def manage_images() -> list[iam.PolicyStatement]:
    """Return what every function needs: to import images, and to clean up whatever it imported.

    CloudFormation updates the role before it deletes what an update removes, and a rollback
    restores the role before it deletes what the update created. So the permissions to clean up
    must not depend on what the template contains at present: a template without a VmImportTask,
    or without `delete_ami`, may follow one with both.
    """
    return [*_import_images(), *_clean_up_import_tasks(), *_clean_up_amis()]


def _import_images() -> list[iam.PolicyStatement]:
    roles = f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/aws-service-role"
    return [
        iam.PolicyStatement(
            sid="ImportImagesOfThisStack",
            actions=["imagebuilder:ImportVmImage"],
            resources=[_IMAGES],
            conditions={"StringEquals": _REQUEST_TAG},
        ),
        # ImportVmImage sets the image's tags, which IAM authorizes as TagResource.
        iam.PolicyStatement(
            sid="TagImagesOfThisStack",
            actions=["imagebuilder:TagResource"],
            resources=[_IMAGES],
            conditions=_NEW_OR_OWN,
        ),
        iam.PolicyStatement(
            sid="ChangeImagesOfThisStack",
            actions=[
                "imagebuilder:CancelImageCreation",
                "imagebuilder:DeleteImage",
                "imagebuilder:TagResource",
                "imagebuilder:UntagResource",
            ],
            resources=[_IMAGES],
            conditions=_OWN,
        ),
        # The function searches for an image by its tags before it imports one. The statement has no
        # tag condition, because the list supports none and an image that is gone has no tags.
        iam.PolicyStatement(
            sid="ReadImages",
            actions=["imagebuilder:GetImage", "imagebuilder:ListImageBuildVersions"],
            resources=[_IMAGES],
        ),
        # ImportVmImage reads the task and its AMI with the caller's permissions, and the function
        # reads why a task failed. Both actions support only the resource *.
        iam.PolicyStatement(
            sid="ReadImportTasks",
            actions=["ec2:DescribeImages", "ec2:DescribeImportImageTasks"],
            resources=["*"],
        ),
        # Whether an event belongs to a rollback. CloudFormation's events do not say.
        iam.PolicyStatement(
            sid="ReadStatusOfThisStack",
            actions=["cloudformation:DescribeStacks"],
            resources=[Aws.STACK_ID],
        ),
        # Image Builder follows the task with this role. The first import of an account creates it.
        iam.PolicyStatement(
            sid="CreateServiceLinkedRole",
            actions=["iam:CreateServiceLinkedRole"],
            resources=[f"{roles}/imagebuilder.amazonaws.com/AWSServiceRoleForImageBuilder"],
            conditions={"StringEquals": {"iam:AWSServiceName": "imagebuilder.amazonaws.com"}},
        ),
        # ImportImage tags the task only, so the function tags AMI and snapshots afterwards.
        iam.PolicyStatement(
            sid="TagAmisOfThisStack",
            actions=["ec2:CreateTags"],
            resources=[_AMIS_AND_SNAPSHOTS],
            conditions=_NEW_OR_OWN,
        ),
        iam.PolicyStatement(
            sid="UntagAmisOfThisStack",
            actions=["ec2:DeleteTags"],
            resources=[_AMIS_AND_SNAPSHOTS],
            conditions={"StringEquals": _RESOURCE_TAG},
        ),
    ]


def _clean_up_import_tasks() -> list[iam.PolicyStatement]:
    return [
        iam.PolicyStatement(
            sid="ChangeImportTasksOfThisStack",
            actions=["ec2:CancelImportTask", "ec2:CreateTags", "ec2:DeleteTags"],
            resources=[_IMPORT_TASKS],
            conditions=_OWN,
        ),
    ]


def _clean_up_amis() -> list[iam.PolicyStatement]:
    return [
        # Also for AmiSettings: what they have set is undone after they were removed.
        iam.PolicyStatement(
            sid="ChangeAmisOfThisStack",
            actions=[
                "ec2:DeregisterImage",
                "ec2:DisableImageDeprecation",
                "ec2:EnableImageDeprecation",
                "ec2:ModifyImageAttribute",
            ],
            resources=[_AMIS_AND_SNAPSHOTS],
            conditions={"StringEquals": _RESOURCE_TAG},
        ),
        # EC2 itself refuses to delete a snapshot that an AMI uses.
        iam.PolicyStatement(
            sid="DeleteSnapshotsOfThisStack",
            actions=["ec2:DeleteSnapshot"],
            resources=[_AMIS_AND_SNAPSHOTS],
            conditions={"StringEquals": _RESOURCE_TAG},
        ),
        # The function does not delete AMIs that another image uses or that are shared. These
        # actions support no conditions.
        iam.PolicyStatement(
            sid="ReadUsesOfAmis",
            actions=["ec2:DescribeImageAttribute", "imagebuilder:ListImages"],
            resources=["*"],
        ),
        iam.PolicyStatement(
            sid="ReadSnapshots", actions=["ec2:DescribeSnapshots"], resources=["*"]
        ),
    ]


def start_import_tasks() -> list[iam.PolicyStatement]:
    """Return what the function needs to start import tasks, besides the roles that it passes."""
    return [
        # ImportImage sets the task's tags, which IAM authorizes as CreateTags.
        iam.PolicyStatement(
            sid="ImportDisksOfThisStack",
            actions=["ec2:ImportImage", "ec2:CreateTags"],
            resources=[_IMPORT_TASKS],
            conditions=_NEW_OR_OWN,
        ),
        # ImportImage is also authorized on the AMI that it creates and on the snapshots that it
        # reads. They have no tag of this stack.
        iam.PolicyStatement(
            sid="ImportDisks",
            actions=["ec2:ImportImage"],
            resources=[_AMIS_AND_SNAPSHOTS],
        ),
    ]


def check_disks(disks: DiskAccess) -> list[iam.PolicyStatement]:
    """Return what AWS's guide lists for the caller of ImportImage, besides EC2's actions.

    Whether ImportImage checks these permissions is not documented. The function itself reads no
    disks.
    https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
    """
    return _on(
        [*disks.buckets, *disks.objects], "CheckDisks", "s3:GetBucketLocation", "s3:GetObject"
    )


def pass_roles_to_vm_import(roles: Sequence[str]) -> list[iam.PolicyStatement]:
    """Return what the function needs to let VM Import read the disks with the roles of the tasks.

    Args:
        roles: ARNs of the roles.
    """
    return _on(
        roles,
        "PassRolesToVmImport",
        "iam:PassRole",
        conditions={"StringEquals": {"iam:PassedToService": VM_IMPORT_SERVICE}},
    )


def write_log(log_group: logs.ILogGroup) -> iam.PolicyStatement:
    """Return what the function needs to write its log."""
    # The managed policy AWSLambdaBasicExecutionRole allows to write to every log group.
    return iam.PolicyStatement(
        sid="WriteOwnLog",
        actions=["logs:CreateLogStream", "logs:PutLogEvents"],
        resources=[log_group.log_group_arn],
    )


def run_in_vpc() -> iam.PolicyStatement:
    """Return what Lambda needs to run the function in a VPC."""
    # Lambda refuses a role that does not have these actions on all resources.
    # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
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


def send_traces(*, by_rules: bool = False) -> iam.PolicyStatement:
    """Return what the function or the state machine needs to send traces to X-Ray.

    Args:
        by_rules: Whether the sender reads the sampling rules, as Step Functions does.
    """
    # The actions support only the resource *.
    # https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
    # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-xray-tracing.html
    rules = ["xray:GetSamplingRules", "xray:GetSamplingTargets"]
    return iam.PolicyStatement(
        sid="SendTraces",
        actions=[
            *(rules if by_rules else []),
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
        ],
        resources=["*"],
    )


def send_to_dead_letter_queue(queue: sqs.IQueue) -> list[iam.PolicyStatement]:
    """Return what Lambda needs to send events that it could not deliver to a queue.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
    """
    key = queue.encryption_master_key
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
    return [
        *_on([queue.queue_arn], "SendToDeadLetterQueue", "sqs:SendMessage"),
        *_on(
            [key.key_arn] if key else [],
            "EncryptDeadLetters",
            "kms:Decrypt",
            "kms:GenerateDataKey",
        ),
    ]


def run_executions(state_machine_arn: str, executions_arn: str) -> list[iam.PolicyStatement]:
    """Return what the function needs to run each event once and in order."""
    return [
        # The function starts an execution for each event, and lists executions to find out
        # whether a later event of the same resource exists.
        iam.PolicyStatement(
            sid="StartExecutions",
            actions=["states:ListExecutions", "states:StartExecution"],
            resources=[state_machine_arn],
        ),
        # A later event supersedes those that still run.
        iam.PolicyStatement(
            sid="StopExecutions",
            actions=["states:StopExecution"],
            resources=[executions_arn],
        ),
    ]


# --- the state machine ---


def invoke(function: lambda_.IFunction) -> iam.PolicyStatement:
    """Return what the state machine needs to run a step."""
    # On the function alone, not on its versions and aliases, which CDK's grant_invoke includes.
    return iam.PolicyStatement(
        sid="InvokeFunction",
        actions=["lambda:InvokeFunction"],
        resources=[function.function_arn],
    )


def encrypt_executions(key: kms.IKey, state_machine_arn: str, sid: str) -> iam.PolicyStatement:
    """Return what the state machine needs to encrypt the data of its executions.

    So does the function, which starts and stops them: AWS does not say whose permissions it checks.
    """
    # The condition makes the key useless to the role outside this state machine.
    # https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
    context = {"kms:EncryptionContext:aws:states:stateMachineArn": state_machine_arn}
    return iam.PolicyStatement(
        sid=sid,
        actions=["kms:Decrypt", "kms:GenerateDataKey"],
        resources=[key.key_arn],
        conditions={"StringEquals": context},
    )


def deliver_logs() -> iam.PolicyStatement:
    """Return what the state machine needs to log the history of its executions."""
    # The actions support only the resource *.
    # https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
    return iam.PolicyStatement(
        sid="DeliverLogs",
        actions=[
            "logs:CreateLogDelivery",
            "logs:DeleteLogDelivery",
            "logs:DescribeLogGroups",
            "logs:DescribeResourcePolicies",
            "logs:GetLogDelivery",
            "logs:ListLogDeliveries",
            "logs:PutResourcePolicy",
            "logs:UpdateLogDelivery",
        ],
        resources=["*"],
    )


def encrypt_delivered_logs(key: kms.IKey) -> iam.PolicyStatement:
    """Return what the state machine needs to log the history of encrypted executions."""
    # The asterisk is literal. CDK's own StateMachine has the same condition.
    # https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
    logs_arn = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:*"
    return iam.PolicyStatement(
        sid="EncryptDeliveredLogs",
        actions=["kms:GenerateDataKey"],
        resources=[key.key_arn],
        conditions={"StringEquals": {"kms:EncryptionContext:SourceArn": logs_arn}},
    )


# --- the policy of the provider's key ---


def encrypt_logs() -> iam.PolicyStatement:
    """Return what the key's policy must contain so that CloudWatch Logs can use the key."""
    # CloudFormation generates the name of the log group, so the condition cannot name it.
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
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


def decrypt_delivered_logs() -> iam.PolicyStatement:
    """Return what the key's policy must contain so that logs of executions can be delivered."""
    # https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
    return iam.PolicyStatement(
        sid="DecryptDeliveredLogs",
        principals=[iam.ServicePrincipal("delivery.logs.amazonaws.com")],
        actions=["kms:Decrypt*"],
        resources=["*"],
    )


# --- the role of VM Import ---


def assume_by_vm_import() -> iam.ServicePrincipal:
    """Return the principal that may assume the role of an import task."""
    # Only when VM Import works for this account.
    # https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
    return iam.ServicePrincipal(
        VM_IMPORT_SERVICE,
        conditions={
            "StringEquals": {"sts:Externalid": "vmimport", "aws:SourceAccount": Aws.ACCOUNT_ID}
        },
    )


def read_disks(disks: DiskAccess) -> list[iam.PolicyStatement]:
    """Return what VM Import needs to read disks."""
    keys = f"arn:{Aws.PARTITION}:kms:{Aws.REGION}:{Aws.ACCOUNT_ID}:key/*"
    through_s3 = {"kms:ViaService": f"s3.{Aws.REGION}.{Aws.URL_SUFFIX}"}
    return [
        *_on(disks.objects, "ReadDisks", "s3:GetObject"),
        # VM Import checks the Region of the bucket and lists it.
        *_on(disks.buckets, "FindDisks", "s3:GetBucketLocation", "s3:ListBucket"),
        *_on(disks.keys, "DecryptDisks", "kms:Decrypt", "kms:DescribeKey"),
        # The key of a bucket that another app or `cdk bootstrap` created is not known. S3 decrypts
        # only what the role may read, so this gives access to no other objects.
        *_on(
            [keys] if disks.may_have_unknown_keys else [],
            "DecryptDisksInS3",
            "kms:Decrypt",
            conditions={"StringEquals": through_s3},
        ),
    ]


def create_ami() -> iam.PolicyStatement:
    """Return what VM Import needs to create the AMI and its snapshots."""
    # On all resources, because AMI and snapshots exist only after the import.
    return iam.PolicyStatement(
        sid="CreateAmi",
        actions=[
            "ec2:CopySnapshot",
            "ec2:Describe*",
            "ec2:ModifySnapshotAttribute",
            "ec2:RegisterImage",
        ],
        resources=["*"],
    )


def encrypt_ami(keys: Sequence[str]) -> list[iam.PolicyStatement]:
    """Return what VM Import needs to encrypt AMIs and snapshots; nothing for the key of EBS.

    Args:
        keys: ARNs of the keys.
    """
    # CreateGrant lets EC2 use the key for the volumes and snapshots of the import.
    return _on(
        keys,
        "EncryptAmi",
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey*",
        "kms:ReEncrypt*",
    )


def attach_licenses() -> iam.PolicyStatement:
    """Return what VM Import needs to attach License Manager configurations to the AMI."""
    # On all resources, because License Manager authorizes the AMI, which does not exist yet.
    return iam.PolicyStatement(
        sid="AttachLicenses",
        actions=[
            "license-manager:GetLicenseConfiguration",
            "license-manager:ListLicenseSpecificationsForResource",
            "license-manager:UpdateLicenseSpecificationsForResource",
        ],
        resources=["*"],
    )


def _on(
    resources: Sequence[str],
    sid: str,
    *actions: str,
    conditions: Mapping[str, Mapping[str, str]] | None = None,
) -> list[iam.PolicyStatement]:
    """Return a statement on each resource once, or none: IAM refuses an empty list."""
    if not resources:
        return []
    return [
        iam.PolicyStatement(
            sid=sid,
            actions=list(actions),
            resources=list(dict.fromkeys(resources)),
            conditions=conditions,
        )
    ]
