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
        self.states = session.client("stepfunctions")
        self._name = f"encrypted-{next(_numbers)}"
        self.kms = session.client("kms")
        self.key = self.kms.create_key()["KeyMetadata"]["Arn"]
        self.arn = f"arn:aws:states:us-east-1:123456789012:stateMachine:{self._name}"
        self._role("machine")
        self._role("caller")

    def _role(self, who: str) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": [TRUST]})
        self._iam.create_role(RoleName=self.role(who), AssumeRolePolicyDocument=document)

    def allow(self, who: str, *actions: str, key_of: str = "") -> None:
        """Allow a role the use of the key, for this state machine or for another one."""
        states = {"Effect": "Allow", "Action": ["states:*", "iam:PassRole"], "Resource": "*"}
        function = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "*"}
        # kms:DescribeKey has no encryption context.
        when = {"StringEqualsIfExists": {CONTEXT: key_of or self.arn}}
        use = {"Effect": "Allow", "Action": list(actions), "Resource": self.key, "Condition": when}
        self._iam.put_role_policy(
            RoleName=self.role(who),
            PolicyName="p",
            PolicyDocument=policy(states, function, *([use] if actions else [])),
        )

    def role(self, who: str) -> str:
        return f"{self._name}-{who}"

    def role_arn(self, who: str) -> str:
        return f"arn:aws:iam::123456789012:role/{self.role(who)}"

    def definition(self) -> dict[str, Any]:
        task = {"Type": "Task", "Resource": FUNCTION, "End": True}
        return {
            "definition": json.dumps({"StartAt": "Run", "States": {"Run": task}}),
            "encryptionConfiguration": {"type": "CUSTOMER_MANAGED_KMS_KEY", "kmsKeyId": self.key},
        }

    def create(self, states: Any) -> None:
        role = self.role_arn("machine")
        states.create_state_machine(name=self._name, roleArn=role, **self.definition())

    def execution(self) -> str:
        """Create the state machine and an execution as the account's root."""
        self.create(self.states)
        return str(self.states.start_execution(stateMachineArn=self.arn)["executionArn"])

    def call(self, operation: str, execution: str) -> None:
        """Call an operation of Step Functions as the caller."""
        call = getattr(self.caller(), operation)
        if operation in ("describe_execution", "get_execution_history"):
            call(executionArn=execution)
        elif operation == "update_state_machine":
            call(stateMachineArn=self.arn, **self.definition())
        else:
            call(stateMachineArn=self.arn)

    def caller(self) -> Any:
        keys = self._session.client("sts").assume_role(
            RoleArn=self.role_arn("caller"), RoleSessionName="caller"
        )["Credentials"]
        return self._session.client(
            "stepfunctions",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
        )

    def start(self) -> str:
        """Start an execution as the caller; return why it failed."""
        self.create(self.states)
        arn = self.caller().start_execution(stateMachineArn=self.arn)["executionArn"]

        def describe() -> dict[str, Any]:
            return dict(self.states.describe_execution(executionArn=arn))

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


READS = ["describe_execution", "get_execution_history", "describe_state_machine"]


@pytest.mark.parametrize("operation", READS)
def test_a_read_of_an_encrypted_state_machine_needs_to_decrypt(
    machine: Machine, operation: str
) -> None:
    machine.allow("caller", "kms:GenerateDataKey")
    execution = machine.execution()

    assert refused(lambda: machine.call(operation, execution))[0] == "KmsAccessDeniedException"
    machine.allow("caller", "kms:Decrypt")
    machine.call(operation, execution)


def test_metadata_of_an_encrypted_state_machine_can_be_read_without_its_key(
    machine: Machine,
) -> None:
    machine.allow("caller")
    machine.create(machine.states)

    machine.caller().describe_state_machine(
        stateMachineArn=machine.arn, includedData="METADATA_ONLY"
    )


@pytest.mark.parametrize("action", ["kms:DescribeKey", "kms:GenerateDataKey"])
def test_who_creates_or_updates_an_encrypted_state_machine_needs_its_key(
    machine: Machine, action: str
) -> None:
    (other,) = {"kms:DescribeKey", "kms:GenerateDataKey"} - {action}
    machine.allow("caller", other)

    def update() -> None:
        machine.call("update_state_machine", "")

    refusals = [refused(lambda: machine.create(machine.caller()))]
    machine.create(machine.states)
    refusals.append(refused(update))
    for code, _, message in refusals:
        assert (code, action in message) == ("KmsAccessDeniedException", True)
    machine.allow("caller", action, other)
    update()


@pytest.mark.parametrize("operation", [*READS, "start_execution"])
def test_a_disabled_key_of_a_state_machine_is_in_an_invalid_state(
    machine: Machine, operation: str
) -> None:
    machine.allow("caller", "kms:Decrypt", "kms:GenerateDataKey")
    execution = machine.execution()
    machine.kms.disable_key(KeyId=machine.key)

    with pytest.raises(machine.states.exceptions.KmsInvalidStateException) as error:
        machine.call(operation, execution)

    assert error.value.response["kmsKeyState"] == "DISABLED"


def test_a_state_machine_cannot_be_created_or_updated_with_an_inactive_key(
    machine: Machine,
) -> None:
    machine.create(machine.states)
    machine.kms.disable_key(KeyId=machine.key)
    update = machine.states.update_state_machine

    code = refused(lambda: update(stateMachineArn=machine.arn, **machine.definition()))[0]
    assert code == "InvalidEncryptionConfiguration"
    machine.states.delete_state_machine(stateMachineArn=machine.arn)
    code = refused(lambda: machine.create(machine.states))[0]
    assert code == "InvalidEncryptionConfiguration"
    machine.key = machine.key.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
    code = refused(lambda: machine.create(machine.states))[0]
    assert code == "InvalidEncryptionConfiguration"


def test_the_policy_of_the_key_must_allow_its_use_too(machine: Machine) -> None:
    both = ("kms:Decrypt", "kms:GenerateDataKey")
    machine.allow("machine", *both)
    machine.allow("caller", *both)
    caller = {"AWS": machine.role_arn("caller")}
    root = {"AWS": "arn:aws:iam::123456789012:root"}
    statements = [
        {"Effect": "Allow", "Principal": root, "Action": "kms:Put*", "Resource": "*"},
        {"Effect": "Allow", "Principal": caller, "Action": "kms:*", "Resource": "*"},
    ]
    machine.kms.put_key_policy(KeyId=machine.key, Policy=policy(*statements))

    assert f"is not authorized to perform: kms:Decrypt on {machine.key}" in machine.start()
    machine.kms.put_key_policy(KeyId=machine.key, Policy=policy(statements[0]))
    assert refused(machine.start)[0] == "KmsAccessDeniedException"
