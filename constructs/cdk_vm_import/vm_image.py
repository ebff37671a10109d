"""What any image can do, whether this stack imports it or another one did."""

from typing import Protocol

import aws_cdk as cdk
from aws_cdk import aws_iam as iam


class IVmImage(Protocol):
    """An image in EC2 Image Builder that was a virtual machine. For annotations, not a base."""

    @property
    def image_arn(self) -> str:
        """ARN of the image build."""

    @property
    def image_version_arn(self) -> str:
        """ARN of the image version."""

    @property
    def latest_image_arn(self) -> str:
        """ARN of the newest version, whichever that is."""

    @property
    def image_name(self) -> str:
        """Name of the image."""

    @property
    def image_version(self) -> str:
        """Semantic version of the image."""

    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Allow the grantee some actions on the image build."""

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow the grantee to read the image build."""


class VmImageBase(cdk.Resource):
    """The grants, and the attributes that an ARN is enough for. Subclasses set the fields."""

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
        """ARN of the image version, `arn:...:image/<name>/<x.y.z>`, that is of its newest build."""
        return self._image_version_arn

    @property
    def latest_image_arn(self) -> str:
        """ARN of the newest version, `arn:...:image/<name>/x.x.x`.

        Image Builder resolves it to the newest build that is AVAILABLE, so while this image is
        still being imported it names an older one.
        """
        return self._latest_image_arn

    @property
    def image_name(self) -> str:
        """Name of the image; of an image taken from its ARN, as it is spelled there."""
        return self._image_name

    @property
    def image_version(self) -> str:
        """Semantic version of the image, `x.y.z`."""
        return self._image_version

    def grant(self, grantee: iam.IGrantable, *actions: str) -> iam.Grant:
        """Allow the grantee some actions on the image build.

        Args:
            grantee: A role, user, function or anything else with a principal.
            *actions: IAM actions, such as `imagebuilder:GetImage`. See
                https://docs.aws.amazon.com/service-authorization/latest/reference/list_imagebuilder.html

        Returns:
            The grant, to depend on or to check that it succeeded.
        """
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=list(actions), resource_arns=[self.image_arn]
        )

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow the grantee imagebuilder:GetImage on the image build.

        Args:
            grantee: A role, user, function or anything else with a principal.

        Returns:
            The grant, to depend on or to check that it succeeded.
        """
        return self.grant(grantee, "imagebuilder:GetImage")
