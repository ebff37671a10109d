"""What every image offers, whether this stack imports it or another stack did."""

from typing import Protocol

import aws_cdk as cdk
from aws_cdk import aws_iam as iam


class IVmImage(Protocol):
    """An image in EC2 Image Builder that was a virtual machine.

    Use the protocol in annotations. It is not a base class.
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
    def image_name(self) -> str:
        """Name of the image."""

    @property
    def image_version(self) -> str:
        """Semantic version of the image."""

    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Allow the grantee the actions on the image build."""

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow the grantee to read the image build."""


class VmImageBase(cdk.Resource):
    """The attributes that derive from the ARN, and the grants. Subclasses set the fields."""

    _image_arn: str
    _image_version_arn: str
    _latest_image_arn: str
    _image_name: str
    _image_version: str

    @property
    def image_arn(self) -> str:
        """ARN of the image build, `arn:...:image/<name>/<x.y.z>/<build>`."""
        return self._image_arn

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
    def image_name(self) -> str:
        """Name of the image. For an image from an ARN, the name as it is in the ARN."""
        return self._image_name

    @property
    def image_version(self) -> str:
        """Semantic version of the image, `x.y.z`."""
        return self._image_version

    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Allow the grantee the actions on the image build.

        Args:
            grantee: A role, user, function or another construct with a principal.
            *actions: IAM actions, such as `imagebuilder:GetImage`. See
                https://docs.aws.amazon.com/service-authorization/latest/reference/list_imagebuilder.html

        Returns:
            The grant, for example to depend on it or to check that it succeeded.
        """
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=list(actions), resource_arns=[self.image_arn]
        )

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow the grantee `imagebuilder:GetImage` on the image build.

        Args:
            grantee: A role, user, function or another construct with a principal.

        Returns:
            The grant, for example to depend on it or to check that it succeeded.
        """
        return self.grant(grantee, "imagebuilder:GetImage")


def split_image_arn(image_arn: str) -> tuple[str, str, str]:
    """Return the prefix, the name and the version in the ARN of an image build.

    Args:
        image_arn: The ARN. If it is an unresolved token, CloudFormation splits it.
    """
    prefix, name, version = (
        cdk.Fn.select(index, cdk.Fn.split("/", image_arn)) for index in range(3)
    )
    return prefix, name, version
