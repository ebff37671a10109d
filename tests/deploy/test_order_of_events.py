"""The events that CloudFormation documents, in their order, sent to the deployed function.

The simulated CloudFormation has an order of its own; see tests/lifecycle/cloudformation_driver.py.
So that driver sends the events as CloudFormation does: by an asynchronous invocation, with a
presigned URL for the response. The resource belongs to a stack that the real CDK CLI deployed, with
its function, its permissions and its state machine.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from contract import ImageProperty, OwnTag, ResourceType, WaitAttribute, WaitProperty
from local_aws.client.cdk_cli import CdkCli
from tests.deploy.deployed import HOUR, Account, Function, StackView, eventually
from tests.deploy.waiting_app import synthesize
from tests.lifecycle.cloudformation_driver import Policy, Resource, UpdateBack
from tests.support.properties import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local_aws import LocalAws
    from tests.lifecycle.cloudformation_driver import Event, Response

_numbers = itertools.count()
DENIED = {"code": "AccessDeniedException", "message": "no", "status": 403}
# The handler repeats a denied call for 90 seconds, with pauses of at least 5 seconds.
ALWAYS = 1000
DOCUMENTED = pytest.mark.parametrize(
    "update_back", [UpdateBack.WITH_NEW_ID, UpdateBack.WITH_OLD_ID], ids=["new id", "old id"]
)


class Deployed(StackView):
    """A deployed stack, to whose function the events are sent."""

    def __init__(self, account: Account, folder: Path) -> None:
        super().__init__(account, "Order")
        image = {
            "image_name": "order",
            "semantic_version": "1.0.0",
            "vm_import_task_id": account.import_image(),
            "wait_for_available": False,
        }
        CdkCli(account.local, folder, app=synthesize(folder / "app", self.name, image)).deploy()
        (function,) = self.resources("AWS::Lambda::Function").values()
        self.function = Function(account, function)
        (self.state_machine,) = self.state_machines()

    def properties(self, policy: Policy, *, waits: bool) -> dict[str, Any]:
        """Properties of an image that no other test has, as the construct sends them."""
        properties: dict[str, Any] = {
            ImageProperty.NAME: f"order-{next(_numbers)}",
            ImageProperty.SEMANTIC_VERSION: "1.0.0",
            ImageProperty.PLATFORM: "Linux",
            ImageProperty.VM_IMPORT_TASK_ID: self.account.import_image(),
            ImageProperty.STATE_MACHINE_ARN: self.state_machine,
        }
        waiting = {ImageProperty.TIMEOUT_SECONDS: "3600"} if waits else {}
        return (
            properties
            | waiting
            | ({} if policy is Policy.DESTROY else {ImageProperty.RETAIN: "true"})
        )

    def images(self, logical_id: str) -> dict[str, str]:
        """The states of the images of a resource, by ARN."""
        client = self.account.images
        versions = client.list_images(owner="Self")["imageVersionList"]
        builds = [
            build
            for version in versions
            for build in client.list_image_build_versions(
                imageVersionArn="/".join(version["arn"].split("/")[:3])
            )["imageSummaryList"]
        ]
        own = {OwnTag.STACK: self.id, OwnTag.RESOURCE: logical_id}
        return {
            build["arn"]: build["state"]["status"]
            for build in builds
            if own.items() <= build.get("tags", {}).items()
        }


class Played(Resource):
    """A resource whose events are sent, and that is checked after each event."""

    def __init__(
        self,
        deployed: Deployed,
        properties: dict[str, Any],
        update_back: UpdateBack = UpdateBack.WITH_NEW_ID,
        policy: Policy = Policy.DESTROY,
        resource_type: ResourceType = ResourceType.IMAGE,
    ) -> None:
        super().__init__(self.deliver, self.supersede, update_back, policy)
        self.deployed = deployed
        self.stack_id, self.logical_id = deployed.id, f"Played{next(_numbers)}"
        self.first = properties
        self.resource_type = resource_type
        self.responses: list[Response] = []

    def deliver(self, event: Event) -> Response:
        self.responses.append(self.deployed.function.response(self._invoke(event)))
        return self.responses[-1]

    def supersede(self, running: Event, event: Event) -> Response:
        """Deliver an event while another one is handled."""
        before = len(self.deployed.executions())
        self._invoke(running)
        assert eventually(lambda: len(self.deployed.executions()) > before)
        time.sleep(0.3)
        return self.deliver(event)

    def _invoke(self, event: Event) -> str:
        return self.deployed.function.send({**event, "ResourceType": self.resource_type.value})

    def change(self, **changes: str) -> dict[str, Any]:
        return {**self.first, **checked(ImageProperty, changes)}

    def is_consistent(self) -> bool:
        """Whether exactly the image that CloudFormation knows exists and is usable."""
        eventually(lambda: not self.deployed.running_executions(), 30)
        images = self.deployed.images(self.logical_id)
        usable = (
            {"AVAILABLE"}
            if ImageProperty.TIMEOUT_SECONDS in self.first
            else {"AVAILABLE", "PENDING"}
        )
        known = {self.physical_id} if self.physical_id else set()
        return (
            set(images) - self.retained_ids == known
            and all(images[arn] in usable for arn in known)
            and not self.deployed.running_executions()
        )


@pytest.fixture(scope="module")
def deployed(
    local: LocalAws, account: Account, tmp_path_factory: pytest.TempPathFactory
) -> Deployed:
    local.knobs(import_seconds=60)
    return Deployed(account, tmp_path_factory.mktemp("order"))


@pytest.fixture(
    params=[pytest.param(False, id="at once"), pytest.param(True, id="waiting")],
)
def play(deployed: Deployed, request: pytest.FixtureRequest) -> Iterator[Callable[..., Played]]:
    """Return a function that returns an image whose events are played."""

    def play(
        update_back: UpdateBack = UpdateBack.WITH_NEW_ID, policy: Policy = Policy.DESTROY
    ) -> Played:
        properties = deployed.properties(policy, waits=request.param)
        return Played(deployed, properties, update_back, policy)

    yield play
    deployed.local.clear_faults()


def test_an_image_is_created_replaced_and_removed(play: Callable[..., Played]) -> None:
    resource = play()

    assert resource.create(resource.first)
    first = resource.physical_id
    assert resource.is_consistent()
    assert resource.update(resource.change(SemanticVersion="2.0.0"))
    assert resource.physical_id != first
    assert resource.is_consistent()
    resource.remove()
    assert resource.is_consistent()

    assert [response["Status"] for response in resource.responses] == ["SUCCESS"] * 4


def test_a_create_that_failed_is_deleted_by_the_id_of_its_response(
    play: Callable[..., Played],
) -> None:
    resource = play()
    resource.deployed.local.fault("imagebuilder", "ImportVmImage", error=DENIED, times=ALWAYS)

    assert not resource.create(resource.first)

    created, deleted = resource.responses
    assert "ImportVmImage failed: AccessDeniedException" in created["Reason"]
    assert deleted["PhysicalResourceId"] == created["PhysicalResourceId"]
    assert resource.is_consistent()


def test_a_created_image_is_deleted_when_another_resource_fails(
    play: Callable[..., Played],
) -> None:
    resource = play()

    assert not resource.create(resource.first, others_fail=True)

    assert [response["Status"] for response in resource.responses] == ["SUCCESS"] * 2
    assert resource.is_consistent()


def test_a_create_in_flight_is_deleted_by_an_id_that_cloudformation_invents(
    play: Callable[..., Played],
) -> None:
    resource = play()

    resource.create_and_cancel(resource.first)

    assert resource.responses[-1]["Status"] == "SUCCESS"
    assert resource.is_consistent()


@DOCUMENTED
@pytest.mark.slow
def test_rollback_of_a_replacement_keeps_the_original_image(
    play: Callable[..., Played], update_back: UpdateBack
) -> None:
    resource = play(update_back)
    resource.create(resource.first)
    first = resource.physical_id

    assert not resource.update(resource.change(SemanticVersion="2.0.0"), others_fail=True)

    assert resource.physical_id == first
    assert resource.is_consistent()


@DOCUMENTED
@pytest.mark.slow
def test_rollback_of_a_failed_update_deletes_by_the_id_of_its_response(
    play: Callable[..., Played], update_back: UpdateBack
) -> None:
    resource = play(update_back)
    resource.create(resource.first)
    first = resource.physical_id
    resource.deployed.local.fault("imagebuilder", "ImportVmImage", error=DENIED, times=ALWAYS)

    assert not resource.update(resource.change(SemanticVersion="2.0.0"))

    failed, back, deleted = resource.responses[1:]
    assert failed["PhysicalResourceId"] not in {first, back["PhysicalResourceId"]}
    assert deleted["PhysicalResourceId"] == failed["PhysicalResourceId"]
    assert resource.physical_id == first
    assert resource.is_consistent()


@pytest.mark.slow
def test_rollback_of_an_update_in_flight_keeps_the_original_image(
    play: Callable[..., Played],
) -> None:
    resource = play()
    resource.create(resource.first)
    first = resource.physical_id

    resource.update(resource.change(SemanticVersion="2.0.0"), in_flight=True)

    assert resource.physical_id == first
    assert resource.is_consistent()


@pytest.mark.slow
def test_a_delete_that_image_builder_refuses_fails_and_succeeds_when_it_is_sent_again(
    play: Callable[..., Played],
) -> None:
    resource = play()
    resource.create(resource.first)
    deployed = resource.deployed
    deployed.local.fault("imagebuilder", "DeleteImage", error=DENIED, times=ALWAYS)
    refused: Any = {"PhysicalResourceId": resource.physical_id}

    assert (
        resource.deliver(resource.event("Delete", resource.first, **refused))["Status"] == "FAILED"
    )
    deployed.local.clear_faults()
    resource.remove()

    assert resource.responses[-1]["Status"] == "SUCCESS"
    assert resource.is_consistent()


@pytest.mark.parametrize(
    ("policy", "retained"),
    [
        (Policy.DESTROY, 0),
        (Policy.RETAIN, 3),
        (Policy.RETAIN_ON_UPDATE_OR_DELETE, 2),
    ],
)
@pytest.mark.slow
def test_the_removal_policy_decides_which_images_are_retained(
    play: Callable[..., Played], policy: Policy, retained: int
) -> None:
    resource = play(policy=policy)
    resource.create(resource.first)
    resource.update(resource.change(SemanticVersion="2.0.0"))
    resource.update(resource.change(SemanticVersion="3.0.0"), others_fail=True)
    assert resource.is_consistent()

    resource.remove()

    assert resource.is_consistent()
    assert len(resource.deployed.images(resource.logical_id)) == retained


# --- links ---


@pytest.fixture
def never_ending(deployed: Deployed) -> Iterator[Played]:
    """An image that exists and is never AVAILABLE."""
    deployed.local.knobs(import_seconds=1000 * HOUR)
    image = Played(deployed, deployed.properties(Policy.DESTROY, waits=False))
    image.create(image.first)
    yield image
    image.remove()
    deployed.local.knobs(import_seconds=60)


def link_to(image: Played, deployed: Deployed) -> dict[str, Any]:
    """Properties of a link that waits for an image."""
    return {
        WaitProperty.IMAGE_ARN: image.physical_id,
        WaitProperty.VM_IMPORT_TASK_ID: image.first[ImageProperty.VM_IMPORT_TASK_ID],
        WaitProperty.IMPORT_FAILED: "false",
        WaitProperty.STATE_MACHINE_ARN: deployed.state_machine,
        WaitProperty.TIMEOUT_SECONDS: "3600",
        WaitProperty.CONTINUE_AFTER_TIMEOUT: "true",
    }


def waiting_executions(deployed: Deployed) -> int:
    """How many events are handled that CloudFormation waits for."""
    return sum(":follow-" not in arn for arn in deployed.running_executions())


def test_a_link_in_flight_is_stopped_when_another_resource_fails(
    deployed: Deployed, never_ending: Played
) -> None:
    link = Played(deployed, link_to(never_ending, deployed), resource_type=ResourceType.WAIT)

    link.create_and_cancel(link.first)

    assert link.responses[-1]["Status"] == "SUCCESS"
    assert eventually(lambda: waiting_executions(deployed) == 0)
    images = deployed.images(never_ending.logical_id)
    assert images == {never_ending.physical_id: "PENDING"}


def test_a_link_in_flight_that_is_rolled_back_to_the_original_image_responds_at_once(
    deployed: Deployed, never_ending: Played
) -> None:
    deployed.local.knobs(import_seconds=60)
    original = Played(deployed, deployed.properties(Policy.DESTROY, waits=True))
    original.create(original.first)
    link = Played(deployed, link_to(original, deployed), resource_type=ResourceType.WAIT)
    assert link.create(link.first)

    link.update(link_to(never_ending, deployed), in_flight=True)

    back = link.responses[-1]
    assert back["Status"] == "SUCCESS"
    assert back["Data"][WaitAttribute.IMAGE_ARN] == original.physical_id
    assert back["Data"][WaitAttribute.IMAGE_ID] == deployed.account.ami_of(
        str(original.physical_id)
    )
    assert eventually(lambda: waiting_executions(deployed) == 0)
