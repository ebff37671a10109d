"""The plan of a run: what it creates, how long it takes, what it costs and what it needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from integ.check import DAY
from integ.run import LOG_GROUPS, PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integ.check import Check
    from integ.definition import Disk
    from integ.disk import GivenDisk

# US dollars in us-east-1, without free tiers, as of 2026-11. Other Regions cost up to twice that.
# https://aws.amazon.com/ebs/pricing/, https://aws.amazon.com/s3/pricing/,
# https://aws.amazon.com/privatelink/pricing/, https://aws.amazon.com/cloudwatch/pricing/
PRICES_AS_OF: Final = "2026-11"
SNAPSHOT_GB_MONTH: Final = 0.05
STORAGE_GB_MONTH: Final = 0.023
ENDPOINT_HOUR: Final = 0.01
METRIC_MONTH: Final = 0.30
# What the handler costs for each image and hour of waiting: docs/waiting.md.
HANDLER_HOUR: Final = 0.006
HOURS_OF_MONTH: Final = 730
METRICS_OF_IMAGE: Final = 2
# How long the import takes that the checks of a run share.
IMPORT_MINUTES: Final = 30
_NOTES: Final = f"""

The counts are upper bounds. The minutes assume that an import takes {IMPORT_MINUTES} minutes.
Checks run one after the other. Several checks need a completed import and share one, so the total
is less than the sum. The credentials must be valid until the end.

The prices are in US dollars for us-east-1, as of {PRICES_AS_OF}, without free tiers. They contain
snapshots ({SNAPSHOT_GB_MONTH} a GB-month) and the disk in S3 ({STORAGE_GB_MONTH}) until the end
of the run, interface endpoints ({ENDPOINT_HOUR} an hour), Step Functions, Lambda and metrics.
VM Import itself is free. The snapshots of a compressed disk are larger than its file.

Everything is deleted at the end, also after an interruption, except Image Builder's service-linked
role and the code that cdk deploy uploads to the bucket of cdk bootstrap. If the process is killed:
    make integ ARGS='--clean-up {{run}}'
