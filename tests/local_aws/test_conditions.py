"""Conditions of CloudFormation templates."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import boto3

_numbers = itertools.count()


def output(session: boto3.Session, joined: Any, **values: str) -> str:
    """Return the output of a stack that depends on whether joined values are empty."""
    template = {
        "Parameters": {name: {"Type": "CommaDelimitedList", "Default": ""} for name in "AB"},
        "Conditions": {"Empty": {"Fn::Equals": ["", {"Fn::Join": ["", joined]}]}},
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"Is": {"Value": {"Fn::If": ["Empty", "empty", "full"]}}},
    }
    client: Any = session.client("cloudformation")
    name = f"conditions-{next(_numbers)}"
    parameters = [{"ParameterKey": k, "ParameterValue": v} for k, v in values.items()]
    client.create_stack(StackName=name, TemplateBody=json.dumps(template), Parameters=parameters)
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    return str(stack["Outputs"][0]["OutputValue"])


@pytest.mark.parametrize(
    ("joined", "values", "is_"),
    [
        ({"Ref": "A"}, {}, "empty"),
        ({"Ref": "A"}, {"A": "a,b"}, "full"),
        ([{"Ref": "A"}, {"Ref": "B"}], {}, "empty"),
        ([{"Ref": "A"}, {"Ref": "B"}], {"B": "b"}, "full"),
        (["a"], {}, "full"),
    ],
)
def test_a_condition_can_join_a_list(
    session: boto3.Session, joined: Any, values: dict[str, str], is_: str
) -> None:
    assert output(session, joined, **values) == is_
