"""The plan of a run: what it creates, how long it takes, what it costs and what it needs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from integ.check import DAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integ.check import Check
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
METRICS_OF_IMAGE: Final = 3
# A disk stays in the bucket and its snapshot in EC2 until the end of the run.
RUN_HOURS: Final = 8


def price(check: Check, disk_gib: float) -> float:
    """Return what a check costs at most, in US dollars.

    Args:
        check: The check.
        disk_gib: The size of the disk.
    """
    hours = RUN_HOURS + check.pause / 3600
    disks = check.imports * disk_gib * hours * SNAPSHOT_GB_MONTH / HOURS_OF_MONTH
    # The last hour counts in full; a stack needs another one to be created and deleted.
    endpoints = check.endpoints * ENDPOINT_HOUR * (math.ceil(check.minutes / 60) + 1)
    waiting = check.images * check.minutes / 60 * HANDLER_HOUR
    metrics = check.images * METRICS_OF_IMAGE * METRIC_MONTH / HOURS_OF_MONTH
    return disks + endpoints + waiting + metrics


def total_price(checks: Sequence[Check], disk_gib: float) -> float:
    """Return what a run costs at most, in US dollars."""
    stored = disk_gib * RUN_HOURS * STORAGE_GB_MONTH / HOURS_OF_MONTH
    return stored + sum(price(check, disk_gib) for check in checks)


def plan_text(checks: Sequence[Check], about: dict[str, Any], prefix: str, disk: GivenDisk) -> str:
    """Return the plan that the user agrees to.

    Args:
        checks: The checks that run.
        about: Account, Region and principal, as STS says.
        prefix: What the names of all resources begin with.
        disk: The disk.
    """
    gib, minutes = disk.gibibytes, sum(check.minutes for check in checks)
    lines = [
        f"Account    {about['account']}, {about['region']}"
        + (" (the simulated AWS: no time and no money)" if about["simulated"] else ""),
        f"Principal  {about['principal']}",
        f"Disk       {disk.place}, "
        + (f"for the price {gib:.0f} GiB" if about["simulated"] else f"{gib:.1f} GiB"),
        f"Prefix     {prefix}-",
        "",
        f"{'check':<28} {'minutes':>8} {'imports':>8} {'price':>8}  creates",
    ]
    for check in checks:
        then = f", and again after {check.pause / DAY:.0f} d" if check.pause else ""
        lines += [
            f"{check.name:<28} {check.minutes:>8} {check.imports:>8} "
            f"{price(check, gib):>7.2f}$  {check.creates}{then}",
            f"    {check.title}",
        ]
    lines += [
        f"{'total':<28} {minutes:>8} {sum(c.imports for c in checks):>8} "
        f"{total_price(checks, gib):>7.2f}$",
        "",
        f"Prices are upper bounds in US dollars for us-east-1, as of {PRICES_AS_OF}, without free",
        f"tiers: snapshots ({SNAPSHOT_GB_MONTH} a GB-month, for {RUN_HOURS} hours), the disk in S3, "
        f"interface endpoints",
        f"({ENDPOINT_HOUR} an hour), Step Functions, Lambda and metrics. VM Import itself is free.",
        "The minutes assume imports of 30 minutes. Checks run one after the other.",
        "Everything is deleted at the end, also after an interruption. If the process is killed:",
        f"    make integ ARGS='--clean-up {prefix.removeprefix('cdk-vm-import-integ-')}'",
        "The account and Region must be bootstrapped (cdk bootstrap). The permissions that the",
        "principal needs: make integ ARGS='--policy'.",
    ]
    return "\n".join(lines)


def policy(account: str, region: str, prefix: str) -> dict[str, Any]:
    """Return the IAM policy that the principal needs.

    The CDK CLI deploys with the roles of `cdk bootstrap`. The rest observes and cleans up.

    Args:
        account: The account.
        region: The Region.
        prefix: What the names of all resources begin with.
    """

    def allow(sid: str, actions: list[str], *resources: str) -> dict[str, Any]:
        found = sorted(actions)
        return {"Sid": sid, "Effect": "Allow", "Action": found, "Resource": list(resources)}

    images = f"arn:aws:imagebuilder:{region}:{account}"
    logs = f"arn:aws:logs:{region}:{account}:log-group"
    return {
        "Version": "2012-10-17",
        "Statement": [
            allow(
                "Deploy",
                ["sts:AssumeRole"],
                f"arn:aws:iam::{account}:role/cdk-*-{account}-{region}",
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
                    "imagebuilder:ListImageRecipes",
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
                f"arn:aws:cloudformation:{region}:{account}:stack/{prefix}-*",
            ),
            allow(
                "WatchExecutions",
                ["states:DescribeExecution", "states:ListExecutions"],
                f"arn:aws:states:{region}:{account}:*",
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
            # The names of the images that do not exist, and that differ in case and spaces.
            allow(
                "Recipes",
                [
                    "imagebuilder:CreateImageRecipe",
                    "imagebuilder:DeleteImageRecipe",
                    "imagebuilder:GetComponent",
                ],
                f"{images}:image-recipe/{prefix}-*",
                f"arn:aws:imagebuilder:{region}:aws:component/*",
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
                f"arn:aws:ec2:{region}:{account}:import-image-task/*",
                f"arn:aws:ec2:{region}::image/*",
                f"arn:aws:ec2:{region}::snapshot/*",
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
                f"arn:aws:iam::{account}:role/{prefix}-*",
            ),
            allow(
                "ServiceLinkedRole",
                ["iam:CreateServiceLinkedRole", "iam:GetRole"],
                f"arn:aws:iam::{account}:role/aws-service-role/imagebuilder.amazonaws.com/"
                "AWSServiceRoleForImageBuilder",
                f"arn:aws:iam::{account}:role/AWSServiceRoleForImageBuilder",
            ),
            allow(
                "Disks",
                [
                    "s3:CreateBucket",
                    "s3:DeleteBucket",
                    "s3:DeleteObject",
                    "s3:GetBucketLocation",
                    "s3:GetObject",
                    "s3:ListBucket",
                    "s3:PutObject",
                ],
                f"arn:aws:s3:::{prefix}-*",
                f"arn:aws:s3:::{prefix}-*/*",
            ),
            allow(
                "Logs",
                ["logs:DeleteLogGroup", "logs:FilterLogEvents"],
                f"{logs}:{prefix}-*",
                f"{logs}:/aws/imagebuilder/{prefix}-*",
                f"{logs}:/aws/lambda/{prefix}-*",
            ),
        ],
    }


def policy_text(account: str, region: str, prefix: str) -> str:
    """Return the policy as JSON."""
    return json.dumps(policy(account, region, prefix), indent=2)
