"""What every image offers, whether this stack imports it or another stack did."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, Unpack, cast

import aws_cdk as cdk
import jsii
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from aws_cdk.interfaces import aws_imagebuilder as interfaces
from constructs import Construct

from cdk_vm_import import _metrics, _validation
from cdk_vm_import._cdk_types import AnyRuleTarget
from cdk_vm_import._handler import contract
from cdk_vm_import._metrics import MetricOptions
from cdk_vm_import.platform import Platform

if TYPE_CHECKING:
    from aws_cdk.aws_imagebuilder_alpha import BaseImage

# https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
_PARAMETER_NAME = re.compile(r"(?!/?(aws|ssm))((/[\w.-]+){1,15}|[\w.-]+)", re.ASCII | re.IGNORECASE)
_MAX_PARAMETER_NAME = 1011
# https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutRule.html
_RULE_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_MAX_RULE_DESCRIPTION = 512
_ACTION = re.compile(r"\*|[a-zA-Z0-9-]+:[a-zA-Z0-9*]+")


class IVmImage(Protocol):
    """An image in EC2 Image Builder that was a virtual machine.

    Use the protocol in annotations. It is not a base class. `VmImageBase` describes the members.
    """

    @property
    def image_arn(self) -> str:
        """ARN of the image build."""

    @property
    def image_version_arn(self) -> str:
        """ARN of the image version."""

    @property
    def latest_image_arn(self) -> str:
        """ARN of the latest version of the image."""

    @property
    def latest_major_image_arn(self) -> str:
        """ARN of the latest version of the image with the same major version."""

    @property
    def latest_minor_image_arn(self) -> str:
        """ARN of the latest version of the image with the same major and minor version."""

    @property
    def image_name(self) -> str:
        """Name of the image."""

    @property
    def image_version(self) -> str:
        """Semantic version of the image."""

    @property
    def image_id(self) -> str:
        """Id of the AMI."""

    def to_machine_image(self) -> ec2.IMachineImage:
        """Return the AMI as a machine image for instances and launch templates."""

    def to_base_image(self) -> "BaseImage":
        """Return the image as a base image for the recipes of CDK's Image Builder constructs."""

    def publish_image_id_to_ssm(self, parameter_name: str) -> ssm.StringParameter:
        """Store the id of the AMI in a parameter of Systems Manager."""

    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Allow the grantee the actions on the image build."""

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow the grantee to read the image build."""

    def metric(self, metric_name: str, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return a metric of the image's imports."""

    def metric_duration(self, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return the metric of how long the image's imports took."""

    def metric_failed(self, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return the metric of the image's imports that failed."""

    def on_state_change(
        self,
        construct_id: str,
        *,
        target: AnyRuleTarget | None = None,
        description: str | None = None,
        rule_name: str | None = None,
    ) -> events.Rule:
        """Create a rule for each change of the image's state."""

    def on_available(
        self,
        construct_id: str,
        *,
        target: AnyRuleTarget | None = None,
        description: str | None = None,
        rule_name: str | None = None,
    ) -> events.Rule:
        """Create a rule for the event that the image is AVAILABLE."""

    def on_failed(
        self,
        construct_id: str,
        *,
        target: AnyRuleTarget | None = None,
        description: str | None = None,
        rule_name: str | None = None,
    ) -> events.Rule:
        """Create a rule for the event that the image has FAILED."""


class _IImageWithArn(interfaces.IImageRef, Protocol):
    """What `BaseImage.from_image()` reads from an image.

    The interface of CDK's Image Builder constructs has the property too, but it is in a package
    that not everybody installs. For jsii, this one is IImageRef with one more property.
    """

    __jsii_type__: ClassVar[str] = "aws-cdk-lib.interfaces.aws_imagebuilder.IImageRef"

    @property
    @jsii.member(jsii_name="imageArn")
    def image_arn(self) -> str:
        """ARN of the image build."""


@jsii.implements(_IImageWithArn)
class VmImageBase(cdk.Resource):
    """The attributes that derive from the ARN, the grants and the events.

    Subclasses set the fields, and say what to do if the AMI is not known.
    """

    _image_arn: str
    _image_version_arn: str
    _latest_image_arn: str
    _image_name: str
    _image_version: str
    _image_id: str | None
    _platform: Platform | None
    _no_image_id: ClassVar[str]

    @property
    def image_arn(self) -> str:
        """ARN of the image build, `arn:...:image/<name>/<x.y.z>/<build>`.

        A new image has another ARN. A stack that refers to this one keeps the old image, or even
        keeps CloudFormation from replacing it: use `ImportedVmImage.from_image_name` there.
        """
        return self._image_arn

    @property
    def image_ref(self) -> interfaces.ImageReference:
        """Reference to the image build, for constructs that take an `IImageRef`."""
        return interfaces.ImageReference(image_arn=self.image_arn)

    @property
    def image_version_arn(self) -> str:
        """ARN of the image version, `arn:...:image/<name>/<x.y.z>`.

        Image Builder resolves it to the latest build of the version.
        """
        return self._image_version_arn

    @property
    def latest_image_arn(self) -> str:
        """ARN of the latest version, `arn:...:image/<name>/x.x.x`.

        Image Builder resolves it to the latest build that is AVAILABLE. While this image is still
        being imported, that is an older one.
        """
        return self._latest_image_arn

    @property
    def latest_major_image_arn(self) -> str:
        """ARN of the latest version with the same major version, `arn:...:image/<name>/<x>.x.x`.

        It is resolved like `latest_image_arn`.
        """
        return self._latest_of(nodes=1)

    @property
    def latest_minor_image_arn(self) -> str:
        """ARN of the latest version with the same major and minor version, `.../<x.y>.x`.

        It is resolved like `latest_image_arn`.
        """
        return self._latest_of(nodes=2)

    @property
    def image_name(self) -> str:
        """Name of the image. For an image that another stack imported, as it is in the ARN."""
        return self._image_name

    @property
    def image_version(self) -> str:
        """Semantic version of the image, `x.y.z`."""
        return self._image_version

    @property
    def image_id(self) -> str:
        """Id of the AMI that the import created.

        Raises:
            ValueError: The id is not known. The message says what to do.
        """
        if self._image_id is None:
            raise ValueError(f"{self.node.path}: image_id is not available, {self._no_image_id}")
        return self._image_id

    def to_machine_image(self) -> ec2.IMachineImage:
        """Return the AMI as a machine image for instances and launch templates.

        Returns:
            The machine image. Its user data are empty and fit the image's platform.

        Raises:
            ValueError: The AMI or the platform is not known, or the construct that uses the AMI is
                in another Region. The message says what to do.
        """
        if self._platform is None:
            raise ValueError(
                f"{self.node.path}: the platform is not known: use from_image_attributes with "
                "image_id and platform."
            )
        return _MachineImage(self, self.image_id, self._platform)

    def to_base_image(self) -> "BaseImage":
        """Return the image as a base image for the recipes of CDK's Image Builder constructs.

        They are in the package `aws-cdk.aws-imagebuilder-alpha`, which
        `pip install 'cdk-vm-import[imagebuilder]'` installs too. A `CfnImageRecipe` needs neither:
        use `parent_image=image.image_arn`.

        Returns:
            The base image. `BaseImage.from_image(image)` is the same, but type checkers report it.

        Raises:
            ImportError: The package is not installed.
        """
        try:
            from aws_cdk.aws_imagebuilder_alpha import BaseImage  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ImportError(
                f"{self.node.path}: to_base_image needs the package "
                "aws-cdk.aws-imagebuilder-alpha: install cdk-vm-import[imagebuilder], or use "
                "parent_image=image.image_arn in a CfnImageRecipe."
            ) from error
        return BaseImage.from_string(self.image_arn)

    def publish_image_id_to_ssm(self, parameter_name: str) -> ssm.StringParameter:
        """Store the id of the AMI in a parameter of Systems Manager, of type `aws:ec2:image`.

        The parameter has the new id when the image is replaced. Instances, launch templates and
        recipes can refer to it, also in other stacks: `resolve:ssm:<name>`, or `ssm:<name>` as the
        parent image of a recipe.

        Args:
            parameter_name: Name of the parameter: letters, digits or `_.-`, or up to 15 such parts
                that each begin with `/`. At most 1011 characters, and not beginning with `aws` or
                `ssm`. Not an unresolved token.

        Returns:
            The parameter. An image has at most one.

        Raises:
            ValueError: The name is not valid, the AMI is not known, or the image already has a
                parameter.
        """
        problems = list(_parameter_name(parameter_name))
        if self.node.try_find_child("ImageIdParameter"):
            problems.append(
                "publish_image_id_to_ssm was called already: use an ssm.StringParameter for "
                "another parameter."
            )
        self._check(problems)
        return ssm.StringParameter(
            self,
            "ImageIdParameter",
            parameter_name=parameter_name,
            string_value=self.image_id,
            data_type=ssm.ParameterDataType.AWS_EC2_IMAGE,
            description="AMI of the imported Image Builder image",
        )

    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Allow the grantee the actions on the image build.

        Args:
            grantee: A role, user, function or another construct with a principal.
            *actions: IAM actions, such as `imagebuilder:GetImage`. See
                https://docs.aws.amazon.com/service-authorization/latest/reference/list_imagebuilder.html

        Returns:
            The grant, for example to depend on it or to check that it succeeded.

        Raises:
            ValueError: The grantee has no principal, or an action is not one.
        """
        self._check(_grant(grantee, actions))
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=list(actions), resource_arns=self._builds()
        )

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow the grantee `imagebuilder:GetImage` on the image build.

        Args:
            grantee: A role, user, function or another construct with a principal.

        Returns:
            The grant, for example to depend on it or to check that it succeeded.

        Raises:
            ValueError: The grantee has no principal.
        """
        return self.grant(grantee, "imagebuilder:GetImage")

    def metric(self, metric_name: str, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return a metric of the image's imports, which the function writes when an import ends.

        Its namespace is `CdkVmImport`. Its dimensions are `Stack`, the name of the stack, and
        `Resource`, the logical id of the image. Between imports it has no values, so an alarm needs
        `treat_missing_data`.

        Args:
            metric_name: `Duration` or `Failed`.
            **options: Options of `cloudwatch.MetricOptions`, such as `period`, `statistic` and
                `label`, without `dimensions_map`. Default: of `Duration` the maximum and of
                `Failed` the sum, both over 5 minutes.

        Raises:
            ValueError: This stack does not import the image, there is no such metric, or the
                options are not valid.
        """
        return _metrics.of_image(self, metric_name, self._metric_dimensions(), options)

    def metric_duration(self, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return the metric `Duration`: how long the import took, in seconds.

        Args:
            **options: As in `metric`. Default: the maximum over 5 minutes.

        Raises:
            ValueError: This stack does not import the image, or the options are not valid.
        """
        return self.metric(contract.Metric.DURATION.value, **options)

    def metric_failed(self, **options: Unpack[MetricOptions]) -> cloudwatch.Metric:
        """Return the metric `Failed`: 1 for an import that failed or timed out, or else 0.

        An import whose task had failed before the image was created has no value: it fails the
        deployment at once.

        Args:
            **options: As in `metric`. Default: the sum over 5 minutes.

        Raises:
            ValueError: This stack does not import the image, or the options are not valid.
        """
        return self.metric(contract.Metric.FAILED.value, **options)

    def on_state_change(
        self,
        construct_id: str,
        *,
        target: AnyRuleTarget | None = None,
        description: str | None = None,
        rule_name: str | None = None,
    ) -> events.Rule:
        """Create a rule for each change of the image's state.

        Image Builder sends these events on a best effort basis, so do not rely on them alone. If
        this stack imports the image, the rule does not refer to it, so that CloudFormation creates
        both at the same time, and is for all builds of its version. See https://docs.aws.amazon.com/eventbridge/latest/ref/events-ref-imagebuilder.html

        A target in another stack makes this stack depend on that one. If that stack uses the image,
        create the rule there, with an image of `ImportedVmImage.from_image_name`.

        Args:
            construct_id: The id of the rule in this image.
            target: What the event is sent to. Default: nothing; `add_target` adds targets.
            description: Description of the rule, 1 to 512 characters. Default: none.
            rule_name: Name of the rule, 1 to 64 letters, digits or `_.-`. Default: CloudFormation
                generates it.

        Returns:
            The rule.

        Raises:
            ValueError: Arguments are not valid, or the name of the image is an unresolved token.
        """
        return self._rule(construct_id, [], target, description, rule_name)

    def on_available(
        self,
        construct_id: str,
        *,
        target: AnyRuleTarget | None = None,
        description: str | None = None,
        rule_name: str | None = None,
    ) -> events.Rule:
        """Create a rule for the event that the image is AVAILABLE. See `on_state_change`.

        Args:
            construct_id: The id of the rule in this image.
            target: What the event is sent to. Default: nothing; `add_target` adds targets.
            description: Description of the rule, 1 to 512 characters. Default: none.
            rule_name: Name of the rule, 1 to 64 letters, digits or `_.-`. Default: CloudFormation
                generates it.

        Returns:
            The rule.

        Raises:
            ValueError: Arguments are not valid, or the name of the image is an unresolved token.
        """
        return self._rule(construct_id, ["AVAILABLE"], target, description, rule_name)

    def on_failed(
        self,
        construct_id: str,
        *,
        target: AnyRuleTarget | None = None,
        description: str | None = None,
        rule_name: str | None = None,
    ) -> events.Rule:
        """Create a rule for the event that the image has FAILED. See `on_state_change`.

        Args:
            construct_id: The id of the rule in this image.
            target: What the event is sent to. Default: nothing; `add_target` adds targets.
            description: Description of the rule, 1 to 512 characters. Default: none.
            rule_name: Name of the rule, 1 to 64 letters, digits or `_.-`. Default: CloudFormation
                generates it.

        Returns:
            The rule.

        Raises:
            ValueError: Arguments are not valid, or the name of the image is an unresolved token.
        """
        return self._rule(construct_id, ["FAILED"], target, description, rule_name)

    def _rule(
        self,
        construct_id: str,
        statuses: Sequence[str],
        target: AnyRuleTarget | None,
        description: str | None,
        rule_name: str | None,
    ) -> events.Rule:
        _validation.place(self, construct_id)
        problems = [
            *_validation.optional("target", target, "bind", "a target of aws_events_targets"),
            *_validation.text("description", description, _MAX_RULE_DESCRIPTION),
            *_rule_name(rule_name),
        ]
        _validation.check(self, construct_id, problems)
        return events.Rule(
            self,
            construct_id,
            description=description,
            rule_name=rule_name,
            event_pattern=events.EventPattern(
                source=["aws.imagebuilder"],
                detail_type=["EC2 Image Builder Image State Change"],
                resources=self._event_resources(),
                detail={"state": {"status": list(statuses)}} if statuses else None,
            ),
            targets=[cast("events.IRuleTarget", target)] if target else None,
        )

    def _check(self, problems: Iterable[str]) -> None:
        """Raise an error that lists the problems of a method's arguments."""
        if lines := [f"{self.node.path}: {problem}" for problem in problems]:
            raise ValueError("\n".join(lines))

    def _builds(self) -> list[str]:
        """Return the ARNs of the builds that this image stands for."""
        return [self.image_arn]

    def _metric_dimensions(self) -> dict[str, str]:
        """Return the dimensions of the metrics of the image's imports."""
        raise ValueError(
            f"{self.node.path}: metrics are not available, because this stack does not import the "
            "image: use those of the ImportedVmImage in the stack that imports it."
        )

    def _event_resources(self) -> list[str]:
        """Return what the resources of an event of this image match."""
        return self._builds()

    def _latest_of(self, nodes: int) -> str:
        prefix, name, version = split_image_arn(self._image_arn)
        parts = cdk.Fn.split(".", version)
        same = [cdk.Fn.select(index, parts) for index in range(nodes)]
        return f"{prefix}/{name}/{'.'.join([*same, *('x' * (3 - nodes))])}"


def split_image_arn(image_arn: str) -> tuple[str, str, str]:
    """Return the prefix, the name and the version in the ARN of an image build.

    Args:
        image_arn: The ARN. If it is an unresolved token, CloudFormation splits it.
    """
    prefix, name, version = (
        cdk.Fn.select(index, cdk.Fn.split("/", image_arn)) for index in range(3)
    )
    return prefix, name, version


def _parameter_name(value: object) -> Iterator[str]:
    if not (
        isinstance(value, str)
        and not cdk.Token.is_unresolved(value)
        and _PARAMETER_NAME.fullmatch(value)
        and len(value) <= _MAX_PARAMETER_NAME
    ):
        yield (
            f"parameter_name {_validation.shown(value)} is not valid: use a name such as "
            "'/images/rhel9', of letters, digits or any of _.-/, that begins with a slash if it "
            "has one, and not with aws or ssm."
        )


def _rule_name(value: object) -> Iterator[str]:
    if value is not None and not (
        isinstance(value, str) and (cdk.Token.is_unresolved(value) or _RULE_NAME.fullmatch(value))
    ):
        yield (
            f"rule_name {_validation.shown(value)} is not valid: use 1 to 64 letters, digits or "
            "any of _.-, or leave it out."
        )


def _grant(grantee: object, actions: Sequence[object]) -> Iterator[str]:
    if not hasattr(grantee, "grant_principal"):
        yield (
            f"grantee {_validation.shown(grantee)} is not valid: use an iam.Role, or another "
            "construct with a principal."
        )
    if not actions:
        yield "grant needs an action: use one, such as 'imagebuilder:GetImage'."
    for action in actions:
        if not (
            isinstance(action, str)
            and (cdk.Token.is_unresolved(action) or _ACTION.fullmatch(action))
        ):
            yield (
                f"action {_validation.shown(action)} is not valid: use one such as "
                "'imagebuilder:GetImage'."
            )


@jsii.implements(ec2.IMachineImage)
class _MachineImage:
    def __init__(self, image: VmImageBase, image_id: str, platform: Platform) -> None:
        self._image = image
        self._image_id = image_id
        self._windows = platform is Platform.WINDOWS

    @jsii.member(jsii_name="getImage")
    def get_image(self, scope: Construct) -> ec2.MachineImageConfig:
        own, other = cdk.Stack.of(scope).region, self._image.env.region
        if own != other and not (cdk.Token.is_unresolved(own) or cdk.Token.is_unresolved(other)):
            raise ValueError(
                f"{scope.node.path}: the AMI of {self._image.node.path} is in the Region {other}, "
                f"but this construct is in {own}: import the image there too."
            )
        if self._windows:
            system, data = ec2.OperatingSystemType.WINDOWS, ec2.UserData.for_windows()
        else:
            system, data = ec2.OperatingSystemType.LINUX, ec2.UserData.for_linux()
        return ec2.MachineImageConfig(image_id=self._image_id, os_type=system, user_data=data)
