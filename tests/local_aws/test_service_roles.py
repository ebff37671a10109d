"""The key of an encrypted state machine: its role and its caller must be able to use it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_aws.account import policy, refused
from tests.local_aws.custom_resources import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws

_numbers = itertools.count()
CONTEXT = "kms:EncryptionContext:aws:states:stateMachineArn"
TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "states.amazonaws.com", "AWS": "*"},
    "Action": "sts:AssumeRole",
}
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:any"


class Machine:
    """An encrypted state machine, and a caller that may start its executions."""

    def __init__(self, server: LocalAws) -> None:
        session: Any = server.session()
        self._session, self._iam = session, session.client("iam")
        self._states = session.client("stepfunctions")
        self._name = f"encrypted-{next(_numbers)}"
        self.key = session.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.arn = f"arn:aws:states:us-east-1:123456789012:stateMachine:{self._name}"
        self._role("machine")
        self._role("caller")

    def _role(self, who: str) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": [TRUST]})
        self._iam.create_role(RoleName=f"{self._name}-{who}", AssumeRolePolicyDocument=document)

    def allow(self, who: str, *actions: str, key_of: str = "") -> None:
        """Allow a role the use of the key, for this state machine or for another one."""
        states = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": "*"}
        function = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "*"}
        when = {"StringEquals": {CONTEXT: key_of or self.arn}}
        use = {"Effect": "Allow", "Action": list(actions), "Resource": self.key, "Condition": when}
        self._iam.put_role_policy(
            RoleName=f"{self._name}-{who}",
            PolicyName="p",
            PolicyDocument=policy(states, function, *([use] if actions else [])),
        )

    def start(self) -> str:
        """Start an execution as the caller; return why it failed."""
        task = {"Type": "Task", "Resource": FUNCTION, "End": True}
        self._states.create_state_machine(
            name=self._name,
            definition=json.dumps({"StartAt": "Run", "States": {"Run": task}}),
            roleArn=f"arn:aws:iam::123456789012:role/{self._name}-machine",
            encryptionConfiguration={"type": "CUSTOMER_MANAGED_KMS_KEY", "kmsKeyId": self.key},
        )
        keys = self._session.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::123456789012:role/{self._name}-caller", RoleSessionName="caller"
        )["Credentials"]
        caller: Any = self._session.client(
            "stepfunctions",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
        )
        arn = caller.start_execution(stateMachineArn=self.arn)["executionArn"]

        def describe() -> dict[str, Any]:
            return dict(self._states.describe_execution(executionArn=arn))

        assert eventually(lambda: describe()["status"] != "RUNNING")
        return str(describe().get("cause"))


@pytest.fixture
def machine(enforcing: LocalAws) -> Iterator[Machine]:
    before = enforcing.knobs()
    yield Machine(enforcing)
    enforcing.knobs(**before)


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:GenerateDataKey"])
def test_the_role_of_an_encrypted_state_machine_needs_its_key(
    machine: Machine, action: str
) -> None:
    (other,) = {"kms:Decrypt", "kms:GenerateDataKey"} - {action}
    machine.allow("machine", other)
    machine.allow("caller", "kms:Decrypt", "kms:GenerateDataKey")

    assert f"is not authorized to perform: {action} on {machine.key}" in machine.start()


def test_a_key_for_another_state_machine_does_not_suffice(machine: Machine) -> None:
    both = ("kms:Decrypt", "kms:GenerateDataKey")
    machine.allow("machine", *both, key_of="arn:aws:states:us-east-1:123456789012:stateMachine:o")
    machine.allow("caller", *both)

    assert "is not authorized to perform: kms:" in machine.start()


@pytest.mark.parametrize("checks", [True, False])
def test_the_caller_of_an_encrypted_state_machine_may_need_its_key(
    enforcing: LocalAws, machine: Machine, *, checks: bool
) -> None:
    enforcing.knobs(state_machine_key_checks_caller=checks)
    machine.allow("machine", "kms:Decrypt", "kms:GenerateDataKey")
    machine.allow("caller")

    if checks:
        assert refused(machine.start)[0] == "KmsAccessDeniedException"
    else:
        assert "kms" not in machine.start()
