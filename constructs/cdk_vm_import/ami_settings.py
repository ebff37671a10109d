"""Who may launch the AMI of an image, how its instances use IMDS, and until when it is offered."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import aws_cdk as cdk
from constructs import Construct

from cdk_vm_import import _retained, _validation
from cdk_vm_import._handler import contract
from cdk_vm_import._signature import shows_arguments
from cdk_vm_import.imported_vm_image import ImportedVmImage
from cdk_vm_import.vm_image import VmImageBase

_ACCOUNT = re.compile(r"[0-9]{12}")
# https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_LaunchPermissionConfiguration.html
_ORGANIZATION = re.compile(r"arn:aws[^:]*:organizations::[0-9]{12}:organization/o-[a-z0-9]{10,32}")
_ORGANIZATIONAL_UNIT = re.compile(
    r"arn:aws[^:]*:organizations::[0-9]{12}:ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}"
)
# EC2 knows no other value: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Image.html
_IMDS_SUPPORT = "v2.0"
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EnableImageDeprecation.html
_MAX_YEARS = 10
# EC2 had no AMIs before.
_MIN_DATE = datetime(2006, 1, 1, tzinfo=UTC)
# With the days of leap years.
_MAX_DAYS = _MAX_YEARS * 365 + 3


@shows_arguments()
class AmiSettings(Construct):
    """Settings of the AMI of an imported image: launch permissions, IMDS support, deprecation date.

    The settings are set when the image is AVAILABLE. Changes apply in place. If the image is
    replaced, the new AMI gets the settings first, and then CloudFormation removes them from the old
    AMI. When the construct is removed from the template, and in a rollback, exactly what it has
    set is undone. Launch permissions that existed before, or that people added, stay.

    Images that name the same import task have the same AMI, which the settings of each change in
    turn. What two of them name is undone with the last one.

    If a deleted stack imported the AMI from the same task before and retained it, the AMI still has
    the tag of that stack, and the deployment fails. Start another import, or remove the tag
    `cdk-vm-import:stack` from the AMI and deploy again.

    Accounts that may launch the AMI need no permission for its snapshots. If the snapshots are
    encrypted, the accounts must also be allowed to use the KMS key. EC2 refuses to share an AMI
    whose snapshots are encrypted with the AWS managed key `aws/ebs`, so import it with a customer
    managed key, see https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/sharingamis-explicit.html

    Example:
        ```python
        AmiSettings(
            self,
            "Sharing",
            image=image,
            account_ids=["111122223333"],
            imds_support="v2.0",
        )
        ```

    See https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyImageAttribute.html
    """

    def __init__(  # noqa: PLR0913 - flat arguments, as CDK's own
        self,
        scope: Construct,
        construct_id: str,
        *,
        image: ImportedVmImage,
        account_ids: Sequence[str] | None = None,
        organization_arns: Sequence[str] | None = None,
        organizational_unit_arns: Sequence[str] | None = None,
        imds_support: str | None = None,
        deprecation_date: datetime | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.DESTROY,
    ) -> None:
        """Set launch permissions, IMDS support and deprecation date of the AMI of an image.

        At least one setting is required. Ids and ARNs may be unresolved tokens.

        Args:
            scope: The construct to create this one in.
            construct_id: The id of this construct in the scope.
            image: The image. The same stack must import it and wait for it, because the function
                may change only AMIs with the tag of its stack. An image has at most one
                `AmiSettings`.
            account_ids: Ids of the AWS accounts that may launch the AMI, 12 digits each. Default:
                no accounts.
            organization_arns: ARNs of the organizations whose accounts may launch the AMI, as
                `arn:aws:organizations::<account>:organization/o-...`. Default: no organizations.
            organizational_unit_arns: ARNs of the organizational units whose accounts may launch the
                AMI, as `arn:aws:organizations::<account>:ou/o-.../ou-...`. Default: none.
            imds_support: `v2.0`: instances of the AMI require IMDSv2 by default. The software in
                the AMI must support IMDSv2. EC2 cannot undo this, so it stays when the argument or
                the construct is removed, and after a rollback. Default: not changed.
            deprecation_date: When the AMI becomes deprecated, with a time zone and at most 10 years
                from now. Seconds are dropped. A date in the past deprecates the AMI at once. EC2
                then no longer lists the AMI for other accounts, but they can still launch it.
                Default: the AMI is not deprecated.
            removal_policy: DESTROY undoes the settings when the construct or the image is removed
                or replaced. RETAIN leaves them as they are, and `delete_ami=True` does not delete
                an AMI that they share. Default: DESTROY.

        Raises:
            ValueError: Arguments are not valid. The message lists all problems.
        """
        _validation.place(scope, construct_id)
        permissions = (account_ids, organization_arns, organizational_unit_arns)
        problems = [
            *_image(image, cdk.Stack.of(scope)),
            *_each("account_ids", account_ids, _ACCOUNT, "12 digits, such as '111122223333'"),
            *_each(
                "organization_arns",
                organization_arns,
                _ORGANIZATION,
                "arn:<partition>:organizations::<account>:organization/<id>",
            ),
            *_each(
                "organizational_unit_arns",
                organizational_unit_arns,
                _ORGANIZATIONAL_UNIT,
                "arn:<partition>:organizations::<account>:ou/<organization id>/<id>",
            ),
            *_imds_support(imds_support),
            *_deprecation_date(deprecation_date),
            *_removal_policy(removal_policy),
        ]
        if not (any(permissions) or imds_support or deprecation_date or problems):
            problems.append(
                "there is nothing to set: use account_ids, organization_arns, "
                "organizational_unit_arns, imds_support or deprecation_date."
            )
        _validation.check(scope, construct_id, problems)
        super().__init__(scope, construct_id)
        config = image._bind_ami_settings(self)  # noqa: SLF001 - ours
        names = contract.AmiSettingsProperty
        resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type=contract.ResourceType.AMI_SETTINGS.value,
            service_token=config.service_token,
            removal_policy=removal_policy,
            properties={
                names.IMAGE_ID: image.image_id,
                names.USER_IDS: _unique(account_ids),
                names.ORGANIZATION_ARNS: _unique(organization_arns),
                names.ORGANIZATIONAL_UNIT_ARNS: _unique(organizational_unit_arns),
                names.IMDS_SUPPORT: imds_support,
                names.DEPRECATE_AT: _text(deprecation_date),
                names.RETAIN: _retained.prop(
                    lambda: cast("cdk.CfnResource", resource.node.default_child)
                ),
                names.STATE_MACHINE_ARN: config.state_machine_arn,
            },
        )
        if deprecation_date and deprecation_date < datetime.now(UTC):
            cdk.Annotations.of(self).add_warning_v2(
                "cdk-vm-import:pastDeprecationDate",
                f"deprecation_date {_text(deprecation_date)} is in the past. A new AMI is "
                "deprecated at once. Use a later date, or leave it out.",
            )


def _unique(values: Sequence[str] | None) -> list[str] | None:
    return [*dict.fromkeys(values)] if values else None


def _text(date: datetime | None) -> str | None:
    return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:00Z") if date else None


def _image(image: object, stack: cdk.Stack) -> Iterator[str]:
    if isinstance(image, VmImageBase) and not isinstance(image, ImportedVmImage):
        yield (
            f"image {image.node.path} is not imported by this stack, so the stack may not change "
            "its AMI: use AmiSettings in the stack that imports the image."
        )
    elif not isinstance(image, ImportedVmImage):
        yield f"image {_validation.shown(image)} is not an ImportedVmImage: use one."
    elif image.stack is not stack:
        yield (
            f"image {image.node.path} belongs to another stack: use AmiSettings in the stack that "
            "imports the image."
        )
    else:
        yield from image._ami_settings_problems()  # noqa: SLF001 - ours


def _each(argument: str, values: object, pattern: re.Pattern[str], use: str) -> Iterator[str]:
    if values is None:
        return
    problems = [*_validation.listed(argument, values, str, "strings")]
    yield from problems
    # CloudFormation may also resolve the list as a whole, such as a parameter.
    given = [*cast("Sequence[str]", values)] if not problems else []
    if cdk.Token.is_unresolved(given):
        return
    for value in given:
        if not (cdk.Token.is_unresolved(value) or pattern.fullmatch(value)):
            yield f"{argument} has {_validation.shown(value)}, which is not valid: use {use}."


def _imds_support(value: object) -> Iterator[str]:
    if value is not None and value != _IMDS_SUPPORT:
        yield (
            f"imds_support {_validation.shown(value)} is not valid: use '{_IMDS_SUPPORT}', which "
            "is the only value of EC2, or leave it out."
        )


def _deprecation_date(value: object) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, datetime):
        yield (
            f"deprecation_date {_validation.shown(value)} is not a datetime: use one, such as "
            "datetime(2030, 1, 1, tzinfo=timezone.utc)."
        )
    elif value.utcoffset() is None:
        yield (
            f"deprecation_date {value} has no time zone: use one, such as "
            "datetime(2030, 1, 1, tzinfo=timezone.utc)."
        )
    elif value < _MIN_DATE:
        yield f"deprecation_date {value} is too early: use {_MIN_DATE:%Y-%m-%d} or later."
    elif value > datetime.now(UTC) + timedelta(days=_MAX_DAYS):
        yield (
            f"deprecation_date {value} is too late: EC2 accepts dates up to {_MAX_YEARS} years "
            "from now."
        )


def _removal_policy(value: object) -> Iterator[str]:
    if value is not cdk.RemovalPolicy.DESTROY and value is not cdk.RemovalPolicy.RETAIN:
        yield (
            f"removal_policy {_validation.shown(value)} is not possible for the settings of an "
            "AMI: use RemovalPolicy.DESTROY or RemovalPolicy.RETAIN."
        )
