"""Lambda functions of custom resources: permissions, logs, responses, and retried events."""

from __future__ import annotations

import calendar
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from local_aws import LocalAwsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_aws import LocalAws

# Sends its response to CloudFormation until it is accepted, and logs what it does. An event without
# ResponseURL comes from a test, which reads what the function returns.
CODE = """
import json, logging, time, urllib.error, urllib.request
import boto3
def handler(event, context):
    logging.warning("%s begins", event["RequestType"])
    boto3.client("imagebuilder").list_images()
    if "ResponseURL" not in event:
        return
    print(event["ResponseURL"])
    print("writes to", context.log_group_name)
    response = {"Status": "SUCCESS", "PhysicalResourceId": "probe"}
    response |= {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")}
    while True:
        request = urllib.request.Request(
            event["ResponseURL"], json.dumps(response).encode(), method="PUT")
        try:
            urllib.request.urlopen(request)
            logging.warning("%s ends", event["RequestType"])
            return
        except urllib.error.HTTPError as error:
            logging.warning("refused with %s", error.code)
"""
LIST = {"Effect": "Allow", "Action": "imagebuilder:ListImages", "Resource": "*"}
LOG = {
    "Effect": "Allow",
    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
    "Resource": {"Fn::GetAtt": ["Log", "Arn"]},
}
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
NETWORK_INTERFACES = (
    "CreateNetworkInterface",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "DeleteNetworkInterface",
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
)


def _message(event: dict[str, Any]) -> str:
    return str(event["message"])


@dataclass
class Probe:
    """A stack with a function and a custom resource that it provides."""

    server: LocalAws
    name: str
    statements: list[dict[str, Any]] = field(default_factory=lambda: [LIST, LOG])
    trusted: str = "lambda.amazonaws.com"
    function: dict[str, Any] = field(default_factory=dict)
    asynchronous: dict[str, int] = field(default_factory=dict)
    has_custom_resource: bool = True

    def __post_init__(self) -> None:
        session: Any = self.server.session()
        self.queues = session.client("sqs")
        # Lambda sends here the events that it gives up.
        self.queue = self.queues.create_queue(QueueName=self.name[-80:])["QueueUrl"]
        self.cloudformation = session.client("cloudformation")
        self.functions = session.client("lambda")
        self.logs = session.client("logs")

    def template(self) -> str:
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
        trust |= {"Principal": {"Service": self.trusted}}  # type: ignore[dict-item]
        log = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": self.name}}
        role = {
            "AssumeRolePolicyDocument": {"Statement": [trust]},
            "Policies": [
                {"PolicyName": "p", "PolicyDocument": {"Statement": self.statements}},
            ],
        }
        function = {
            "Runtime": "python3.13",
            "Handler": "index.handler",
            "Code": {"ZipFile": CODE},
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "LoggingConfig": {"LogGroup": self.name},
            "Timeout": 60,
            **self.function,
        }
        token = {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}}
        given_up = self.queues.get_queue_attributes(
            QueueUrl=self.queue, AttributeNames=["QueueArn"]
        )["Attributes"]["QueueArn"]
        asynchronous = {
            "FunctionName": {"Ref": "Function"},
            "Qualifier": "$LATEST",
            "DestinationConfig": {"OnFailure": {"Destination": given_up}},
            **self.asynchronous,
        }
        resources: dict[str, Any] = {
            "Log": log,
            "Role": {"Type": "AWS::IAM::Role", "Properties": role},
            "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
            "Asynchronous": {"Type": "AWS::Lambda::EventInvokeConfig", "Properties": asynchronous},
        }
        if self.has_custom_resource:
            resources["Probe"] = {
                "Type": "Custom::Probe",
                "Properties": token,
                "DependsOn": "Asynchronous",
            }
        return json.dumps({"Resources": resources})

    def begin(self) -> None:
        """Begin to create the stack."""
        self.cloudformation.create_stack(
            StackName=self.name, TemplateBody=self.template(), Capabilities=["CAPABILITY_IAM"]
        )

    def create(self) -> str:
        """Create the stack and return its status."""
        self.begin()
        while True:
            (stack,) = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                return str(stack["StackStatus"])
            time.sleep(0.05)

    def reasons(self) -> str:
        events = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return " ".join(event.get("ResourceStatusReason", "") for event in events)

    def log(self, lines: int = 0) -> list[str]:
        """Wait until the function has logged so many lines, and return them."""
        while True:
            events = self.logs.filter_log_events(logGroupName=self.name)["events"]
            log = [line.rpartition("\t")[2] for line in map(_message, events) if "WARNING" in line]
            if len(log) >= lines:
                return log
            time.sleep(0.05)

    def signed(self) -> int:
        """Return when the ResponseURL of the event was signed, in seconds since 1970."""
        self.log(2)
        events = self.logs.filter_log_events(logGroupName=self.name)["events"]
        (url,) = (line.strip() for line in map(_message, events) if "https://" in line)
        date = time.strptime(url.partition("?X-Amz-Date=")[2], "%Y%m%dT%H%M%SZ")
        return calendar.timegm(date)

    def wait_until_given_up(self) -> None:
        """Wait until Lambda has given up an event."""
        while not self.queues.receive_message(QueueUrl=self.queue).get("Messages"):
            time.sleep(0.05)


