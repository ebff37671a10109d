from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from cdk_vm_import import VmDisk, VmImportRole, VmImportTask

if TYPE_CHECKING:
    from tests.construct.conftest import ResourcesOf

ROLE = "AWS::IAM::Role"
BUCKET_ARN = "arn:aws:s3:::my-vm-disks"


def role(stack: cdk.Stack) -> dict[str, Any]:
    (found,) = assertions.Template.from_stack(stack).find_resources(ROLE).values()
    properties: dict[str, Any] = found["Properties"]
    return properties


def statements(stack: cdk.Stack) -> dict[str, dict[str, Any]]:
    (policy,) = role(stack)["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


@pytest.fixture
def bucket(stack: cdk.Stack) -> s3.IBucket:
    return s3.Bucket.from_bucket_arn(stack, "Disks", BUCKET_ARN)


def test_only_vm_import_may_assume_the_role_and_only_for_this_account(
    stack: cdk.Stack, bucket: s3.IBucket
) -> None:
    VmImportRole(stack, "Role", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])

    (statement,) = role(stack)["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "vmie.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {
            "StringEquals": {
                "sts:Externalid": "vmimport",
                "aws:SourceAccount": {"Ref": "AWS::AccountId"},
            }
        },
    }


def test_the_role_may_read_the_objects_of_the_disks_and_no_others(
    stack: cdk.Stack, bucket: s3.IBucket
) -> None:
    disks = [VmDisk.from_bucket(bucket, key) for key in ("a.vmdk", "b.vmdk", "a.vmdk")]
    VmImportRole(stack, "Role", disks=disks)

    found = statements(stack)
    assert found.keys() == {"ReadDisks", "FindDisks", "DecryptDisksInS3", "CreateAmi"}
    assert found["ReadDisks"] == {
        "Sid": "ReadDisks",
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": [f"{BUCKET_ARN}/a.vmdk", f"{BUCKET_ARN}/b.vmdk"],
    }
    assert found["FindDisks"] == {
        "Sid": "FindDisks",
        "Effect": "Allow",
        "Action": ["s3:GetBucketLocation", "s3:ListBucket"],
        "Resource": BUCKET_ARN,
    }
    assert found["CreateAmi"]["Action"] == [
        "ec2:CopySnapshot",
        "ec2:Describe*",
        "ec2:ModifySnapshotAttribute",
        "ec2:RegisterImage",
    ]


def test_the_role_for_a_snapshot_may_read_no_bucket(stack: cdk.Stack) -> None:
    VmImportRole(stack, "Role", disks=[VmDisk.from_snapshot("snap-01234567")])

    assert statements(stack).keys() == {"CreateAmi"}


def test_the_role_may_decrypt_disks_with_the_keys_of_bucket_and_snapshot(stack: cdk.Stack) -> None:
    of_bucket, of_snapshot = kms.Key(stack, "A"), kms.Key(stack, "B")
    bucket = s3.Bucket(stack, "Disks", encryption_key=of_bucket)
    disks = [
        VmDisk.from_bucket(bucket, "a.vmdk"),
        VmDisk.from_snapshot("snap-01234567", encryption_key=of_snapshot),
    ]
    VmImportRole(stack, "Role", disks=disks)

    found = statements(stack)
    assert "DecryptDisksInS3" not in found
    assert found["DecryptDisks"] == {
        "Sid": "DecryptDisks",
        "Effect": "Allow",
        "Action": ["kms:Decrypt", "kms:DescribeKey"],
        "Resource": [stack.resolve(key.key_arn) for key in (of_bucket, of_snapshot)],
    }


def test_the_role_may_decrypt_disks_in_a_bucket_whose_key_is_not_known_only_through_s3(
    stack: cdk.Stack, bucket: s3.IBucket
) -> None:
    """For example, the bucket of `cdk bootstrap --bootstrap-customer-key`."""
    VmImportRole(stack, "Role", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])

    assert statements(stack)["DecryptDisksInS3"] == {
        "Sid": "DecryptDisksInS3",
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": stack.resolve(
            f"arn:{cdk.Aws.PARTITION}:kms:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:key/*"
        ),
        "Condition": {
            "StringEquals": {
                "kms:ViaService": stack.resolve(f"s3.{cdk.Aws.REGION}.{cdk.Aws.URL_SUFFIX}")
            }
        },
    }


def test_the_role_may_encrypt_the_ami_with_the_given_key(
    stack: cdk.Stack, bucket: s3.IBucket
) -> None:
    key = kms.Key(stack, "Key")
    disks = [VmDisk.from_bucket(bucket, "a.vmdk")]
    VmImportRole(stack, "Role", disks=disks, encryption_key=key)

    assert statements(stack)["EncryptAmi"] == {
        "Sid": "EncryptAmi",
        "Effect": "Allow",
        "Action": [
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:Encrypt",
            "kms:GenerateDataKey*",
            "kms:ReEncrypt*",
        ],
        "Resource": stack.resolve(key.key_arn),
    }


