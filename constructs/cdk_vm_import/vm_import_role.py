"""The service role that VM Import reads disks and creates AMIs with."""

import re
from collections.abc import Iterable, Iterator, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk_vm_import import _policies, _task_validation, _validation
from cdk_vm_import._cdk_types import AnyKey
from cdk_vm_import._disk_access import DiskAccess, StoredDisk
from cdk_vm_import._inline_policy import set_inline_policy
from cdk_vm_import._signature import shows_arguments
from cdk_vm_import.vm_disk import VmDisk

# Not the name of the class, which users may give to a role of their own.
_SHARED_ID = "VmImportTaskRole"
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html
_ROLE_NAME = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)


@shows_arguments()
class VmImportRole(iam.Role):
    """The role that ImportImage requires, usually called vmimport, restricted to certain disks.

    Only VM Import may assume the role, and only for this account. The role may read the objects
    that the disks name, and no others. If there are more than 20, it may read all objects of the
    buckets that contain them, because IAM limits the size of policies.

    See https://docs.aws.amazon.com/vm-import/latest/userguide/required-permissions.html
    """

    def __init__(  # noqa: PLR0913 - flat arguments, as CDK's own
        self,
        scope: Construct,
        construct_id: str,
        *,
        disks: Sequence[VmDisk],
        encryption_key: AnyKey | None = None,
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
                of a key of this app does. Default: only the AWS managed key for EBS.
            license_configurations: ARNs of the License Manager configurations that are attached to
                AMIs. Default: none.
            role_name: Name of the role, 1 to 64 letters, digits or `+=,.@_-`. Default:
                CloudFormation generates it.

        Raises:
            ValueError: Disks are not valid. The message lists all problems. At synthesis: the
                policy would exceed the 10,240 characters that IAM allows. 40 buckets always fit.
        """
        _validation.place(scope, construct_id)
        are_disks = [*_validation.listed("disks", disks, VmDisk, "VmDisks, such as [disk]")]
        _validation.check(
            scope,
            construct_id,
            [
                *are_disks,
                *(
                    problem
                    for disk in (disks if not are_disks else ())
                    for problem in disk._problems  # noqa: SLF001 - ours
                ),
                *_validation.optional("encryption_key", encryption_key, "key_arn", "a kms.Key"),
                *_task_validation.license_configurations(license_configurations),
                *_role_name(role_name),
            ],
        )
        self._disks = DiskAccess()
        self._keys: dict[str, None] = {}
        self._attaches_licenses = False
        super().__init__(
            scope,
            construct_id,
            description="Permissions of EC2 VM Import to turn disks into an AMI",
            role_name=role_name,
            assumed_by=_policies.assume_by_vm_import(),
        )
        set_inline_policy(
            self,
            "VmImport",
            self._statements,
            advice="use fewer buckets and keys, or give the import tasks several VmImportRoles.",
        )
        self._allow(
            [disk._bind(scope) for disk in disks],  # noqa: SLF001 - ours
            encryption_key=encryption_key,
            license_configurations=license_configurations,
        )

    @classmethod
    def _get_or_create(cls, scope: Construct) -> "VmImportRole":
        """Return the role that the import tasks of a stack share."""
        stack = cdk.Stack.of(scope)
        child = stack.node.try_find_child(_SHARED_ID)
        return child if isinstance(child, cls) else cls(stack, _SHARED_ID, disks=[])

    def _allow(
        self,
        disks: Iterable[StoredDisk],
        *,
        encryption_key: AnyKey | None,
        license_configurations: Sequence[str],
    ) -> None:
        """Allow VM Import one more task with this role."""
        self._disks.add(disks)
        if encryption_key:
            self._keys[encryption_key.key_arn] = None
        self._attaches_licenses |= bool(license_configurations)

    def _statements(self) -> list[iam.PolicyStatement]:
        return [
            *_policies.read_disks(self._disks),
            _policies.create_ami(),
            *_policies.encrypt_ami(list(self._keys)),
            *([_policies.attach_licenses()] if self._attaches_licenses else []),
        ]


def _role_name(role_name: object) -> Iterator[str]:
    yield from _validation.text("role_name", role_name, 64)
    if not (
        not isinstance(role_name, str)
        or cdk.Token.is_unresolved(role_name)
        or _ROLE_NAME.fullmatch(role_name)
    ):
        yield (
            f"role_name {_validation.shown(role_name)} is not valid: use 1 to 64 letters, digits "
            "or any of +=,.@_-"
        )
