"""A response fits into what CloudFormation accepts."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cloudformation.response import encode
from contract import ImageAttribute

MAX = 4096


def response(**changes: Any) -> dict[str, Any]:
    return {"Status": "SUCCESS", "Reason": "", "PhysicalResourceId": "id", "Data": {}, **changes}


def test_a_short_response_is_not_changed() -> None:
    short = response(Reason="the reason", Data={ImageAttribute.IMAGE_ARN: "arn"})

    assert json.loads(encode(short, "the log")) == short


@hypothesis.given(st.text(max_size=6000), st.text(max_size=1500))
def test_every_response_fits_and_keeps_the_beginning_of_its_reason(
    reason: str, attribute: str
) -> None:
    body = encode(response(Reason=reason, Data={"Attribute": attribute}), "the log")

    written = json.loads(body)
    assert len(body) <= MAX
    if written["Data"]:
        kept, cut, _ = written["Reason"].partition("... (the log)")
        assert reason.startswith(kept)
        assert cut or kept == reason


@pytest.mark.parametrize("character", ["a", "é", "\U0001f4a5", "\n"])
def test_a_long_reason_uses_the_space_that_there_is(character: str) -> None:
    body = encode(response(Reason=character * MAX), "the log")

    assert MAX - 12 < len(body) <= MAX


def test_the_reason_of_a_failure_ends_with_the_log() -> None:
    failed = response(Status="FAILED", Reason="the reason")

    assert json.loads(encode(failed, "the log"))["Reason"] == "the reason (the log)"


def test_attributes_that_do_not_fit_fail_the_resource() -> None:
    written = json.loads(encode(response(Data={"Attribute": "x" * MAX}), "the log"))

    assert written["Status"] == "FAILED"
    assert written["Data"] == {}
    assert written["PhysicalResourceId"] == "id"