def test_the_role_may_attach_licenses_only_if_license_configurations_are_given(
    stack: cdk.Stack, bucket: s3.IBucket
) -> None:
    disks = [VmDisk.from_bucket(bucket, "a.vmdk")]
    VmImportRole(
        stack,
        "Role",
        disks=disks,
        license_configurations=[
            "arn:aws:license-manager:us-east-1:123456789012:license-configuration:lic-0"
        ],
    )

    assert statements(stack)["AttachLicenses"]["Action"] == [
        "license-manager:GetLicenseConfiguration",
        "license-manager:ListLicenseSpecificationsForResource",
        "license-manager:UpdateLicenseSpecificationsForResource",
    ]


def test_a_disk_that_is_not_valid_is_an_error(stack: cdk.Stack, bucket: s3.IBucket) -> None:
    with pytest.raises(ValueError, match=r"^Stack/Role: disk 'a[.]iso' has a name without"):
        VmImportRole(stack, "Role", disks=[VmDisk.from_bucket(bucket, "a.iso")])


def test_a_given_role_is_used_without_a_change(
    stack: cdk.Stack, bucket: s3.IBucket, resources_of: ResourcesOf
) -> None:
    given = iam.Role.from_role_name(stack, "Role", "vmimport")
    VmImportTask(stack, "Import", disks=[VmDisk.from_bucket(bucket, "a.vmdk")], role=given)

    assert len(resources_of(stack, ROLE)) == 2  # of the function and of the state machine
    assert resources_of(stack, "AWS::IAM::Policy") == {}


def test_one_role_may_serve_several_tasks(
    stack: cdk.Stack, bucket: s3.IBucket, resources_of: ResourcesOf
) -> None:
    disks = [VmDisk.from_bucket(bucket, key) for key in ("a.vmdk", "b.vmdk")]
    shared = VmImportRole(stack, "Role", disks=disks, role_name="vmimport")
    for index, disk in enumerate(disks):
        VmImportTask(stack, f"Import{index}", disks=[disk], role=shared)

    assert len(resources_of(stack, ROLE)) == 3


def test_the_role_of_a_stack_allows_what_each_of_its_tasks_needs(
    stack: cdk.Stack, bucket: s3.IBucket
) -> None:
    keys = [kms.Key(stack, name) for name in ("First", "Second")]
    licence = (
        "arn:aws:license-manager:us-east-1:123456789012:license-configuration:lic-0123456789abcdef"
    )
    more: list[dict[str, Any]] = [
        {"encryption_key": keys[0]},
        {"encryption_key": keys[1], "license_configurations": [licence]},
        {},
    ]
    for index, arguments in enumerate(more):
        disk = VmDisk.from_bucket(bucket, f"{index}.vmdk")
        VmImportTask(stack, f"Import{index}", disks=[disk], **arguments)

    template = assertions.Template.from_stack(stack).to_json()
    (policy,) = template["Resources"]["VmImportTaskRoleCEF30FC9"]["Properties"]["Policies"]
    found = {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}
    assert found.keys() == {
        "AttachLicenses",
        "CreateAmi",
        "DecryptDisksInS3",
        "EncryptAmi",
        "FindDisks",
        "ReadDisks",
    }
    assert found["ReadDisks"]["Resource"] == [f"{BUCKET_ARN}/{index}.vmdk" for index in range(3)]
    arns = [stack.resolve(key.key_arn) for key in keys]
    assert sorted(map(str, found["EncryptAmi"]["Resource"])) == sorted(map(str, arns))


def test_a_stack_without_licences_and_keys_has_a_role_without_permissions_for_them(
    stack: cdk.Stack, bucket: s3.IBucket
) -> None:
    VmImportTask(stack, "Import", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])

    template = assertions.Template.from_stack(stack).to_json()
    (policy,) = template["Resources"]["VmImportTaskRoleCEF30FC9"]["Properties"]["Policies"]
    assert [statement["Sid"] for statement in policy["PolicyDocument"]["Statement"]] == [
        "ReadDisks",
        "FindDisks",
        "DecryptDisksInS3",
        "CreateAmi",
    ]


def test_no_arn_contains_a_fixed_partition(stack: cdk.Stack) -> None:
    bucket = s3.Bucket(stack, "Disks")
    VmImportTask(stack, "Import", disks=[VmDisk.from_bucket(bucket, "a.vmdk")])

    assert "arn:aws" not in json.dumps(assertions.Template.from_stack(stack).to_json())
