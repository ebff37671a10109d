"""The plan, the verdicts and the report of `make integ`, without an account."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import pytest

import integ.checks  # noqa: F401 - registers the checks
from integ.__main__ import EXIT_CODES, INVALID, main
from integ.account import Account, AccountError
from integ.check import CHECKS, CheckError, Outcome, Record
from integ.checks.deployments import _decide_removal, _raise_unless_image_failed
from integ.checks.trail import _decide_reader, by_caller
from integ.disk import GivenDisk, find_disk
from integ.plan import IMPORT_MINUTES, plan_text, policy, price, total_minutes, total_price
from integ.report import counts, summary, write_report
from integ.run import PREFIX, Run
from integ.stack import redacted
from local_aws.client.environment import CHECKOUT
from local_aws.client.prerequisites import raw_disk
from local_aws.server.knobs import Knobs

if TYPE_CHECKING:
    from pathlib import Path

    from integ.stack import Stack

ROWS = re.findall(r"^\| `(\w+)` \|", (CHECKOUT / "docs/local-aws.md").read_text(), re.MULTILINE)
ABOUT = {
    "account": "111122223333",
    "region": "eu-west-1",
    "principal": "arn:aws:iam::111122223333:user/ada",
    "partition": "aws",
    "simulated": False,
    "started": 0.0,
}


@pytest.fixture
def record() -> Record:
    return Record("tokens")


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_decides_rows_and_knobs_that_are_documented(name: str) -> None:
    check = CHECKS[name]

    assert set(check.rows) <= set(ROWS)
    assert set(check.knobs) <= Knobs().as_dict().keys()
    assert check.title.endswith(".")
    assert check.creates


def test_the_plan_shows_account_prices_and_how_to_clean_up() -> None:
    checks = list(CHECKS.values())
    disk = GivenDisk("s3://disks/debian.vmdk", 8)

    plan = plan_text(checks, ABOUT, f"{PREFIX}-1128-abc", disk)

    assert "111122223333, eu-west-1" in plan
    assert "s3://disks/debian.vmdk, 8.0 GiB" in plan
    assert "make integ ARGS='--clean-up 1128-abc'" in plan
    assert all(f"{check.name} " in plan and check.title in plan for check in checks)
    assert f"{total_price(checks, 8):.2f} $" in plan
    assert f"about {total_minutes(checks) / 60:.1f} hours" in plan


def test_the_price_of_an_import_is_that_of_its_snapshot_until_the_end_of_the_run() -> None:
    cost = price(CHECKS["cancelling"], 100, run_hours=8)

    # 0.05 dollars for each of 100 GB and month.
    assert cost == pytest.approx(5 * 8 / 730)


def test_checks_that_share_an_import_take_less_time_than_their_sum() -> None:
    tokens, trail, other = (CHECKS[name] for name in ("tokens", "who-calls-what", "cancelling"))

    assert total_minutes([tokens]) == tokens.minutes
    assert total_minutes([tokens, trail, other]) == (
        tokens.minutes + trail.minutes + other.minutes - IMPORT_MINUTES
    )


def test_the_documentation_states_the_time_and_the_cost_of_the_plan() -> None:
    text = (CHECKOUT / "docs/integ.md").read_text()
    checks = [check for check in CHECKS.values() if not check.pause]

    assert f"about {round(total_minutes(checks) / 60)} hours" in text
    assert "less than one US dollar" in text
    assert total_price(checks, 10) < 1


def test_the_documentation_and_the_help_list_the_exit_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (CHECKOUT / "docs/integ.md").read_text()
    with pytest.raises(SystemExit):
        main(["--help"])

    printed = capsys.readouterr().out
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text
        assert f"{code}  {meaning}" in printed


def test_the_policy_is_short_enough_for_a_managed_policy() -> None:
    text = json.dumps(policy({**ABOUT, "region": "ap-southeast-2"}, PREFIX), separators=(",", ":"))

    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    assert len(text) <= 6144


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (b"\0" * 1024, "disk.raw", "does not have the format"),
        (raw_disk(1), "disk.qcow2", "is not valid: use one of .raw, .vmdk"),
        (None, "missing.raw", "cannot be read"),
    ],
)
def test_a_disk_that_cannot_be_imported_is_refused_before_the_start(
    tmp_path: Path, content: bytes | None, name: str, problem: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(AccountError, match=problem):
        find_disk(Account(None, {}), str(tmp_path / name))


def test_a_real_account_needs_a_bootable_disk() -> None:
    with pytest.raises(AccountError, match="bootable disk of an operating system"):
        find_disk(Account(None, {}), None)


def test_a_disk_of_a_known_format_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(raw_disk(1))

    assert find_disk(Account(None, {}), str(tmp_path / "disk.raw")).ending == ".raw"


def test_a_row_is_confirmed_refuted_or_not_decided(record: Record) -> None:
    record.row("token_returns_the_first_response", holds=True, seen="a")
    record.row("other_parameters_is_a_mismatch", holds=False, seen="b")
    record.row("same_client_token_starts_one", holds=None, seen="c")

    assert [v.outcome for v in record.verdicts] == [
        Outcome.CONFIRMED,
        Outcome.REFUTED,
        Outcome.UNDECIDED,
    ]


def test_a_knob_is_confirmed_if_aws_has_the_default_of_the_simulated_aws(record: Record) -> None:
    record.knob("idempotency_mismatch", "refuse")
    record.knob("idempotency_of_unusable_image", "import")

    assert [v.outcome for v in record.verdicts] == [Outcome.CONFIRMED, Outcome.REFUTED]


def test_a_duration_is_measured() -> None:
    record = Record("cancelling")

    record.knob("cancel_seconds", 17)

    (verdict,) = record.verdicts
    assert verdict.outcome is Outcome.MEASURED
    assert verdict.seen.startswith("17, the default is")


@pytest.mark.parametrize(
    "error",
    [
        "AccessDeniedException 403: User is not authorized to perform imagebuilder:DeleteImage",
        "UnauthorizedOperation 403: You are not authorized to perform this operation.",
        "AccessDeniedException 400: no identity-based policy allows the action",
        "ExpiredTokenException 400: The security token included in the request is expired",
        "ThrottlingException 400: Rate exceeded",
        "RequestLimitExceeded 503: Request limit exceeded.",
        "TooManyRequestsException 429: slow down",
        "ServiceException 500: ",
        "ServiceUnavailableException 503: try again",
        "ServiceQuotaExceededException 402: too many images",
    ],
)
@pytest.mark.parametrize("holds", [True, False])
def test_an_error_that_says_nothing_about_a_row_does_not_decide_it(
    record: Record, error: str, *, holds: bool
) -> None:
    record.row("other_parameters_is_a_mismatch", holds, error)
    record.knob("idempotency_mismatch", "refuse" if holds else "replay", error)
    record.expect("The image is deleted", holds, f"DELETE_FAILED: {error}")

    assert {v.outcome for v in record.verdicts} == {Outcome.UNDECIDED}


def test_an_error_that_ec2_found_in_a_disk_decides_a_row() -> None:
    record = Record("unknown-and-failed-tasks")

    seen = "deleted: ClientError: Disk validation failed [We do not have access. 403 Forbidden]"
    record.row("missing_object_makes_the_task_fail", holds=True, seen=seen)

    assert record.verdicts[0].outcome is Outcome.CONFIRMED


def test_a_check_cannot_decide_a_row_that_its_plan_does_not_name(record: Record) -> None:
    with pytest.raises(ValueError, match="does not declare 'x_in_an_arn'"):
        record.row("x_in_an_arn", holds=True, seen="")


def test_what_a_check_did_not_decide_is_in_its_record(record: Record) -> None:
    record.row("token_returns_the_first_response", holds=True, seen="a")

    record.decide_rest("the check failed")

    subjects = [verdict.subject for verdict in record.verdicts]
    assert sorted(subjects) == sorted([*CHECKS["tokens"].rows, *CHECKS["tokens"].knobs])
    assert counts([record])["row"] == {"confirmed": 1, "not decided": len(subjects) - 3}


def test_a_record_is_the_same_after_it_was_kept_in_a_file(record: Record) -> None:
    record.row("token_returns_the_first_response", holds=True, seen="a")
    record.observe("something", {"a": 1})

    assert Record.from_json(json.loads(json.dumps(record.as_json()))) == record


def test_the_response_url_is_redacted_but_for_its_dates() -> None:
    url = (
        "https://cloudformation-custom-resource-response-eu.s3.amazonaws.com/arn?"
        "X-Amz-Date=20261128T101500Z&X-Amz-Expires=7200&X-Amz-Credential=AKIA&X-Amz-Signature=abc"
    )

    event = redacted({"RequestType": "Create", "ResponseURL": url})

    assert event["ResponseURL"] == (
        "https://cloudformation-custom-resource-response-eu.s3.amazonaws.com/(redacted)?"
        "X-Amz-Date=20261128T101500Z&X-Amz-Expires=7200"
    )


def test_calls_are_counted_by_role_and_by_the_service_that_makes_them() -> None:
    role = "arn:aws:iam::111122223333:role/stack-role"
    session = {"sessionContext": {"sessionIssuer": {"arn": role}}}
    through = {**session, "invokedBy": "imagebuilder.amazonaws.com"}
    events: list[dict[str, Any]] = [
        {"eventName": "ImportVmImage", "userIdentity": session, "sourceIPAddress": "192.0.2.1"},
        {"eventName": "DescribeImportImageTasks", "userIdentity": through},
        {"eventName": "DescribeImportImageTasks", "userIdentity": through},
    ]

    assert by_caller(events) == {
        f"ImportVmImage by {role}": 1,
        f"DescribeImportImageTasks by {role} through imagebuilder.amazonaws.com": 2,
    }


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        ({"a": "deleting", "b": "active"}, Outcome.CONFIRMED),
        ({"a": "deleted", "b": "completed"}, Outcome.CONFIRMED),
        ({"a": "deleted", "b": "deleted"}, Outcome.REFUTED),
        ({"a": "active", "b": "active"}, Outcome.REFUTED),
        ({"a": "completed", "b": "completed"}, Outcome.UNDECIDED),
    ],
)
def test_an_import_that_ends_during_the_update_does_not_refute_that_one_task_is_cancelled(
    after: dict[str, str], outcome: Outcome
) -> None:
    record = Record("removing-one-of-two-tasks")

    _decide_removal(record, ["a", "b"], after)

    assert [verdict.outcome for verdict in record.verdicts] == [outcome]


@pytest.mark.parametrize(
    ("principal", "reader", "outcome"),
    [
        ("user/team/ada", "user/team/ada through imagebuilder.amazonaws.com", Outcome.CONFIRMED),
        ("assumed-role/dev/ada", "role/dev through imagebuilder.amazonaws.com", Outcome.CONFIRMED),
        ("user/ada", "role/slr through imagebuilder.amazonaws.com", Outcome.REFUTED),
        ("user/ada", "user/ada", Outcome.UNDECIDED),
    ],
)
def test_the_reader_of_a_task_is_the_caller_whatever_its_arn(
    principal: str, reader: str, outcome: Outcome
) -> None:
    record = Record("who-calls-what")
    arn, _, through = reader.partition(" through ")
    identity = {"arn": f"arn:aws:iam::111122223333:{arn}", "invokedBy": through}
    event = {"eventName": "DescribeImportImageTasks", "userIdentity": identity}

    _decide_reader(record, f"arn:aws:iam::111122223333:{principal}", [event])

    assert [verdict.outcome for verdict in record.verdicts] == [outcome]


def test_what_a_completed_check_did_not_decide_is_printed_at_the_end(
    tmp_path: Path, record: Record
) -> None:
    run = Run(Account(None, {}), "1128-abc", reports=tmp_path)
    run.records["tokens"] = record
    denied = "AccessDeniedException 403: no"
    record.row("token_returns_the_first_response", holds=False, seen=denied)

    record.status = "completed"
    completed = list(summary(run))
    record.status = "failed"
    failed = list(summary(run))

    line = f"not decided: token_returns_the_first_response: {denied}"
    assert line in completed
    assert line not in failed


def test_the_report_shows_what_refutes_a_row(tmp_path: Path, record: Record) -> None:
    run = Run(Account(None, {}), "1128-abc", reports=tmp_path)
    run.about = ABOUT
    run.records["tokens"] = record
    record.row("token_returns_the_first_response", holds=False, seen="another ARN | id")

    path = write_report(run, {"ImportVmImage by ada": 2}, {"AMIs": ["ami-1"]})

    text = path.read_text()
    row = "| `token_returns_the_first_response` | **refuted** | another ARN \\| id | tokens |"
    assert row in text
    assert "- 2 x ImportVmImage by ada" in text
    assert "- AMIs: ami-1" in text
    assert "refuted: token_returns_the_first_response: another ARN | id" in list(summary(run))
    assert json.loads(path.with_suffix(".json").read_text())["left"] == {"AMIs": ["ami-1"]}


@pytest.mark.parametrize("option", ["--clean-up", "--resume"])
@pytest.mark.parametrize("part", ["1128", "1128-4f2a9", "", "*"])
def test_a_part_of_an_id_names_no_run(
    option: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option, part])

    assert ended.value.code == INVALID
    assert f"{option}: {part!r} is not the id of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--only", "tokens,nothing"], "check 'nothing' does not exist: use one of first-"),
        (["--policy", "--clean-up", "1128-4f2a9c"], "not allowed with argument"),
    ],
)
def test_arguments_that_are_not_valid_are_refused(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == INVALID
    assert problem in capsys.readouterr().err


class StackWithFailures:
    """A stack whose image failed, and perhaps another resource."""

    name = "stack"

    def __init__(self, *others: str) -> None:
        self._others = others

    def failed(self, resource_type: str = "") -> dict[str, str]:
        return {"Image1": "EC2 refuses it"} | (
            {} if resource_type else dict.fromkeys(self._others, "Rate exceeded")
        )


def test_the_events_of_a_deployment_decide_nothing_if_another_resource_failed() -> None:
    _raise_unless_image_failed(cast("Stack", StackWithFailures()))

    with pytest.raises(CheckError, match="Rate exceeded"):
        _raise_unless_image_failed(cast("Stack", StackWithFailures("VmImportProvider")))