@pytest.fixture
def probe(enforcing: LocalAws, request: pytest.FixtureRequest) -> Iterator[Probe]:
    yield Probe(enforcing, "".join(c for c in request.node.name if c.isalnum())[-100:])
    enforcing.clear_faults()


def test_what_a_function_logs_reaches_its_log_group(probe: Probe) -> None:
    assert probe.create() == "CREATE_COMPLETE"
    assert probe.log(2) == ["Create begins", "Create ends"]


def test_a_function_knows_the_log_group_that_it_writes_to(probe: Probe) -> None:
    assert probe.create() == "CREATE_COMPLETE"
    probe.log(2)
    events = probe.logs.filter_log_events(logGroupName=probe.name)["events"]
    assert f"writes to {probe.name}" in [event["message"].strip() for event in events]


def test_stack_events_and_lines_of_a_log_have_aws_time(probe: Probe) -> None:
    probe.server.advance(3600)
    begun = probe.server.now()
    assert probe.create() == "CREATE_COMPLETE"
    probe.log(2)
    lines = probe.logs.filter_log_events(logGroupName=probe.name)["events"]
    events = probe.cloudformation.describe_stack_events(StackName=probe.name)["StackEvents"]
    (stack,) = probe.cloudformation.describe_stacks(StackName=probe.name)["Stacks"]
    dates = [line["timestamp"] / 1000 for line in lines]
    dates += [event["Timestamp"].timestamp() for event in events]
    dates += [stack["CreationTime"].timestamp()]
    # CloudWatch and CloudFormation write whole milliseconds.
    assert begun - 0.001 <= min(dates) <= max(dates) <= probe.server.now()


def test_the_response_url_contains_when_the_event_was_sent(probe: Probe) -> None:
    begun = int(probe.server.now())
    assert probe.create() == "CREATE_COMPLETE"
    assert begun <= probe.signed() <= probe.server.now()


def test_the_response_url_can_be_signed_before_the_event_is_sent(probe: Probe) -> None:
    probe.server.knobs(response_url_age_seconds=86400)
    try:
        begun = int(probe.server.now())
        assert probe.create() == "CREATE_COMPLETE"
        assert begun - 86400 <= probe.signed() <= probe.server.now() - 86400
    finally:
        probe.server.knobs(response_url_age_seconds=0)


def test_a_function_whose_role_may_not_log_logs_nothing(probe: Probe) -> None:
    probe.statements = [LIST]
    assert probe.create() == "CREATE_COMPLETE"
    assert probe.log() == []


def test_a_function_may_do_what_its_role_allows_and_no_more(probe: Probe) -> None:
    probe.statements, probe.has_custom_resource = [LOG], False
    name = probe.function["FunctionName"] = probe.name[-60:]
    assert probe.create() == "CREATE_COMPLETE"
    payload = json.dumps({"RequestType": "Test"})
    invoked = probe.functions.invoke(FunctionName=name, Payload=payload)
    assert "AccessDeniedException" in json.load(invoked["Payload"])["errorMessage"]


def test_a_function_with_a_role_that_lambda_cannot_assume_is_not_created(probe: Probe) -> None:
    probe.trusted = "ec2.amazonaws.com"
    assert probe.create() == "ROLLBACK_COMPLETE"
    assert "cannot be assumed by Lambda" in probe.reasons()


