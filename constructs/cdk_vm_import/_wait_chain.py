"""The chain of custom resources that waits for an image.

CloudFormation waits at most an hour for the response of a custom resource. So the image resource
waits for the first hour, and each further hour is a small custom resource, a link. A link depends
on the previous one, and the consumers of the image depend on the last link.
"""

from collections.abc import Sequence
from typing import cast

import aws_cdk as cdk
from constructs import Construct

from cdk_vm_import._handler import contract
from cdk_vm_import.vm_import_provider import ProviderConfig


def split_timeout(seconds: int) -> list[int]:
    """Return how many seconds each resource of the chain waits, the image resource first.

    Args:
        seconds: How long the deployment waits.
    """
    hour = contract.MAX_SERVICE_TIMEOUT
    return [
        max(min(hour, seconds - start), contract.MIN_TIMEOUT) for start in range(0, seconds, hour)
    ]


def add_links(
    image: Construct,
    resource: cdk.CustomResource,
    *,
    seconds: Sequence[int],
    config: ProviderConfig,
) -> cdk.CustomResource:
    """Create the links of an image.

    Args:
        image: The image, which is the scope of the links.
        resource: The custom resource of the image.
        seconds: How long each link waits.
        config: The provider of the image.

    Returns:
        The resource that ends the chain: the last link, or the resource of an image without links.
    """
    names = contract.WaitProperty
    logical_id = cdk.Stack.of(image).get_logical_id(
        cast("cdk.CfnElement", resource.node.default_child)
    )
    last = resource
    for hour, wait in enumerate(seconds, start=2):
        last = cdk.CustomResource(
            image,
            f"Wait{hour}",
            resource_type=contract.ResourceType.WAIT.value,
            service_token=config.service_token,
            service_timeout=cdk.Duration.seconds(contract.service_timeout(wait)),
            properties={
                # From the previous resource of the chain, which sets the order.
                names.IMAGE_ARN: last.get_att_string(contract.WaitAttribute.IMAGE_ARN.value),
                # The metrics of the import have it, also if the image is gone.
                names.IMAGE_LOGICAL_ID: logical_id,
                names.VM_IMPORT_TASK_ID: resource.get_att_string(
                    contract.ImageAttribute.VM_IMPORT_TASK_ID.value
                ),
                names.IMPORT_FAILED: resource.get_att_string(
                    contract.ImageAttribute.IMPORT_FAILED.value
                ),
                names.STATE_MACHINE_ARN: config.state_machine_arn,
                names.TIMEOUT_SECONDS: wait,
                names.CONTINUE_AFTER_TIMEOUT: hour <= len(seconds) or None,
            },
        )
    return last
