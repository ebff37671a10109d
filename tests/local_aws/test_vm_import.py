"""VM Import of EC2: tasks, disks, roles, AMIs and snapshots."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_aws.account import RAW, READ, REGISTER, TRUST, Account, policy, refused

if TYPE_CHECKING:
    from collections.abc import Callable

FORBIDDEN = (
    "ClientError: Disk validation failed "
    "[We do not have access to the given resource. Reason 403 Forbidden]"
)
VMDK = b"KDMV" + bytes(1020)
VHD = bytes(1024) + b"conectix" + bytes(504)
VHDX = b"vhdxfile" + bytes(1016)


def ova(*names: str, named: str = "disk1.vmdk", disks: int = 1) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("box.ovf", *names):
            files = f'<File ovf:href="{named}"/>' * disks
            text = f"<Envelope><References>{files}</References></Envelope>"
            data = text.encode() if name.endswith(".ovf") else VMDK
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_an_import_shows_the_observed_progress_and_messages(aws: Account) -> None:
    task_id = aws.start(Description="a disk")
    seen: list[tuple[str | None, ...]] = []
    for _ in range(130):
        task = aws.task(task_id)
        step = (task["Status"], task.get("Progress"), task.get("StatusMessage"))
        if not seen or seen[-1] != step:
            seen.append(step)
        aws.server.advance(10)
    assert seen == [
        ("active", "2", "pending"),
        ("active", "2", "validating"),
        ("active", "2", "validated"),
        ("active", "28", "converting"),
        ("active", "34", "updating"),
        ("active", "34", "updated"),
        ("active", "58", "preparing to boot"),
        ("active", "58", "booting"),
        ("active", "58", "booted"),
        ("active", "84", "preparing ami"),
        ("completed", None, None),
    ]


def test_details_of_a_task_appear_during_the_import(aws: Account) -> None:
    task_id = aws.start()
    place = {"S3Bucket": aws.bucket, "S3Key": "disk.raw"}
    first = {"DiskImageSize": 0.0, "Format": "RAW", "UserBucket": place}
    assert aws.task(task_id)["SnapshotDetails"] == [first]
    assert aws.task(task_id)["Tags"] == []
    aws.server.advance(400)
    size = {"DiskImageSize": float(len(RAW)), "Status": "active"}
    assert aws.task(task_id)["SnapshotDetails"] == [{**first, **size}]
    assert "Platform" not in aws.task(task_id)
    aws.server.advance(500)
    task = aws.task(task_id)
    assert (task["Platform"], task["Architecture"]) == ("Linux", "x86_64")
    assert task["SnapshotDetails"][0]["DeviceName"] == "/dev/sda1"
    assert task["SnapshotDetails"][0]["Status"] == "completed"
    assert "SnapshotId" not in task["SnapshotDetails"][0]
    aws.server.advance(200)
    assert aws.task(task_id)["SnapshotDetails"][0]["SnapshotId"].startswith("snap-")
    assert "ImageId" not in aws.task(task_id)
    aws.finish()
    task = aws.task(task_id)
    assert task["ImageId"].startswith("ami-")
    assert "Progress" not in task
    assert "StatusMessage" not in task


def test_the_import_takes_as_long_as_its_knob_says(aws: Account) -> None:
    aws.server.knobs(import_seconds=60)
    task_id = aws.start()
    aws.server.advance(59)
    assert aws.task(task_id)["Status"] == "active"
    aws.server.advance(2)
    assert aws.task(task_id)["Status"] == "completed"


def test_ami_and_snapshot_of_an_import_are_found_in_ec2(aws: Account) -> None:
    task_id = aws.start(Description="a disk")
    aws.finish()
    task = aws.task(task_id)
    (ami,) = aws.ec2.describe_images(Owners=["self"])["Images"]
    (snapshot,) = aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert (ami["ImageId"], ami["Name"], ami["Description"]) == (
        task["ImageId"],
        task_id,
        "a disk",
    )
    assert ami["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == snapshot["SnapshotId"]
    assert task["SnapshotDetails"][0]["SnapshotId"] == snapshot["SnapshotId"]


@pytest.mark.parametrize(
    ("more", "details", "usage", "platform"),
    [
        ({}, "Linux/UNIX", "RunInstances", None),
        ({"UsageOperation": "RunInstances:0010"}, "Red Hat Enterprise Linux", None, None),
        ({"Platform": "Windows"}, "Windows", "RunInstances:0002", "windows"),
        (
            {"Platform": "Windows", "LicenseType": "BYOL"},
            "Windows BYOL",
            "RunInstances:0800",
            "windows",
        ),
    ],
    ids=str,
)
def test_an_imported_ami_shows_its_billing_information(
    aws: Account, more: dict[str, Any], details: str, usage: str | None, platform: str | None
) -> None:
    aws.start(**more)
    aws.finish()
    (ami,) = aws.ec2.describe_images(Owners=["self"])["Images"]
    assert (ami["PlatformDetails"], ami.get("Platform")) == (details, platform)
    assert ami["UsageOperation"] == (usage or more["UsageOperation"])


def test_an_imported_ami_shows_its_boot_mode_encryption_date_and_location(aws: Account) -> None:
    task_id = aws.start(BootMode="uefi", Encrypted=True)
    aws.finish()
    (ami,) = aws.ec2.describe_images(Owners=["self"])["Images"]
    assert (ami["BootMode"], ami["ImageLocation"]) == ("uefi", f"{aws.account_id}/{task_id}")
    assert ami["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert ami["CreationDate"].endswith("Z")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda ec2: ec2.describe_images(ImageIds=["ami-00000000"]), "InvalidAMIID.NotFound"),
        (lambda ec2: ec2.describe_images(ImageIds=["ami-EXAMPLE"]), "InvalidAMIID.Malformed"),
        (
            lambda ec2: ec2.describe_snapshots(SnapshotIds=["snap-00000000"]),
            "InvalidSnapshot.NotFound",
        ),
        (lambda ec2: ec2.describe_snapshots(SnapshotIds=["snap-1"]), "InvalidSnapshotID.Malformed"),
        (lambda ec2: ec2.describe_images(DryRun=True), "DryRunOperation"),
        (lambda ec2: ec2.describe_snapshots(DryRun=True), "DryRunOperation"),
    ],
)
def test_amis_and_snapshots_that_do_not_exist_are_not_found(
    aws: Account, call: Callable[[Any], object], code: str
) -> None:
    assert refused(lambda: call(aws.ec2))[0] == code


@pytest.mark.parametrize("operation", ["describe_images", "describe_snapshots"])
def test_an_unknown_filter_of_amis_or_snapshots_is_refused(aws: Account, operation: str) -> None:
    call: Any = getattr(aws.ec2, operation)
    code, _, message = refused(lambda: call(Filters=[{"Name": "colour", "Values": ["red"]}]))
    assert code == "InvalidParameterValue"
    assert "The filter 'colour' is invalid" in message


def test_deregistering_the_ami_retains_its_snapshots(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    ami = aws.task(task_id)["ImageId"]
    snapshot = aws.task(task_id)["SnapshotDetails"][0]["SnapshotId"]
    in_use = refused(lambda: aws.ec2.delete_snapshot(SnapshotId=snapshot))
    assert in_use[0] == "InvalidSnapshot.InUse"
    aws.ec2.deregister_image(ImageId=ami)
    assert aws.ec2.describe_images(Owners=["self"])["Images"] == []
    aws.ec2.delete_snapshot(SnapshotId=snapshot)
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []
    assert refused(lambda: aws.ec2.deregister_image(ImageId=ami))[0] == "InvalidAMIID.NotFound"
    gone = refused(lambda: aws.ec2.delete_snapshot(SnapshotId=snapshot))
    assert gone[0] == "InvalidSnapshot.NotFound"


def test_deregistering_the_ami_deletes_its_snapshots_on_request(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    task = aws.task(task_id)
    result = aws.ec2.deregister_image(ImageId=task["ImageId"], DeleteAssociatedSnapshots=True)
    snapshot = task["SnapshotDetails"][0]["SnapshotId"]
    assert result["DeleteSnapshotResults"] == [{"SnapshotId": snapshot, "ReturnCode": "success"}]
    assert aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_deregistering_an_ami_retains_a_snapshot_that_another_ami_uses(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    task = aws.task(task_id)
    snapshot = task["SnapshotDetails"][0]["SnapshotId"]
    disk: Any = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}
    aws.ec2.register_image(Name="other", RootDeviceName="/dev/sda1", BlockDeviceMappings=[disk])

    result = aws.ec2.deregister_image(ImageId=task["ImageId"], DeleteAssociatedSnapshots=True)

    assert result["DeleteSnapshotResults"] == [{"SnapshotId": snapshot, "ReturnCode": "skipped"}]
    assert len(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_a_missing_object_makes_the_task_fail(aws: Account) -> None:
    aws.make_role()
    place: Any = {"S3Bucket": aws.bucket, "S3Key": "absent"}
    made = aws.ec2.import_image(DiskContainers=[{"Format": "RAW", "UserBucket": place}])
    aws.server.advance(61)
    task = aws.task(made["ImportTaskId"])
    assert (task["Status"], task["StatusMessage"]) == ("deleting", FORBIDDEN)
    assert "Progress" not in task
    assert "ImageId" not in task
    aws.server.advance(30)
    task = aws.task(made["ImportTaskId"])
    assert (task["Status"], task["StatusMessage"]) == ("deleted", FORBIDDEN)


@pytest.mark.parametrize(
    ("disk_format", "data"),
    [
        ("RAW", RAW),
        ("VMDK", VMDK),
        ("VMDK", b"# Disk DescriptorFile\nversion=1\n"),
        ("VHD", VHD),
        ("VHD", b"conectix" + bytes(1024)),
        ("VHDX", VHDX),
        ("OVA", ova("disk1.vmdk")),
        ("raw", RAW),
    ],
)
def test_a_disk_of_the_stated_format_is_imported(
    aws: Account, disk_format: str, data: bytes
) -> None:
    task_id = aws.start(data, disk_format)
    aws.finish()
    assert aws.task(task_id)["Status"] == "completed"


@pytest.mark.parametrize(
    ("disk_format", "data", "message"),
    [
        ("RAW", bytes(1024), "ClientError: No valid partitions. Not a valid volume."),
        ("RAW", VMDK, "ClientError: No valid partitions. Not a valid volume."),
        ("VMDK", RAW, "ClientError: Disk validation failed [Unsupported VMDK format]"),
        ("VHD", VHDX, "ClientError: Disk validation failed [Unsupported VHD format]"),
        ("VHDX", VHD, "ClientError: Disk validation failed [Unsupported VHDX format]"),
        ("OVA", b"PK", "ClientError: Disk validation failed [Unsupported OVA format]"),
        ("OVA", ova(), "ClientError: Disk validation failed [Unsupported OVA format]"),
        ("OVA", ova("a.vmdk"), "ClientError: Disk validation failed [Unsupported OVA format]"),
    ],
)
def test_a_disk_of_another_format_makes_the_task_fail(
    aws: Account, disk_format: str, data: bytes, message: str
) -> None:
    task_id = aws.start(data, disk_format)
    aws.finish()
    task = aws.task(task_id)
    assert (task["Status"], task["StatusMessage"]) == ("deleted", message)


def test_each_disk_must_have_the_stated_format(aws: Account) -> None:
    place = {"S3Bucket": aws.bucket, "S3Key": "disk.raw"}
    disks = [{"Format": disk_format, "UserBucket": place} for disk_format in ("RAW", "VHD")]
    task_id = aws.start(DiskContainers=disks)
    aws.finish()
    assert "Unsupported VHD format" in aws.task(task_id)["StatusMessage"]


def test_an_ova_is_unpacked_into_its_disks(aws: Account) -> None:
    task_id = aws.start(ova("disk1.vmdk"), "OVA")
    aws.finish()
    (detail,) = aws.task(task_id)["SnapshotDetails"]
    assert (detail["Format"], detail["DiskImageSize"]) == ("VMDK", float(len(VMDK)))


def test_a_disk_can_be_given_by_url(aws: Account) -> None:
    url = f"s3://{aws.bucket}/disk.raw"
    task_id = aws.start(DiskContainers=[{"Format": "RAW", "Url": url}])
    aws.finish()
    assert aws.task(task_id)["Status"] == "completed"


def test_each_disk_creates_a_snapshot(aws: Account) -> None:
    place = {"S3Bucket": aws.bucket, "S3Key": "disk.raw"}
    task_id = aws.start(DiskContainers=[{"Format": "RAW", "UserBucket": place}] * 2)
    aws.finish()
    devices = [detail["DeviceName"] for detail in aws.task(task_id)["SnapshotDetails"]]
    assert devices == ["/dev/sda1", "/dev/sdb"]
    assert len(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 2


def devices(aws: Account, *names: str | None) -> list[str]:
    """Import a disk with each name of a device, or none; return the devices of the AMI."""
    disk = {"Format": "RAW", "Url": f"s3://{aws.bucket}/disk.raw"}
    disks = [{**disk, **({"DeviceName": name} if name else {})} for name in names]
    task_id = aws.start(DiskContainers=disks)
    aws.finish()
    assert aws.task(task_id)["Status"] == "completed"
    (ami,) = aws.ec2.describe_images(Owners=["self"])["Images"]
    return [mapping["DeviceName"] for mapping in ami["BlockDeviceMappings"]]


def test_21_disks_have_a_device_each(aws: Account) -> None:
    others = [f"/dev/sd{letter}" for letter in "bcdefghijklmnopqrstu"]
    assert devices(aws, *[None] * 21) == ["/dev/sda1", *others]


def test_a_disk_without_a_device_gets_one_that_no_other_disk_has(aws: Account) -> None:
    names = ("/dev/xvda", None, "/dev/sdb", None, "/dev/sdd", None)
    assert devices(aws, *names) == [
        *("/dev/xvda", "/dev/sdc", "/dev/sdb", "/dev/sde", "/dev/sdd", "/dev/sdf")
    ]


def test_the_device_of_an_ova_is_that_of_its_first_disk(aws: Account) -> None:
    disk: Any = {"Format": "OVA", "Url": f"s3://{aws.bucket}/disk.raw", "DeviceName": "/dev/xvda"}
    task_id = aws.start(ova("disk1.vmdk", disks=2), DiskContainers=[disk])
    aws.finish()
    details = aws.task(task_id)["SnapshotDetails"]
    assert [detail["DeviceName"] for detail in details] == ["/dev/xvda", "/dev/sdb"]


@pytest.mark.parametrize("is_ova", [True, False])
def test_an_import_of_more_than_21_disks_fails(aws: Account, *, is_ova: bool) -> None:
    place = f"s3://{aws.bucket}/disk.raw"
    data = ova("disk1.vmdk", disks=22) if is_ova else RAW
    disk: Any = {"Format": "OVA" if is_ova else "RAW", "Url": place}
    task_id = aws.start(data, DiskContainers=[disk] * (1 if is_ova else 22))
    aws.finish()
    task = aws.task(task_id)
    assert (task["Status"], "21 volumes" in task["StatusMessage"]) == ("deleted", True)


@pytest.mark.parametrize(
    "break_role",
    [
        lambda _: None,
        lambda aws: aws.make_role("other"),
        lambda aws: aws.make_role(
            "vmimport", {**TRUST, "Principal": {"Service": "ec2.amazonaws.com"}}
        ),
        lambda aws: aws.make_role(
            "vmimport", {**TRUST, "Condition": {"StringEquals": {"sts:Externalid": "other"}}}
        ),
        lambda aws: aws.make_role("vmimport", TRUST, READ),
    ],
    ids=["no role", "another role", "another trust", "another external id", "no right to register"],
)
def test_a_role_that_vm_import_may_not_assume_is_refused(
    aws: Account, break_role: Callable[[Account], None]
) -> None:
    break_role(aws)
    place: Any = {"S3Bucket": aws.bucket, "S3Key": "disk.raw"}
    refusal = refused(lambda: aws.ec2.import_image(DiskContainers=[{"UserBucket": place}]))
    assert refusal == (
        "InvalidParameter",
        400,
        (
            "The service role vmimport does not exist or does not have sufficient permissions "
            "for the service to continue"
        ),
    )


def without(action: str) -> dict[str, Any]:
    """Return the permissions that the role needs, except one action or all that begin so."""
    kept = [known for known in REGISTER["Action"] if not known.startswith(action)]
    return {**REGISTER, "Action": kept}


def test_a_role_that_may_not_read_the_disk_makes_the_task_fail(aws: Account) -> None:
    aws.make_role("vmimport", TRUST, {**READ, "Resource": "arn:aws:s3:::other/*"}, REGISTER)
    task_id = aws.start()
    aws.finish()
    assert aws.task(task_id)["StatusMessage"] == FORBIDDEN


@pytest.mark.parametrize("lacks", READ["Action"])
def test_a_role_without_all_permissions_on_the_bucket_makes_the_task_fail(
    aws: Account, lacks: str
) -> None:
    actions = [action for action in READ["Action"] if action != lacks]
    aws.make_role("vmimport", TRUST, {**READ, "Action": actions}, REGISTER)
    task_id = aws.start()
    aws.finish()
    assert aws.task(task_id)["StatusMessage"] == FORBIDDEN


def test_a_role_that_may_not_decrypt_the_disk_makes_the_task_fail(aws: Account) -> None:
    aws.make_role("vmimport", TRUST, READ, without("kms:"))
    key_id = aws.kms.create_key()["KeyMetadata"]["KeyId"]
    aws.put_disk(ServerSideEncryption="aws:kms", SSEKMSKeyId=key_id)
    place: Any = {"S3Bucket": aws.bucket, "S3Key": "disk.raw"}
    task = aws.ec2.import_image(DiskContainers=[{"Format": "RAW", "UserBucket": place}])
    aws.finish()
    assert aws.task(task["ImportTaskId"])["StatusMessage"] == FORBIDDEN


def test_a_disk_is_decrypted_through_s3(aws: Account) -> None:
    through_s3 = {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}
    decrypt = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*", "Condition": through_s3}
    aws.make_role("vmimport", TRUST, READ, without("kms:"), decrypt)
    key_id = aws.kms.create_key()["KeyMetadata"]["KeyId"]
    aws.put_disk(ServerSideEncryption="aws:kms", SSEKMSKeyId=key_id)
    place: Any = {"S3Bucket": aws.bucket, "S3Key": "disk.raw"}
    task = aws.ec2.import_image(DiskContainers=[{"Format": "RAW", "UserBucket": place}])
    aws.finish()
    assert aws.task(task["ImportTaskId"])["Status"] == "completed"


def test_a_role_that_may_not_attach_licenses_is_refused(aws: Account) -> None:
    aws.make_role("vmimport", TRUST, READ, without("license-manager:"))
    licenses = [{"LicenseConfigurationArn": "arn:aws:license-manager:::license-configuration:x"}]
    refusal = refused(lambda: aws.start(LicenseSpecifications=licenses))
    assert refusal[0] == "InvalidParameter"
    assert refusal[2].startswith("The service role vmimport does not exist or does not have")
    aws.server.knobs(licenses_denied="fail")
    task_id = aws.start(LicenseSpecifications=licenses)
    aws.finish()
    assert aws.task(task_id)["Status"] == "deleted"
    assert "license configurations" in aws.task(task_id)["StatusMessage"]


@pytest.mark.parametrize("action", REGISTER["Action"])
def test_a_role_needs_each_permission_to_import_an_encrypted_disk_with_licenses(
    aws: Account, action: str
) -> None:
    aws.make_role("vmimport", TRUST, READ, without(action))
    licenses = [{"LicenseConfigurationArn": "arn:aws:license-manager:::license-configuration:x"}]
    encrypted: Any = {"Encrypted": True, "KmsKeyId": "alias/disks"}
    refusal = refused(lambda: aws.start(LicenseSpecifications=licenses, **encrypted))
    assert refusal[0] == "InvalidParameter"
    assert refusal[2].startswith("The service role vmimport does not exist or does not have")


def test_another_role_can_be_given(aws: Account) -> None:
    aws.make_role("importer")
    task_id = aws.start(RoleName="importer")
    aws.finish()
    assert aws.task(task_id)["Status"] == "completed"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"Architecture": "arm64"}, "InvalidParameter"),
        ({"BootMode": "uefi-preferred"}, "InvalidParameter"),
        ({"BootMode": "bios"}, "InvalidParameterValue"),
        ({"Hypervisor": "kvm"}, "InvalidParameter"),
        ({"Platform": "macOS"}, "InvalidParameter"),
        ({"Platform": "Linux", "LicenseType": "AWS"}, "InvalidParameter"),
        ({"KmsKeyId": "alias/disks"}, "InvalidParameter"),
        ({"DiskContainers": []}, "MissingParameter"),
        ({"DiskContainers": [{"Format": "RAW"}]}, "InvalidParameter"),
        ({"DiskContainers": [{"Format": "ISO", "Url": "s3://b/k"}]}, "InvalidParameter"),
        ({"DiskContainers": [{"Format": "RAW", "Url": "ftp://b/k"}]}, "InvalidParameter"),
        ({"DiskContainers": [{"UserBucket": {"S3Bucket": "b"}}]}, "InvalidParameter"),
        ({"TagSpecifications": [{"ResourceType": "image"}]}, "InvalidParameter"),
        ({"UsageOperation": "RunInstances:9999"}, "InvalidParameter"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_an_import_with_invalid_values_is_refused(
    aws: Account, more: dict[str, Any], code: str
) -> None:
    assert refused(lambda: aws.start(**more))[0] == code
    assert aws.ec2.describe_import_image_tasks()["ImportImageTasks"] == []


def test_a_task_shows_its_request(aws: Account) -> None:
    asked: dict[str, Any] = {
        "Architecture": "i386",
        "BootMode": "uefi",
        "Description": "d",
        "Encrypted": True,
        "KmsKeyId": "alias/disks",
        "Hypervisor": "xen",
        "LicenseType": "BYOL",
        "Platform": "Windows",
        "UsageOperation": "RunInstances:0002",
        "LicenseSpecifications": [{"LicenseConfigurationArn": "arn:l"}],
    }
    tags = [{"Key": "a", "Value": "b"}]
    specification = {"ResourceType": "import-image-task", "Tags": tags}
    task = aws.task(aws.start(**asked, TagSpecifications=[specification]))
    assert {name: task[name] for name in asked} == asked
    assert task["Tags"] == tags


def test_the_same_client_token_starts_one_import(aws: Account) -> None:
    first = aws.start(ClientToken="once")
    assert aws.start(ClientToken="once") == first
    other = refused(lambda: aws.start(ClientToken="once", Description="other"))
    assert other[0] == "IdempotentParameterMismatch"
    aws.server.knobs(import_idempotency_seconds=0)
    assert aws.start(ClientToken="late") != aws.start(ClientToken="late")


def test_a_task_disappears_7_days_after_its_end(aws: Account) -> None:
    task_id = aws.start()
    aws.server.advance(1200 + 7 * 86400 - 60)
    assert aws.task(task_id)["Status"] == "completed"
    aws.server.advance(120)
    assert refused(lambda: aws.task(task_id))[:2] == ("InvalidConversionTaskId.Malformed", 400)
    assert aws.ec2.describe_import_image_tasks()["ImportImageTasks"] == []


def test_an_unknown_task_id_is_malformed(aws: Account) -> None:
    refusal = refused(lambda: aws.task("import-ami-0123456789abcdef0"))
    assert refusal[:2] == ("InvalidConversionTaskId.Malformed", 400)


def test_tasks_are_filtered_by_state_and_paginated(aws: Account) -> None:
    done = [aws.start() for _ in range(3)]
    aws.finish()
    active = aws.start()
    state: Any = [{"Name": "task-state", "Values": ["active"]}]
    (found,) = aws.ec2.describe_import_image_tasks(Filters=state)["ImportImageTasks"]
    assert found["ImportTaskId"] == active
    pages = aws.ec2.get_paginator("describe_import_image_tasks").paginate(
        PaginationConfig={"PageSize": 3}
    )
    listed = [[task["ImportTaskId"] for task in page["ImportImageTasks"]] for page in pages]
    assert listed == [[active, *done[:0:-1]], done[:1]]
    wrong: Any = [{"Name": "state", "Values": ["active"]}]
    refusal = refused(lambda: aws.ec2.describe_import_image_tasks(Filters=wrong))
    assert refusal[0] == "InvalidParameterValue"
    refusal = refused(lambda: aws.ec2.describe_import_image_tasks(NextToken="?"))
    assert refusal[0] == "InvalidNextToken"


def test_a_cancelled_task_is_deleting_then_deleted(aws: Account) -> None:
    task_id = aws.start()
    result = aws.ec2.cancel_import_task(ImportTaskId=task_id, CancelReason="no need")
    assert {name: result[name] for name in ("ImportTaskId", "PreviousState", "State")} == {
        "ImportTaskId": task_id,
        "PreviousState": "active",
        "State": "deleting",
    }
    aws.finish()
    task = aws.task(task_id)
    assert (task["Status"], task["StatusMessage"]) == ("deleted", "no need")


@pytest.mark.parametrize(("knob", "left"), [("keep", 1), ("delete", 0)])
def test_snapshots_of_a_cancelled_task_are_retained_or_deleted(
    aws: Account, knob: str, left: int
) -> None:
    aws.server.knobs(snapshots_of_failed_import=knob)
    task_id = aws.start()
    aws.server.advance(1100)
    (detail,) = aws.task(task_id)["SnapshotDetails"]
    assert detail["SnapshotId"].startswith("snap-")
    aws.ec2.cancel_import_task(ImportTaskId=task_id)
    aws.finish()
    assert len(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == left


def test_a_task_that_has_ended_cannot_be_cancelled(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    refusal = refused(lambda: aws.ec2.cancel_import_task(ImportTaskId=task_id))
    assert refusal[0] == "IncorrectState"
    aws.server.knobs(cancel_ended_task="ignore")
    response = aws.ec2.cancel_import_task(ImportTaskId=task_id)
    assert (response["PreviousState"], response["State"]) == ("completed", "completed")
    assert aws.task(task_id)["Status"] == "completed"


def test_a_resource_of_ec2_has_at_most_50_tags(aws: Account) -> None:
    task_id = aws.start()
    tags: Any = [{"Key": str(number), "Value": ""} for number in range(51)]
    aws.ec2.create_tags(Resources=[task_id], Tags=tags[:50])

    refusal = refused(lambda: aws.ec2.create_tags(Resources=[task_id], Tags=tags[50:]))

    assert refusal[:2] == ("TagLimitExceeded", 400)
    assert len(aws.task(task_id)["Tags"]) == 50
    other = aws.start()
    both = refused(lambda: aws.ec2.create_tags(Resources=[other, task_id], Tags=tags[50:]))
    assert both[0] == "TagLimitExceeded"
    assert aws.task(other)["Tags"] == []


@pytest.mark.parametrize(
    ("tags", "code", "why"),
    [
        ([{"Key": str(n)} for n in range(51)], "TagLimitExceeded", "maximum number of Tags"),
        (
            [{"Key": "a", "Value": "b"}, {"Key": "a", "Value": "c"}],
            "InvalidParameterValue",
            "Duplicate tag key 'a' specified.",
        ),
        ([{"Key": "aws:a"}], "InvalidParameterValue", "starting with 'aws:' are reserved"),
        ([{"Key": "a" * 129}], "InvalidParameterValue", "key exceeds the maximum length of 128"),
        (
            [{"Key": "a", "Value": "b" * 257}],
            "InvalidParameterValue",
            "value exceeds the maximum length of 256",
        ),
    ],
    ids=["51 tags", "duplicate", "aws:", "long key", "long value"],
)
def test_invalid_tags_of_a_task_are_refused(
    aws: Account, tags: list[Any], code: str, why: str
) -> None:
    task_id = aws.start()
    specification = [{"ResourceType": "import-image-task", "Tags": tags}]

    for refusal in (
        refused(lambda: aws.start(TagSpecifications=specification)),
        refused(lambda: aws.ec2.create_tags(Resources=[task_id], Tags=tags)),
    ):
        assert refusal[0] == code
        assert why in refusal[2]
    assert aws.task(task_id)["Tags"] == []


def test_a_forgotten_task_has_no_tags(aws: Account) -> None:
    task_id = aws.start()
    aws.ec2.create_tags(Resources=[task_id], Tags=[{"Key": "a", "Value": "b"}])
    aws.finish()
    assert len(aws.ec2.describe_tags()["Tags"]) == 1

    aws.server.advance(7 * 86400)

    assert aws.ec2.describe_tags()["Tags"] == []
    change: dict[str, Any] = {"Resources": [task_id], "Tags": [{"Key": "a"}]}
    assert refused(lambda: aws.ec2.create_tags(**change))[0] == "InvalidID"


def test_create_tags_adds_tags_to_a_task(aws: Account) -> None:
    task_id = aws.start()
    aws.ec2.create_tags(Resources=[task_id], Tags=[{"Key": "a", "Value": "b"}])
    assert aws.task(task_id)["Tags"] == [{"Key": "a", "Value": "b"}]


def test_delete_tags_retains_a_tag_with_another_value(aws: Account) -> None:
    task_id = aws.start()
    tags: Any = [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}]
    aws.ec2.create_tags(Resources=[task_id], Tags=tags)

    asked: Any = [{"Key": "a", "Value": "other"}, {"Key": "c", "Value": "d"}]
    aws.ec2.delete_tags(Resources=[task_id], Tags=asked)

    assert aws.task(task_id)["Tags"] == [{"Key": "a", "Value": "b"}]


def test_a_task_has_the_tags_of_each_specification(aws: Account) -> None:
    tags = [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}]
    specifications = [{"ResourceType": "import-image-task", "Tags": [tag]} for tag in tags]

    task_id = aws.start(TagSpecifications=specifications)

    assert aws.task(task_id)["Tags"] == tags


@pytest.mark.parametrize(
    ("resource_id", "code"),
    [
        ("ami-00000000000000000", "InvalidAMIID.NotFound"),
        ("snap-00000000000000000", "InvalidSnapshot.NotFound"),
        ("import-ami-00000000000000000", "InvalidID"),
    ],
)
def test_tags_of_a_resource_that_does_not_exist_are_refused(
    aws: Account, resource_id: str, code: str
) -> None:
    for ids in ([resource_id], [aws.start(), resource_id]):
        change: dict[str, Any] = {"Resources": ids, "Tags": [{"Key": "a"}]}
        for call in (aws.ec2.create_tags, aws.ec2.delete_tags):
            assert refused(lambda call=call, change=change: call(**change))[0] == code  # type: ignore[misc]


def test_an_ami_that_is_not_listed_yet_can_have_tags(aws: Account) -> None:
    aws.server.knobs(ami_listing_seconds=6000)
    task_id = aws.start()
    aws.server.advance(1500)
    ami = aws.task(task_id)["ImageId"]
    aws.ec2.create_tags(Resources=[ami], Tags=[{"Key": "a", "Value": "b"}])
    aws.server.advance(6000)
    (found,) = aws.ec2.describe_images(ImageIds=[ami])["Images"]
    assert found["Tags"] == [{"Key": "a", "Value": "b"}]


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("description", "*VMImport*", 1),
        ("snapshot-id", "snap-?????????????????", 1),
        ("encrypted", "false", 1),
        ("encrypted", "true", 0),
        ("volume-size", "1", 1),
        ("status", "pending", 0),
        ("tag:a", "b*", 1),
    ],
)
def test_filters_of_snapshots_can_have_wildcards(
    aws: Account, name: str, value: str, count: int
) -> None:
    task_id = aws.start()
    aws.finish()
    (detail,) = aws.task(task_id)["SnapshotDetails"]
    aws.ec2.create_tags(Resources=[detail["SnapshotId"]], Tags=[{"Key": "a", "Value": "bc"}])
    found = aws.ec2.describe_snapshots(Filters=[{"Name": name, "Values": [value]}])
    assert len(found["Snapshots"]) == count


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("block-device-mapping.device-name", "/dev/sda?", 1),
        ("block-device-mapping.encrypted", "true", 1),
        ("block-device-mapping.encrypted", "false", 0),
        ("block-device-mapping.delete-on-termination", "true", 1),
        ("block-device-mapping.snapshot-id", "snap-*", 1),
        ("block-device-mapping.volume-size", "1", 1),
        ("block-device-mapping.volume-type", "gp?", 1),
        ("creation-date", "????-??-*", 1),
        ("creation-date", "1999-*", 0),
        ("hypervisor", "xen", 1),
        ("image-type", "machine", 1),
        ("manifest-location", "*/import-ami-*", 1),
        ("root-device-type", "ebs", 1),
    ],
)
def test_amis_are_filtered_by_their_disks_and_dates(
    aws: Account, name: str, value: str, count: int
) -> None:
    aws.start(Encrypted=True)
    aws.finish()

    found = aws.ec2.describe_images(Filters=[{"Name": name, "Values": [value]}], Owners=["self"])

    assert len(found["Images"]) == count


def test_ids_that_are_malformed_cannot_be_deleted(aws: Account) -> None:
    deregister, delete = aws.ec2.deregister_image, aws.ec2.delete_snapshot
    assert refused(lambda: deregister(ImageId="ami-1"))[0] == "InvalidAMIID.Malformed"
    assert refused(lambda: delete(SnapshotId="snap-1"))[0] == "InvalidSnapshotID.Malformed"


@pytest.mark.parametrize("together", [True, False])
def test_tags_of_a_snapshot_disappear_with_it(aws: Account, *, together: bool) -> None:
    task_id = aws.start()
    aws.finish()
    task = aws.task(task_id)
    snapshot = task["SnapshotDetails"][0]["SnapshotId"]
    aws.ec2.create_tags(Resources=[snapshot], Tags=[{"Key": "a", "Value": "b"}])

    aws.ec2.deregister_image(ImageId=task["ImageId"], DeleteAssociatedSnapshots=together)
    if not together:
        aws.ec2.delete_snapshot(SnapshotId=snapshot)

    assert aws.ec2.describe_tags()["Tags"] == []


def test_an_import_fails_at_the_progress_given_to_the_control_api(aws: Account) -> None:
    message = "ClientError: Unsupported kernel version 6.1"
    other, task_id = aws.start(), aws.start()
    aws.server.fail_import(message, task_id=task_id, fail_at_progress=58)
    aws.server.advance(1200 * 0.69)
    assert aws.task(task_id)["Progress"] == "34"
    aws.finish()
    task = aws.task(task_id)
    assert (task["Status"], task["StatusMessage"]) == ("deleted", message)
    assert aws.task(other)["Status"] == "completed"


def test_an_import_never_ends_if_the_control_api_says_so(aws: Account) -> None:
    task_id = aws.start()
    aws.server.fail_import(None, task_id=task_id, fail_at_progress=34)
    aws.server.advance(86400)
    task = aws.task(task_id)
    assert (task["Status"], task["Progress"]) == ("active", "34")


def test_a_permissions_boundary_limits_the_role_of_an_import(aws: Account) -> None:
    aws.start()
    created = aws.iam.create_policy(PolicyName="limits", PolicyDocument=policy(READ))
    limits = created["Policy"]["Arn"]

    aws.iam.put_role_permissions_boundary(RoleName="vmimport", PermissionsBoundary=limits)

    assert refused(aws.start)[0] == "InvalidParameter"
