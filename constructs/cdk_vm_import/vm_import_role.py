"""The service role that VM Import reads disks and writes AMIs with."""

from collections.abc import Sequence

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk_vm_import.vm_disk import VmDisk

SERVICE = "vmie.amazonaws.com"


class VmImportRole(iam.Role):
    """The role that ImportImage asks for, usually called vmimport, for certain disks only.

    Only VM Import, working for this account, may assume it. It reads the objects that the disks
    name and no others.

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
        """Make the role.

        Args:
            scope: The construct to put this one in.
            construct_id: Its id there.
            disks: The disks that it may read, of one or more tasks. Keys that they are encrypted
                with it may use.
            encryption_key: Key that AMI and snapshots get encrypted with. The policy of an
                imported key must let IAM policies of this account decide, as that of a key of this
                app does. Default: none but that of EBS.
            license_configurations: ARNs of the License Manager configurations that AMIs get.
                Default: none.
            role_name: Name of the role. Default: CloudFormation names it.

        Raises:
            ValueError: Disks are wrong. The message lists all problems.
        """
        if problems := [problem for disk in disks for problem in disk.problems]:
            path = f"{scope.node.path}/{construct_id}"
            raise ValueError("\n- ".join([f"wrong arguments for the role {path}:", *problems]))
        places = [disk.locate(scope) for disk in disks]
        statements = [
            _allow("ReadDisks", [at.object for at in places], "s3:GetObject"),
            _allow(
                "FindDisks", [at.bucket for at in places], "s3:GetBucketLocation", "s3:ListBucket"
            ),
            _allow("DecryptDisks", [at.key for at in places], "kms:Decrypt", "kms:DescribeKey"),
            # All of it on what only comes to be during the import.
            _allow(
                "MakeAmi",
                ["*"],
                "ec2:CopySnapshot",
                "ec2:Describe*",
                "ec2:ModifySnapshotAttribute",
                "ec2:RegisterImage",
            ),
            _allow(
                "EncryptAmi",
                [encryption_key.key_arn if encryption_key else None],
                "kms:CreateGrant",
                "kms:Decrypt",
                "kms:DescribeKey",
                "kms:Encrypt",
                "kms:GenerateDataKey*",
                "kms:ReEncrypt*",
            ),
            _allow(
                "AttachLicenses",
                ["*"] if license_configurations else [],
                "license-manager:GetLicenseConfiguration",
                "license-manager:ListLicenseSpecificationsForResource",
                "license-manager:UpdateLicenseSpecificationsForResource",
            ),
        ]
        super().__init__(
            scope,
            construct_id,
            description="What EC2 VM Import may do to turn disks into an AMI",
            role_name=role_name,
            assumed_by=iam.ServicePrincipal(
                SERVICE,
                conditions={
                    "StringEquals": {
                        "sts:Externalid": "vmimport",
                        "aws:SourceAccount": Aws.ACCOUNT_ID,
                    }
                },
            ),
            # In the role itself, so that whoever has the role has the permissions.
            inline_policies={
                "VmImport": iam.PolicyDocument(
                    statements=[statement for statement in statements if statement.resources]
                )
            },
        )


def _allow(sid: str, resources: Sequence[str | None], *actions: str) -> iam.PolicyStatement:
    named = dict.fromkeys(resource for resource in resources if resource)
    return iam.PolicyStatement(sid=sid, actions=list(actions), resources=list(named))
