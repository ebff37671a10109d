"""The order of events that CloudFormation documents, played against the deployed function.

The local CloudFormation has an order of its own; see tests/lifecycle/cloudformation_driver.py. So
that driver sends the events, as CloudFormation does: by an asynchronous invocation, with a
presigned URL for the answer. The resource is one of a stack that the real CDK CLI deployed, with
its function, its permissions and, where something waits, its state machine.
"""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config

from local_aws.client.cdk_cli import CdkCli
from tests.deploy.waiting_app import synthesize
from tests.lifecycle.cloudformation_driver import Order, Policy, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local_aws import LocalAws
    from tests.deploy.conftest import Account
    from tests.lifecycle.cloudformation_driver import Event, Response

_numbers = itertools.count()
BUCKET = "cloudformation-custom-resource-response"
DENIED = {"code": "AccessDeniedException", "message": "no", "status": 403}
DOCUMENTED = pytest.mark.parametrize(
    "order", [Order.DOCUMENTED, Order.DOCUMENTED_OLD_ID], ids=["new id", "old id"]
)


class Deployed:
    """A deployed stack, and what CloudFormation would send to its function."""

    def __init__(self, local: LocalAws, account: Account, folder: Path, *, waits: bool) -> None:
        self.local = local
        self._account = account
        clients: Any = local.session().client
        self._images, self._lambda, self._step_functions = map(
            clients, ("imagebuilder", "lambda", "stepfunctions")
        )
        self._s3 = clients("s3", config=Config(signature_version="s3v4"))
        self._s3.create_bucket(Bucket=BUCKET)
        name = "OrderWaiting" if waits else "Order"
        image = {
            "image_name": name.lower(),
            "semantic_version": "1.0.0",
            "vm_import_task_id": account.import_image(),
            "wait_for_available": waits,
        }
        CdkCli(local, folder, app=synthesize(folder / name, name, image, fail=False)).deploy()
        resources = clients("cloudformation").describe_stack_resources(StackName=name)
        self.stack_id = resources["StackResources"][0]["StackId"]
        ids = {r["ResourceType"]: r["PhysicalResourceId"] for r in resources["StackResources"]}
        self.function = ids["AWS::Lambda::Function"]
        self.state_machine = ids["AWS::StepFunctions::StateMachine"]
        self.waiting = {"TimeoutSeconds": "3480"} if waits else {}

    def properties(self, policy: Policy) -> dict[str, Any]:
        """Properties of an image that no other test has, as the construct sends them."""
        properties = {
            "Name": f"order-{next(_numbers)}",
            "SemanticVersion": "1.0.0",
            "Platform": "Linux",
            "VmImportTaskId": self._account.import_image(),
            "Waiter": self.state_machine,
            **self.waiting,
        }
        return properties | ({} if policy is Policy.DESTROY else {"Retain": "true"})

    def invoke(self, event: Event) -> str:
        """Send an event as CloudFormation does; return where its answer will be."""
        key = f"{event['StackId']}|{event['LogicalResourceId']}|{event['RequestId']}"
        url = self._s3.generate_presigned_url(
            "put_object", Params={"Bucket": BUCKET, "Key": key}, ExpiresIn=7200
        )
        payload = json.dumps({**event, "ResponseURL": url})
        self._lambda.invoke(FunctionName=self.function, InvocationType="Event", Payload=payload)
        return key

    def answer(self, key: str) -> Response:
        """The answer, as soon as it is there."""
        end = time.monotonic() + 120
        while True:
            try:
                return dict(json.load(self._s3.get_object(Bucket=BUCKET, Key=key)["Body"]))
            except self._s3.exceptions.NoSuchKey:
                assert time.monotonic() < end, "an event was not answered"
                time.sleep(0.1)

    def images(self, logical_id: str) -> dict[str, str]:
        """The states of a resource's images, by ARN."""
        versions = self._images.list_images(owner="Self")["imageVersionList"]
        builds = [
            build
            for version in versions
            for build in self._images.list_image_build_versions(
                imageVersionArn="/".join(version["arn"].split("/")[:3])
            )["imageSummaryList"]
        ]
        own = {"cdk-vm-import:stack": self.stack_id, "cdk-vm-import:resource": logical_id}
        return {
            build["arn"]: build["state"]["status"]
            for build in builds
            if own.items() <= build.get("tags", {}).items()
        }

    def running(self) -> list[str]:
        """The executions that still wait for something."""
        listed = self._step_functions.list_executions(
            stateMachineArn=self.state_machine, statusFilter="RUNNING"
        )
        return [execution["name"] for execution in listed["executions"]]