The permissions that the principal needs are in the policy that make integ ARGS='--policy' prints.
"""


def total_minutes(checks: Sequence[Check]) -> int:
    """Return how long a run takes, about."""
    return sum(check.minutes for check in checks) - _saved_imports(checks) * IMPORT_MINUTES


def _total_imports(checks: Sequence[Check]) -> int:
    return sum(check.imports + check.broken_imports for check in checks) - _saved_imports(checks)


def _saved_imports(checks: Sequence[Check]) -> int:
    return max(sum(check.shares_import for check in checks) - 1, 0)


def price(check: Check, disk_gib: float, run_hours: float) -> float:
    """Return what a check costs, in US dollars.

    Args:
        check: The check.
        disk_gib: The size of the disk.
        run_hours: How long the run takes, at whose end everything is deleted.
    """
    hours = run_hours + check.pause / 3600
    disks = check.imports * disk_gib * hours * SNAPSHOT_GB_MONTH / HOURS_OF_MONTH
    # The last hour counts in full; a stack needs another one to be created and deleted.
    endpoints = check.endpoints * ENDPOINT_HOUR * (math.ceil(check.minutes / 60) + 1)
    # A function polls for the images of stacks only.
    polled = check.images if check.stacks else 0
    waiting = polled * check.minutes / 60 * HANDLER_HOUR
    metrics = polled * METRICS_OF_IMAGE * METRIC_MONTH / HOURS_OF_MONTH
    return disks + endpoints + waiting + metrics


def total_price(checks: Sequence[Check], disk_gib: float) -> float:
    """Return what a run costs, in US dollars."""
    hours = total_minutes(checks) / 60
    stored = disk_gib * hours * STORAGE_GB_MONTH / HOURS_OF_MONTH
    return stored + sum(price(check, disk_gib, hours) for check in checks)


def plan_text(checks: Sequence[Check], about: dict[str, Any], prefix: str, disk: GivenDisk) -> str:
    """Return the plan that the user agrees to.

    Args:
        checks: The checks that run.
        about: Account, Region and principal, as STS says.
        prefix: What the names of all resources begin with.
        disk: The disk.
    """
    gib, minutes = disk.gibibytes, total_minutes(checks)
    simulated = " (the simulated AWS: no cost)" if about["simulated"] else ""
    size = f"prices are for {gib:.0f} GiB" if about["simulated"] else f"{gib:.1f} GiB"
    lines = [
        f"Account    {about['account']}, {about['region']}{simulated}",
        f"Principal  {about['principal']}",
        f"Disk       {disk.place}, {size}",
        f"Prefix     {prefix}-",
        f"Time       about {minutes / 60:.1f} hours",
        f"Cost       about {total_price(checks, gib):.2f} $",
        "",
        _row("check", "minutes", "imports", "price", "creates at most"),
    ]
    for check in checks:
        second = f"; its second half runs {check.pause / DAY:.0f} d later" if check.pause else ""
        imports = check.imports + check.broken_imports
        cost = f"{price(check, gib, minutes / 60):.2f} $"
        lines.append(_row(check.name, check.minutes, imports, cost, check.creates + second))
        lines.append(f"    {check.title}")
    cost = f"{total_price(checks, gib):.2f} $"
    lines.append(_row("total", minutes, _total_imports(checks), cost, ""))
    return "\n".join(lines) + _NOTES.format(run=prefix.rpartition(f"{PREFIX}-")[2])


def _row(name: str, minutes: object, imports: object, cost: str, creates: str) -> str:
    return f"{name:<28} {minutes:>8} {imports:>8} {cost:>8}  {creates}".rstrip()


def policy(about: dict[str, Any], prefix: str, disk: Disk | None = None) -> dict[str, Any]:
    """Return the IAM policy that the principal needs.

    The CDK CLI deploys with the roles of `cdk bootstrap`. The rest observes and cleans up.

    Args:
        about: Account, Region and partition.
        prefix: What the names of all resources begin with.
        disk: The disk, if it is in a bucket already.
    """
    account, region, partition = about["account"], about["region"], f"arn:{about['partition']}"

    def allow(sid: str, actions: list[str], *resources: str) -> dict[str, Any]:
        found = sorted(actions)
        return {"Sid": sid, "Effect": "Allow", "Action": found, "Resource": list(resources)}

    images = f"{partition}:imagebuilder:{region}:{account}"
    logs = f"{partition}:logs:{region}:{account}:log-group"
    given = (
        [f"{partition}:s3:::{disk.bucket}", f"{partition}:s3:::{disk.bucket}/{disk.key}"]
        if disk
        else []
    )
    return {
        "Version": "2012-10-17",
        "Statement": [
            allow(
                "Deploy",
                ["sts:AssumeRole"],
                f"{partition}:iam::{account}:role/cdk-*-{account}-{region}",
            ),
            allow(
                "FindOut",
                [
                    "cloudtrail:LookupEvents",
                    "cloudformation:DescribeStacks",
                    "ec2:DescribeImages",
                    "ec2:DescribeImportImageTasks",
                    "ec2:DescribeSnapshots",
                    "iam:ListRoles",
                    "imagebuilder:ListImages",
                    "logs:DescribeLogGroups",
                    "s3:ListAllMyBuckets",
                    "states:ListStateMachines",
                ],
                "*",
            ),
            allow(
                "WatchStacks",
                [
                    "cloudformation:CancelUpdateStack",
                    "cloudformation:DeleteStack",
                    "cloudformation:DescribeStackEvents",
                    "cloudformation:ListStackResources",
                ],
                f"{partition}:cloudformation:{region}:{account}:stack/{prefix}-*",
            ),
            allow(
                "WatchExecutions",
                ["states:DescribeExecution", "states:ListExecutions"],
                f"{partition}:states:{region}:{account}:*",
            ),
            allow(
                "Images",
                [
                    "imagebuilder:CancelImageCreation",
                    "imagebuilder:DeleteImage",
                    "imagebuilder:GetImage",
                    "imagebuilder:ImportVmImage",
                    "imagebuilder:ListImageBuildVersions",
                    "imagebuilder:ListTagsForResource",
                    "imagebuilder:TagResource",
                    "imagebuilder:UntagResource",
                ],
                f"{images}:image/{prefix}-*",
            ),
            allow(
                "Recipes",
                [
                    "imagebuilder:CreateImageRecipe",
                    "imagebuilder:DeleteImageRecipe",
                    "imagebuilder:GetComponent",
                    "imagebuilder:GetImageRecipe",
                ],
                f"{images}:image-recipe/{prefix}-*",
                f"{partition}:imagebuilder:{region}:aws:component/*",
            ),
            allow(
                "ImportDisks",
                [
                    "ec2:CancelImportTask",
                    "ec2:CreateTags",
                    "ec2:DeleteSnapshot",
                    "ec2:DeregisterImage",
                    "ec2:ImportImage",
                ],
                f"{partition}:ec2:{region}:{account}:import-image-task/*",
                f"{partition}:ec2:{region}::image/*",
                f"{partition}:ec2:{region}::snapshot/*",
            ),
            allow(
                "RoleOfVmImport",
                [
                    "iam:CreateRole",
                    "iam:DeleteRole",
                    "iam:DeleteRolePolicy",
                    "iam:ListRolePolicies",
                    "iam:PassRole",
                    "iam:PutRolePolicy",
                    "iam:TagRole",
                ],
                f"{partition}:iam::{account}:role/{prefix}-*",
            ),
            allow(
                "ServiceLinkedRole",
                ["iam:CreateServiceLinkedRole", "iam:GetRole"],
                f"{partition}:iam::{account}:role/aws-service-role/imagebuilder.amazonaws.com/"
                "AWSServiceRoleForImageBuilder",
                f"{partition}:iam::{account}:role/AWSServiceRoleForImageBuilder",
            ),
            allow(
                "Disks",
                [
                    "s3:AbortMultipartUpload",
                    "s3:CreateBucket",
                    "s3:DeleteBucket",
                    "s3:DeleteObject",
                    "s3:GetBucketLocation",
                    "s3:GetObject",
                    "s3:ListBucket",
                    "s3:PutObject",
                ],
                f"{partition}:s3:::{prefix}-*",
                f"{partition}:s3:::{prefix}-*/*",
            ),
            allow(
                "Logs",
                ["logs:DeleteLogGroup", "logs:FilterLogEvents"],
                *(f"{logs}:{start}{prefix}-*" for start in LOG_GROUPS),
            ),
            allow(
                "Bootstrap",
                ["ssm:GetParameter"],
                f"{partition}:ssm:{region}:{account}:parameter/cdk-bootstrap/*",
            ),
            *(
                [
                    allow(
                        "GivenDisk",
                        ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
                        *given,
                    )
                ]
                if given
                else []
            ),
        ],
    }
