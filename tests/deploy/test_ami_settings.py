"""The settings of an AMI through a life of its stack, with the real CDK CLI and IAM enforced."""

from __future__ import annotations

import json
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from contract import AMI_SETTINGS_TAG
from local_aws.client.cdk_cli import CdkCli, CdkError
from local_aws.client.environment import CHECKOUT
from tests.deploy.deployed import StackView

if TYPE_CHECKING:
    from pathlib import Path

    from local_aws import LocalAws
    from tests.deploy.deployed import Account

pytestmark = pytest.mark.slow

APP: Final = CHECKOUT / "tests/deploy/ami_settings_app.py"
A, B, C, PERSON = (f"{n}11122223333" for n in range(1, 5))


class Stack:
    """A stack of one image, whose settings change."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.name = f"Settings{uuid.uuid4().hex[:8]}"
        self.view = StackView(account, self.name)
        self._account = account
        self._cdk = CdkCli(account.local, folder, app=f"{sys.executable} {APP}")
        self.task = account.import_image()

    def deploy(self, settings: dict[str, dict[str, Any]], **context: str) -> None:
        self._cdk.deploy(stack=self.name, task=self.task, settings=json.dumps(settings), **context)

    def destroy(self) -> None:
        self._cdk.destroy(stack=self.name, task=self.task, settings=json.dumps({}))

    def image_id(self) -> str:
        """The AMI that the stack outputs."""
        found = self._account.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        outputs = {o["OutputKey"]: o["OutputValue"] for o in found[0]["Outputs"]}
        return str(outputs["ImageId"])


def ami(account: Account, ami_id: str) -> dict[str, Any]:
    """An AMI with its launch permissions, or nothing if it does not exist."""
    wanted: Any = [{"Name": "image-id", "Values": [ami_id]}]
    found = account.ec2.describe_images(Filters=wanted)["Images"]
    if not found:
        return {}
    shared = account.ec2.describe_image_attribute(ImageId=ami_id, Attribute="launchPermission")
    return {**found[0], "Accounts": {p["UserId"] for p in shared["LaunchPermissions"]}}


def share(account: Account, ami_id: str, change: str) -> None:
    """Have a person add or remove a launch permission."""
    account.ec2.modify_image_attribute(
        ImageId=ami_id, LaunchPermission={change: [{"UserId": PERSON}]}
    )


@pytest.fixture
def stack(local: LocalAws, account: Account, tmp_path: Path) -> Stack:
    # CloudFormation cleans up minutes after an update, in either order.
    local.knobs(clean_up_seconds=120, import_seconds=120)
    return Stack(account, tmp_path)


def test_settings_are_deployed_changed_rolled_back_renamed_replaced_and_removed(
    account: Account, local: LocalAws, stack: Stack
) -> None:
    date = datetime.fromtimestamp(local.now(), UTC) + timedelta(days=365)
    deprecated = {"deprecation_date": date.isoformat()}
    before = {"account_ids": [A, B], "imds_support": "v2.0", **deprecated}

    # deployed
    stack.deploy({"Sharing": before})
    first = stack.image_id()
    found = ami(account, first)
    assert found["Accounts"] == {A, B}
    assert found["ImdsSupport"] == "v2.0"
    assert found["DeprecationTime"] == f"{date:%Y-%m-%dT%H:%M:00.000Z}"

    # rolled back
    share(account, first, "Add")
    with pytest.raises(CdkError):
        stack.deploy({"Sharing": {"account_ids": [B, C, PERSON]}}, fail="yes")
    assert stack.view.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert ami(account, first)["Accounts"] == {A, B, PERSON}
    assert ami(account, first)["DeprecationTime"] == found["DeprecationTime"]

    # changed
    stack.deploy({"Sharing": {"account_ids": [B, C]}})
    assert ami(account, first)["Accounts"] == {B, C, PERSON}
    assert "DeprecationTime" not in ami(account, first)

    # renamed
    stack.deploy({"Renamed": {"account_ids": [B]}})
    assert ami(account, first)["Accounts"] == {B, PERSON}

    # removed: the function may still undo what it set
    stack.deploy({})
    found = ami(account, first)
    assert found["Accounts"] == {PERSON}
    assert not [tag for tag in found["Tags"] if tag["Key"].startswith(AMI_SETTINGS_TAG)]

    # replaced, with an AMI that is deleted although the settings share it
    share(account, first, "Remove")
    stack.deploy({"Sharing": {"account_ids": [A]}})
    stack.task = account.import_image()
    stack.deploy({"Sharing": {"account_ids": [A]}})
    second = stack.image_id()
    assert second != first
    assert ami(account, second)["Accounts"] == {A}
    assert ami(account, first) == {}

    stack.destroy()
    assert ami(account, second) == {}
    assert stack.view.left_of_stack() == []


def test_an_ami_that_may_not_be_shared_fails_the_deployment_and_leaves_nothing(
    local: LocalAws, stack: Stack
) -> None:
    error = {"code": "UnauthorizedOperation", "message": "a policy denies it", "status": 403}
    local.fault("ec2", "ModifyImageAttribute", error=error, times=1000)

    with pytest.raises(CdkError):
        stack.deploy({"Sharing": {"account_ids": [A]}})
    local.clear_faults()

    assert "ModifyImageAttribute failed: UnauthorizedOperation" in stack.view.failures()
    assert stack.view.status() == "ROLLBACK_COMPLETE"
    stack.destroy()
    assert stack.view.left_of_stack() == []