class Played(Resource):
    """A resource whose life is played, and looked at after each event."""

    def __init__(self, deployed: Deployed, order: Order, policy: Policy) -> None:
        super().__init__(self.deliver, self.overtake, order, policy)
        self.deployed = deployed
        self.stack_id, self.logical_id = deployed.stack_id, f"Played{next(_numbers)}"
        self.first = deployed.properties(policy)
        self.answers: list[Response] = []

    def deliver(self, event: Event) -> Response:
        self.answers.append(self.deployed.answer(self.deployed.invoke(event)))
        return self.answers[-1]

    def overtake(self, running: Event, event: Event) -> Response:
        """An event while another one is handled."""
        self.deployed.invoke(running)
        time.sleep(0.3)
        return self.deliver(event)

    def change(self, **changes: str) -> dict[str, Any]:
        return {**self.first, **changes}

    def in_order(self) -> bool:
        """Whether there is the image that CloudFormation knows, alive, and none besides."""
        end = time.monotonic() + 20
        while self.deployed.running() and time.monotonic() < end:
            time.sleep(0.1)
        images = self.deployed.images(self.logical_id)
        usable = {"AVAILABLE"} if self.deployed.waiting else {"AVAILABLE", "PENDING"}
        known = {self.physical_id} if self.physical_id else set()
        return (
            set(images) - self.retained_ids == known
            and all(images[arn] in usable for arn in known)
            and not self.deployed.running()
        )


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="at once"),
        # a deployment of its own
        pytest.param(True, id="waiting", marks=pytest.mark.slow),
    ],
)
def deployed(
    request: pytest.FixtureRequest,
    local: LocalAws,
    account: Account,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    before = local.knobs()
    local.knobs(import_seconds=60)  # a second
    yield Deployed(local, account, tmp_path_factory.mktemp("order"), waits=request.param)
    local.knobs(import_seconds=before["import_seconds"])


@pytest.fixture
def play(deployed: Deployed) -> Iterator[Callable[..., Played]]:
    def play(order: Order = Order.DOCUMENTED, policy: Policy = Policy.DESTROY) -> Played:
        return Played(deployed, order, policy)

    yield play
    deployed.local.clear_faults()


def test_an_image_is_created_replaced_and_removed(play: Callable[..., Played]) -> None:
    resource = play()

    assert resource.create(resource.first)
    first = resource.physical_id
    assert resource.in_order()
    assert resource.update(resource.change(SemanticVersion="2.0.0"))
    assert resource.physical_id != first
    assert resource.in_order()
    resource.remove()
    assert resource.in_order()

    assert [answer["Status"] for answer in resource.answers] == ["SUCCESS"] * 4


def test_a_create_that_failed_is_deleted_by_its_answers_id(play: Callable[..., Played]) -> None:
    resource = play()
    resource.deployed.local.fault("imagebuilder", "ImportVmImage", error=DENIED)

    assert not resource.create(resource.first)

    created, deleted = resource.answers
    assert "ImportVmImage failed: AccessDeniedException" in created["Reason"]
    assert deleted["PhysicalResourceId"] == created["PhysicalResourceId"]
    assert resource.in_order()


def test_a_create_that_others_failed_with_is_deleted(play: Callable[..., Played]) -> None:
    resource = play()

    assert not resource.create(resource.first, others_fail=True)

    assert [answer["Status"] for answer in resource.answers] == ["SUCCESS"] * 2
    assert resource.in_order()


def test_a_create_in_flight_is_deleted_by_an_id_that_cloudformation_invents(
    play: Callable[..., Played],
) -> None:
    resource = play()

    resource.create_and_cancel(resource.first)

    assert resource.answers[-1]["Status"] == "SUCCESS"
    assert resource.in_order()


@DOCUMENTED
@pytest.mark.slow
def test_a_rolled_back_replacement_comes_back_to_the_very_image(
    play: Callable[..., Played], order: Order
) -> None:
    resource = play(order)
    resource.create(resource.first)
    first = resource.physical_id

    assert not resource.update(resource.change(SemanticVersion="2.0.0"), others_fail=True)

    assert resource.physical_id == first
    assert resource.in_order()


@DOCUMENTED
@pytest.mark.slow
def test_an_update_that_failed_with_a_new_id_is_rolled_back_and_cleaned_up_by_that(
    play: Callable[..., Played], order: Order
) -> None:
    resource = play(order)
    resource.create(resource.first)
    first = resource.physical_id
    resource.deployed.local.fault("imagebuilder", "ImportVmImage", error=DENIED)

    assert not resource.update(resource.change(SemanticVersion="2.0.0"))

    failed, back, deleted = resource.answers[1:]
    assert failed["PhysicalResourceId"] not in {first, back["PhysicalResourceId"]}
    assert deleted["PhysicalResourceId"] == failed["PhysicalResourceId"]
    assert resource.physical_id == first
    assert resource.in_order()


@pytest.mark.slow
def test_an_update_in_flight_that_is_rolled_back_leaves_the_old_image(
    play: Callable[..., Played],
) -> None:
    resource = play()
    resource.create(resource.first)
    first = resource.physical_id

    resource.update(resource.change(SemanticVersion="2.0.0"), in_flight=True)

    assert resource.physical_id == first
    assert resource.in_order()


@pytest.mark.slow
def test_a_delete_that_aws_refuses_twice_succeeds_the_third_time(
    play: Callable[..., Played],
) -> None:
    resource = play()
    resource.create(resource.first)
    resource.deployed.local.fault("imagebuilder", "DeleteImage", error=DENIED, times=2)

    resource.remove()

    statuses = [answer["Status"] for answer in resource.answers[1:]]
    assert statuses == ["FAILED", "FAILED", "SUCCESS"]
    assert resource.in_order()


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (Policy.DESTROY, 0),
        (Policy.RETAIN, 3),
        (Policy.RETAIN_ON_UPDATE_OR_DELETE, 2),
    ],
)
@pytest.mark.slow
def test_the_policy_says_what_stays_of_what_was_replaced_removed_or_new(
    play: Callable[..., Played], policy: Policy, kept: int
) -> None:
    resource = play(policy=policy)
    resource.create(resource.first)
    resource.update(resource.change(SemanticVersion="2.0.0"))
    resource.update(resource.change(SemanticVersion="3.0.0"), others_fail=True)
    assert resource.in_order()

    resource.remove()

    assert resource.in_order()
    assert len(resource.deployed.images(resource.logical_id)) == kept
