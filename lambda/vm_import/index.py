"""The Lambda function's entry: CloudFormation's events to the lifecycle of images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cfn_resource import CfnResource
from deadline import Deadline
from errors import PropertyError
from image_builder import ImageBuilder
from image_properties import ImageProperties, Owner
from lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deadline import LambdaContext
    from lifecycle import ImportedImage

    Event = Mapping[str, Any]

logger = logging.getLogger(__name__)
cfn_resource = CfnResource()


def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Handle an event of the custom resource Custom::ImportedVmImage."""
    cfn_resource(event, context)


@cfn_resource.create
def create(event: Event, context: LambdaContext) -> str:
    """Import the image, or find the one that an earlier delivery of this event imported."""
    properties = ImageProperties.parse(event["ResourceProperties"])
    return _answer(_lifecycle(event, context).create(properties))


@cfn_resource.update
def update(event: Event, context: LambdaContext) -> str:
    """Change tags in place, or import another image."""
    properties = ImageProperties.parse(event["ResourceProperties"])
    old = _parse_leniently(event["OldResourceProperties"])
    physical_id = event["PhysicalResourceId"]
    return _answer(_lifecycle(event, context).update(physical_id, properties, old))


@cfn_resource.delete
def delete(event: Event, context: LambdaContext) -> str:
    """Remove the image; one that is gone, or never was, is removed."""
    physical_id: str = event["PhysicalResourceId"]
    properties = _parse_leniently(event["ResourceProperties"])
    _lifecycle(event, context).delete(physical_id, properties)
    return physical_id


def _lifecycle(event: Event, context: LambdaContext) -> Lifecycle:
    deadline = Deadline(context)
    return Lifecycle(
        owner=Owner(event["StackId"], event["LogicalResourceId"]),
        image_builder=ImageBuilder(context.invoked_function_arn, deadline),
        deadline=deadline,
        answer_with=_answer_with,
    )


def _parse_leniently(properties: Mapping[str, Any]) -> ImageProperties | None:
    try:
        return ImageProperties.parse(properties)
    except PropertyError as error:
        # Nothing was ever imported with them.
        logger.info({"not properties of an image": str(error)})
        return None


def _answer_with(physical_id: str) -> None:
    cfn_resource.PhysicalResourceId = physical_id


def _answer(image: ImportedImage) -> str:
    cfn_resource.Data.update(image.attributes)
    return image.arn
