"""The service role that VM Import reads disks and creates AMIs with."""

from collections.abc import Sequence

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk_vm_import import _policies, _validation
from cdk_vm_import.vm_disk import VmDisk


class VmImportRole(iam.Role):
    """The role that ImportImage requires, usually called vmimport, restricted to certain disks.

    Only VM Import may assume the role, and only for this account. The role may read the objects
    that the disks name, and no others.

    See https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
    """

    def __init__(  # noqa: PLR0913 - flat arguments, as CDK's own
        self,
        scope: Construct,
        construct_id: str,
        *,
        disks: Sequence[VmDisk],
        encryption_key: kms.IKey | None = None,
        license_configurations: Sequence[str] = (),
        role_name: str | None = None,
    ) -> None:
        """Create the role.

        Args:
            scope: The construct to create this one in.
            construct_id: The id of this construct in the scope.
            disks: The disks of one or more import tasks. The role may read them, and use the KMS
                keys that they are encrypted with.
            encryption_key: KMS key that encrypts the AMI and its snapshots. The policy of an
                imported key must allow IAM policies of this account to grant access, as the policy
                of a key of this app does. Default: only the account's key for EBS.
            license_configurations: ARNs of the License Manager configurations that are attached to
                AMIs. Default: none.
            role_name: Name of the role. Default: CloudFormation generates it.

        Raises:
            ValueError: Disks are not valid. The message lists all problems.
        """
        _validation.check(
            scope,
            construct_id,
            [problem for disk in disks for problem in disk._problems],  # noqa: SLF001 - ours
        )
        bound = [disk._bind(scope) for disk in disks]  # noqa: SLF001 - ours
        super().__init__(
            scope,
            construct_id,
            description="Permissions of EC2 VM Import to turn disks into an AMI",
            role_name=role_name,
            assumed_by=_policies.assume_by_vm_import(),
            # An inline policy of the role: every resource that depends on the role then has the
            # permissions.
            inline_policies={
                "VmImport": iam.PolicyDocument(
                    statements=[
                        *_policies.read_disks(
                            [disk.object_arn for disk in bound if disk.object_arn],
                            [disk.bucket_arn for disk in bound if disk.bucket_arn],
                            [disk.key_arn for disk in bound if disk.key_arn],
                        ),
                        _policies.create_ami(),
                        *_policies.encrypt_ami(encryption_key),
                        *([_policies.attach_licenses()] if license_configurations else []),
                    ]
                )
            },
        )
