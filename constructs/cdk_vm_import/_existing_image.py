"""Images that this stack does not import."""

import re
from collections.abc import Iterator

import aws_cdk as cdk
from aws_cdk import aws_events as events
from constructs import Construct

from cdk_vm_import import _validation
from cdk_vm_import._handler import contract
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_image import VmImageBase, split_image_arn

# https://docs.aws.amazon.com/imagebuilder/latest/userguide/ibhow-semantic-versioning.html
_NODE = r"(0|[1-9]\d{0,9})"
_VERSION = re.compile(rf"x\.x\.x|{_NODE}\.x\.x|{_NODE}\.{_NODE}\.(x|{_NODE})", re.ASCII)
_ADVICE = {
    "Region": "Recipes can only use images of their own Region: import it there too.",
    "account": "Recipes can only use it if that account shares it, by AWS Resource Access Manager.",
}


class ImageFromAttributes(VmImageBase):
    """An image build by its ARN, and the AMI by its id if that is known."""

    _no_image_id = "because the ARN does not contain it: use from_image_attributes with image_id."

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        image_arn: str,
        image_id: str | None,
        platform: Platform | None,
    ) -> None:
        """Check the attributes; warn if the image is in another account or Region."""
        _validation.place(scope, construct_id)
        problems = [
            *_validation.image_arn(image_arn),
            *_validation.image_id(image_id),
            *(_validation.platform(platform) if platform is not None else ()),
        ]
        _validation.check(scope, construct_id, problems)
        super().__init__(scope, construct_id, environment_from_arn=image_arn)
        prefix, self._image_name, self._image_version = split_image_arn(image_arn)
        self._image_arn = image_arn
        self._image_version_arn = f"{prefix}/{self._image_name}/{self._image_version}"
        self._latest_image_arn = f"{prefix}/{self._image_name}/x.x.x"
        self._image_id, self._platform = image_id, platform
        for kind, own, other in (
            ("Region", self.stack.region, self.env.region),
            ("account", self.stack.account, self.env.account),
        ):
            if cdk.Token.is_unresolved(own) or cdk.Token.is_unresolved(other) or own == other:
                continue
            cdk.Annotations.of(self).add_warning_v2(
                f"cdk-vm-import:imageOfOther{kind.capitalize()}",
                f"The image is in the {kind} {other}, but its stack is in {own}. {_ADVICE[kind]}",
            )


class ImageFromName(VmImageBase):
    """The latest build of an image of this account and Region, by its name."""

    _no_image_id = (
        "because the name stands for the latest build, which is not known at synthesis: use the "
        "name as the parent image of a recipe, or from_image_attributes with image_id."
    )
    _image_id = None
    _platform = None

    def __init__(
        self, scope: Construct, construct_id: str, *, image_name: str, semantic_version: str
    ) -> None:
        """Check the name and the version."""
        _validation.place(scope, construct_id)
        problems = [*_validation.image_name(image_name), *_version(semantic_version)]
        if isinstance(image_name, str) and cdk.Token.is_unresolved(image_name):
            problems.append(
                "image_name is an unresolved token, but the ARN has another spelling of the name: "
                "use from_image_arn."
            )
        _validation.check(scope, construct_id, problems)
        super().__init__(scope, construct_id)
        self._image_name, self._image_version = contract.slug(image_name), semantic_version
        self._prefix = self.stack.format_arn(
            service="imagebuilder", resource="image", resource_name=self._image_name
        )
        self._latest_image_arn = f"{self._prefix}/x.x.x"
        self._image_arn = self._image_version_arn = f"{self._prefix}/{semantic_version}"

    @property
    def _fixed(self) -> str:
        """What the version begins with before its first x."""
        return self._image_version.partition("x")[0]

    def _builds(self) -> list[str]:
        # A request names the version, and Image Builder responds with one of its builds.
        if "x" not in self._image_version:
            return [self._image_arn, f"{self._image_arn}/*"]
        return [f"{self._prefix}/{self._fixed}*"]

    def _event_resources(self) -> list[str]:
        end = "" if "x" in self._image_version else "/"
        return events.Match.prefix(f"{self._prefix}/{self._fixed}{end}")

    def _latest_of(self, nodes: int) -> str:
        same = self._image_version.split(".")[:nodes]
        return f"{self._prefix}/{'.'.join([*same, *('x' * (3 - nodes))])}"


def _version(value: object) -> Iterator[str]:
    if not (
        isinstance(value, str) and not cdk.Token.is_unresolved(value) and _VERSION.fullmatch(value)
    ):
        yield (
            f"semantic_version {_validation.shown(value)} is not valid: use X.Y.Z, or x for the "
            "latest, such as '1.2.x', '1.x.x' or 'x.x.x'."
        )