@pytest.mark.parametrize("action", NETWORK_INTERFACES)
def test_a_function_in_a_vpc_needs_a_role_that_may_manage_network_interfaces(
    probe: Probe, action: str
) -> None:
    allowed = [f"ec2:{other}" for other in NETWORK_INTERFACES if other != action]
    probe.statements = [*probe.statements, {**LOG, "Action": allowed, "Resource": "*"}]
    probe.function = {"VpcConfig": {"SubnetIds": ["subnet-0"], "SecurityGroupIds": ["sg-0"]}}
    assert probe.create() == "ROLLBACK_COMPLETE"
    assert f"does not have permissions to call {action} on EC2" in probe.reasons()


@pytest.mark.parametrize("status", [403, 500])
def test_a_response_may_be_refused(probe: Probe, status: int) -> None:
    error = {"code": "AccessDenied", "message": "", "status": status}
    probe.server.fault("cloudformation", "ResponseURL", times=2, error=error)
    assert probe.create() == "CREATE_COMPLETE"
    refused = [f"refused with {status}"] * 2
    assert probe.log(4) == ["Create begins", *refused, "Create ends"]


def test_a_response_may_be_accepted_without_confirmation(probe: Probe) -> None:
    probe.server.fault("cloudformation", "ResponseURL", lose_answer=True)
    assert probe.create() == "CREATE_COMPLETE"
    assert probe.log(3) == ["Create begins", "refused with 500", "Create ends"]


def test_a_response_may_be_delayed(probe: Probe) -> None:
    probe.server.fault("cloudformation", "ResponseURL", delay=1)
    begun = time.monotonic()
    assert probe.create() == "CREATE_COMPLETE"
    assert time.monotonic() - begun > 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_event_of_a_killed_function_is_retried(probe: Probe, when: str) -> None:
    probe.server.fault("imagebuilder", "ListImages", kill=when)
    calls = len(probe.server.calls("ListImages"))
    assert probe.create() == "CREATE_COMPLETE"
    assert len(probe.server.calls("ListImages")) - calls == 2
    assert probe.log(2).count("Create begins") == 2


@pytest.mark.parametrize(
    ("asynchronous", "times"),
    [
        ({}, 3),
        ({"MaximumRetryAttempts": 0}, 1),
        ({"MaximumRetryAttempts": 1}, 2),
        ({"MaximumEventAgeInSeconds": 60}, 1),
    ],
    ids=str,
)
def test_a_failing_event_is_retried_up_to_its_limits(
    probe: Probe, asynchronous: dict[str, int], times: int
) -> None:
    probe.asynchronous = asynchronous
    probe.server.fault("imagebuilder", "ListImages", times=9, kill="before")
    calls = len(probe.server.calls("ListImages"))
    probe.begin()
    probe.wait_until_given_up()
    assert len(probe.server.calls("ListImages")) - calls == times


@pytest.mark.parametrize("is_too_old", [False, True])
def test_a_throttled_event_is_retried_until_it_is_too_old(
    server: LocalAws, *, is_too_old: bool
) -> None:
    probe = Probe(server, f"Throttled{is_too_old}")
    probe.asynchronous = {"MaximumEventAgeInSeconds": 6 * 3600, "MaximumRetryAttempts": 0}
    probe.function = {"FunctionName": (name := probe.name[-60:])}
    assert probe.create() == "CREATE_COMPLETE"
    probe.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    probe.functions.invoke(
        FunctionName=name, InvocationType="Event", Payload=json.dumps({"RequestType": "Late"})
    )
    if is_too_old:
        probe.server.advance(7 * 3600)
        probe.wait_until_given_up()
    probe.functions.delete_function_concurrency(FunctionName=name)
    if is_too_old:
        assert probe.log(2) == ["Create begins", "Create ends"]
    else:
        assert probe.log(3)[2] == "Late begins"


def test_an_event_may_be_delivered_twice(probe: Probe) -> None:
    probe.server.fault("cloudformation", "CustomResourceEvent", duplicate=True)
    assert probe.create() == "CREATE_COMPLETE"
    assert sorted(probe.log(4)) == ["Create begins"] * 2 + ["Create ends"] * 2


@pytest.mark.parametrize(
    ("service", "operation", "what"),
    [
        ("imagebuilder", "GetImage", {"duplicate": True}),
        ("imagebuilder", "GetImage", {"kill": "during"}),
        ("cloudformation", "CustomResourceEvent", {"delay": 1}),
    ],
)
def test_a_fault_that_does_not_fit_its_operation_is_refused(
    enforcing: LocalAws, service: str, operation: str, what: dict[str, object]
) -> None:
    with pytest.raises(LocalAwsError):
        enforcing.fault(service, operation, **what)
