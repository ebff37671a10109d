"""A response fits into what CloudFormation accepts."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cloudformation.response import encode
from contract import ImageAttribute
from errors import Reason

MAX = 4096


def response(**changes: Any) -> dict[str, Any]:
    return {"Status": "SUCCESS", "PhysicalResourceId": "id", "Data": {}, **changes}


def test_a_short_response_is_not_changed() -> None:
    short = response(Data={ImageAttribute.IMAGE_ARN: "arn"})

    written = json.loads(encode(short, Reason("the reason"), "the log"))

    assert written == {**short, "Reason": "the reason"}


@hypothesis.given(st.text(max_size=6000), st.text(max_size=1500), st.text(max_size=1500))
def test_every_response_fits_and_keeps_the_beginning_of_its_cause(
    cause: str, hint: str, attribute: str
) -> None:
    reason = Reason(cause, hint)

    body = encode(response(Data={"Attribute": attribute}), reason, "the log")

    written = json.loads(body)
    assert len(body) <= MAX
    if written["Data"]:
        kept, cut, _ = written["Reason"].partition("... (the log)")
        beginning = kept.removesuffix(" (the log)")
        assert written["Reason"] == str(reason) or cause.lstrip().startswith(beginning)
        assert cut or kept in {str(reason), f"{Reason(cause)} (the log)"}


@pytest.mark.parametrize("character", ["a", "é", "\U0001f4a5", "\na"])
def test_a_long_cause_uses_the_space_that_there_is(character: str) -> None:
    body = encode(response(), Reason(character * MAX), "the log")

    assert MAX - 12 < len(body) <= MAX


@pytest.mark.parametrize("offset", range(len("Sentence. ")))
def test_a_cause_that_is_cut_after_a_sentence_ends_in_three_full_stops(offset: int) -> None:
    cause = "Sentence. " * MAX

    body = encode(response(), Reason(cause[offset:]), "the log")

    kept = json.loads(body)["Reason"].removesuffix("... (the log)")
    assert len(kept) > MAX / 2
    assert kept[-1].isalpha()


def test_the_reason_of_a_failure_ends_with_the_ids_and_the_log() -> None:
    failed, reason = response(Status="FAILED"), Reason("No.", "try again.", ["image 1", "task 2"])

    written = json.loads(encode(failed, reason, "the log"))

    assert written["Reason"] == "No. Hint: try again. (image 1, task 2, the log)"


def test_a_reason_that_is_too_long_keeps_its_cause_and_its_ids_before_its_hint() -> None:
    failed, reason = response(Status="FAILED"), Reason("c" * 2000, "h" * 3000, ["image 1"])

    written = json.loads(encode(failed, reason, "the log"))

    assert written["Reason"] == f"{'c' * 2000} (image 1, the log)"


def test_a_cause_that_is_too_long_is_cut_and_the_ids_are_kept() -> None:
    failed, reason = response(Status="FAILED"), Reason("c" * 9000, "try again", ["image 1"])

    body = encode(failed, reason, "the log")

    assert json.loads(body)["Reason"].startswith("ccc")
    assert json.loads(body)["Reason"].endswith("ccc... (image 1, the log)")
    assert len(body) == MAX


def test_ids_that_do_not_fit_are_left_out() -> None:
    failed, reason = response(Status="FAILED"), Reason("the cause", "", ["x" * MAX])

    written = json.loads(encode(failed, reason, "the log"))

    assert written["Reason"] == "the cause... (the log)"


def test_attributes_that_do_not_fit_fail_the_resource() -> None:
    body = encode(response(Data={"Attribute": "x" * MAX}), Reason(), "the log")

    written = json.loads(body)
    assert written["Status"] == "FAILED"
    assert written["Data"] == {}
    assert written["PhysicalResourceId"] == "id"
