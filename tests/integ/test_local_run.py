"""`make integ` against the simulated AWS: its verdicts follow what it sees, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from botocore.exceptions import ClientError

import integ.run as integ_run
from integ.__main__ import DONE, INTERRUPTED, PROBLEM, main
from integ.account import Account
from integ.check import CHECKS, CheckError
from integ.clean_up import CleanUp
from integ.disk import GivenDisk
from integ.run import PREFIX, Run
from integ.stack import Stack
from local_aws import LocalAws
from local_aws.client.environment import CHECKOUT
from local_aws.client.prerequisites import raw_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integ.check import Record

_MARK = "integ-under-test"
DENIED = {"code": "AccessDeniedException", "message": "You are not authorized", "status": 403}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalAws]:
    with LocalAws.start(speed=60, auth=True) as local:
        yield local


@pytest.fixture
def local(server: LocalAws) -> Iterator[LocalAws]:
    before = server.knobs()
    server.knobs(import_seconds=60)
    yield server
    server.knobs(**before)


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers of pytest."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def integ(reports: Path, *arguments: str) -> int:
    return main([*arguments, "--reports", str(reports)])


def report(folder: Path) -> dict[str, Any]:
    """The report of the newest run."""
    (path,) = folder.glob("*/report.json")
    found: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return found


def verdicts(folder: Path, check: str) -> dict[str, str]:
    found = report(folder)["records"][check]
    assert found["status"] == "completed", found["error"]
    return {verdict["subject"]: verdict["outcome"] for verdict in found["verdicts"]}


def everything(local: LocalAws) -> list[str]:
    """All that an account has of what the checks create."""
    run = Run(Account.simulated(local), "")
    run.prefix, run.tags = PREFIX, {}
    return [name for names in CleanUp(run).left().values() for name in names]


def test_a_verdict_follows_what_aws_does(local: LocalAws, tmp_path: Path) -> None:
    arguments = ["--local", str(local.port), "--yes", "--only", "tokens"]

    assert integ(tmp_path, *arguments) == DONE
    by_default = verdicts(tmp_path, "tokens")
    local.knobs(idempotency_mismatch="replay", idempotency_of_unusable_image="import")
    assert integ(tmp_path, *arguments) == DONE
    otherwise = verdicts(tmp_path, "tokens")

    assert set(by_default.values()) == {"confirmed"}
    changed = {subject for subject, outcome in otherwise.items() if outcome == "refuted"}
    assert changed == {
        "idempotency_mismatch",
        "other_parameters_is_a_mismatch",
        "idempotency_of_unusable_image",
        "returns_the_arn_of_a_deleted_image",
    }
    assert everything(local) == []


@pytest.mark.parametrize(
    ("check", "knobs"),
    [
        pytest.param(
            "what-an-import-shows",
            {
                "imported_ami_name": "other",
                "tag_imported_ami": True,
                "unknown_image_version": "not_found",
                "dependants_block_delete": False,
            },
        ),
        pytest.param("what-an-import-shows", {"image_shows_ami": False}, marks=pytest.mark.slow),
        pytest.param(
            "cancelling",
            {
                "cancel_terminal_error": "ResourceInUseException",
                "cancelled_task_message": "cancelled",
                "snapshots_of_failed_import": "delete",
            },
            marks=pytest.mark.slow,
        ),
        pytest.param("unknown-and-failed-tasks", {"unknown_task": "fail"}),
    ],
)
def test_another_value_of_a_knob_is_found_out(
    local: LocalAws, tmp_path: Path, check: str, knobs: dict[str, Any]
) -> None:
    # Long enough for the snapshots of a running import to be seen.
    local.knobs(import_seconds=600, **knobs)

    assert integ(tmp_path, "--local", str(local.port), "--yes", "--only", check) == DONE

    found = verdicts(tmp_path, check)
    assert {found[name] for name in knobs} == {"refuted"}
    assert everything(local) == []


@pytest.mark.slow
def test_an_import_that_cannot_be_cancelled_is_found_out(local: LocalAws, tmp_path: Path) -> None:
    local.knobs(import_seconds=600, cancel_import="refuse")

    assert integ(tmp_path, "--local", str(local.port), "--yes", "--only", "cancelling") == DONE

    found = verdicts(tmp_path, "cancelling")
    assert found["cancel_import"] == found["becomes_cancelled_after_a_while"] == "refuted"
    assert found["cancel_terminal_error"] == "not decided"
    assert everything(local) == []


@pytest.mark.parametrize(
    ("check", "subjects"),
    [
        (
            "what-an-import-shows",
            {
                "running_image_cannot_be_deleted",
                "finds_only_available_builds",
                "unknown_image_is_not_found",
                "only_a_build_arn_can_be_deleted",
                "unknown_image_version",
                "recipe_blocks_the_deletion",
                "dependants_block_delete",
                "tags_of_a_deleted_image_are_not_found",
            },
        ),
        (
            "tokens",
            {
                "other_parameters_is_a_mismatch",
                "idempotency_mismatch",
                "has_already_failed_makes_the_image_fail",
            },
        ),
        (
            "cancelling",
            {
                "cancel_import",
                "becomes_cancelled_after_a_while",
                "cancelled_task_is_deleting",
                "task_that_has_ended_cannot_be_cancelled",
            },
        ),
        (
            "unknown-and-failed-tasks",
            {"unknown_task_id_is_malformed", "unknown_task_is_refused", "unknown_task"},
        ),
        pytest.param(
            "rollback-while-importing",
            {"being_updated_cannot_be_deleted"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_denied_call_does_not_decide_anything(
    local: LocalAws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    check: str,
    subjects: set[str],
) -> None:
    """All calls are denied that AWS may refuse, or whose refusal the check expects."""
    response: Any = {
        "Error": {"Code": DENIED["code"], "Message": DENIED["message"]},
        "ResponseMetadata": {"HTTPStatusCode": DENIED["status"]},
    }

    def denied(*_: object, **__: object) -> None:
        raise ClientError(response, "DeleteImage")

    real = integ_run.attempt
    for module in ("integ.run", "integ.checks.images"):
        monkeypatch.setattr(f"{module}.attempt", lambda *_, **__: real(denied))

    integ(tmp_path, "--local", str(local.port), "--yes", "--only", check)

    found = report(tmp_path)["records"][check]["verdicts"]
    outcomes = {verdict["subject"]: verdict["outcome"] for verdict in found}
    assert {outcomes[subject] for subject in subjects} == {"not decided"}
    assert "refuted" not in outcomes.values()
    assert everything(local) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if check.stacks else [])
        for name, check in CHECKS.items()
    ],
)
def test_a_check_creates_no_more_than_its_plan_states(
    local: LocalAws, tmp_path: Path, name: str
) -> None:
    before = len(local.calls())

    assert integ(tmp_path, "--local", str(local.port), "--yes", "--only", name) == DONE

    check = CHECKS[name]
    calls = [call for call in local.calls()[before:] if not call["error"]]

    def created(operation: str, client_token: str) -> dict[str, dict[str, Any]]:
        found = [call["request"] for call in calls if call["operation"] == operation]
        return {request[client_token]: request for request in found}

    tasks = created("ImportImage", "ClientToken").values()
    keys = [task["DiskContainers"][0]["UserBucket"]["S3Key"] for task in tasks]
    assert keys.count("disk.raw") <= check.imports
    assert len(keys) - keys.count("disk.raw") <= check.broken_imports
    assert len(created("ImportVmImage", "clientToken")) <= check.images
    assert len(created("CreateImageRecipe", "clientToken")) <= check.recipes
    assert len(list(tmp_path.glob("*/cdk/*"))) <= check.stacks


def test_a_check_that_fails_does_not_end_the_run_and_leaves_nothing(
    local: LocalAws, tmp_path: Path
) -> None:
    refused = {"code": "ServiceException", "message": "no", "status": 400}
    local.fault("imagebuilder", "ImportVmImage", error=refused, times=1)
    only = "tokens,unknown-and-failed-tasks"

    code = integ(tmp_path, "--local", str(local.port), "--yes", "--only", only)

    records = report(tmp_path)["records"]
    assert code == PROBLEM
    assert records["tokens"]["status"] == "failed"
    assert "ServiceException" in records["tokens"]["error"]
    assert {v["outcome"] for v in records["tokens"]["verdicts"]} == {"not decided"}
    assert records["unknown-and-failed-tasks"]["status"] == "completed"
    assert everything(local) == []


def test_nothing_is_created_unless_the_user_agrees(
    local: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "n")
    calls = len(local.calls())

    assert integ(tmp_path, "--local", str(local.port), "--only", "tokens") == PROBLEM

    assert len(local.calls()) == calls
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_have_the_reports_is_named_before_the_start(
    local: LocalAws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "reports"
    reports.write_text("")
    calls = len(local.calls())

    code = integ(reports, "--local", str(local.port), "--only", "tokens", "--yes")

    assert code == PROBLEM
    assert f"Not a directory: '{reports}" in capsys.readouterr().err
    assert len(local.calls()) == calls


def first_half(local: LocalAws, reports: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the first half of a check, and return the id of the run.

    As in a real account: the environment names it, and its clock cannot be moved.
    """
    for name, value in local.environment.items():
        monkeypatch.setenv(name, value)
    pause = time.sleep
    monkeypatch.setattr("integ.account.time.sleep", lambda seconds: pause(min(seconds, 0.2)))
    disk = reports / "disk.raw"
    disk.write_bytes(raw_disk(1))

    assert integ(reports, "--only", "tokens-after-a-day", "--disk", str(disk), "--yes") == DONE

    (state,) = reports.glob("*/state.json")
    return state.parent.name


def test_the_second_half_of_a_check_runs_later_with_what_the_first_one_kept(
    local: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = first_half(local, tmp_path, monkeypatch)
    state = tmp_path / run_id / "state.json"
    kept = json.loads(state.read_text())
    record = kept["records"]["tokens-after-a-day"]
    assert record["status"] == "waiting"
    image = Run(Account.simulated(local), "").image(record["kept"]["arn"])
    assert image
    record["due"] = 0
    state.write_text(json.dumps(kept))
    local.advance(25 * 3600)

    assert integ(tmp_path, "--resume", run_id) == DONE

    assert verdicts(tmp_path, "tokens-after-a-day")["client_token_expires"] == "confirmed"
    assert everything(local) == []


def test_the_clean_up_on_request_also_deletes_what_a_second_half_needs(
    local: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = first_half(local, tmp_path, monkeypatch)
    assert everything(local) != []

    assert integ(tmp_path, "--clean-up", run_id) == DONE

    found = report(tmp_path)["records"]["tokens-after-a-day"]
    assert found["status"] == "interrupted"
    assert {v["outcome"] for v in found["verdicts"]} == {"not decided"}
    assert everything(local) == []


@pytest.mark.parametrize("option", ["--clean-up", "--resume"])
def test_a_run_in_another_region_is_not_reported_as_cleaned_up(
    local: LocalAws, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    run = Run(Account.simulated(local), "1128-4f2a9c", reports=tmp_path)
    run.about = {"account": run.account.identity()["account"], "region": "eu-west-1"}
    run.save()

    assert integ(tmp_path, "--local", str(local.port), option, run.id) == PROBLEM

    printed = capsys.readouterr()
    assert "run 1128-4f2a9c is in account 123456789012, eu-west-1, but these" in printed.err
    assert "nothing is left" not in printed.out


def test_a_real_account_must_be_bootstrapped_before_the_plan_is_shown(
    local: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As in a real account: the environment names it. It is another one, which is empty."""
    for name, value in {**local.environment, "AWS_ACCESS_KEY_ID": "210987654321"}.items():
        monkeypatch.setenv(name, value)
    disk = tmp_path / "disk.raw"
    disk.write_bytes(raw_disk(1))

    code = integ(tmp_path, "--only", "first-deployment", "--disk", str(disk), "--yes")

    printed = capsys.readouterr()
    assert code == PROBLEM
    assert "us-east-1 is not bootstrapped in this account: run cdk bootstrap" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_leaves_nothing(
    local: LocalAws, tmp_path: Path, number: signal.Signals
) -> None:
    local.knobs(import_seconds=10**6)
    process = start(tmp_path, "rollback-while-importing", local)
    assert imports_within(local, process)

    process.send_signal(number)

    printed, _ = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, printed
    assert "nothing is left" in printed
    assert "Traceback" not in printed
    assert everything(local) == []
    assert marked_processes() == []


@pytest.mark.slow  # it waits for real programs
def test_ctrl_c_in_the_terminal_does_not_end_the_simulated_aws_before_the_clean_up(
    tmp_path: Path,
) -> None:
    """A terminal sends SIGINT to all processes of the group."""
    process = start(tmp_path, "rollback-while-importing")
    assert eventually(lambda: is_importing(tmp_path), process)

    os.killpg(process.pid, signal.SIGINT)

    printed, _ = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, printed
    assert "nothing is left" in printed
    assert "Traceback" not in printed
    assert report(tmp_path)["records"]["rollback-while-importing"]["status"] == "interrupted"
    assert marked_processes() == []


def is_importing(reports: Path) -> bool:
    printed = reports.glob("*/cdk/cancelled/output.txt")
    return any(
        re.search("CREATE_IN_PROGRESS *.*Custom::ImportedVmImage", path.read_text())
        for path in printed
    )


def test_a_terminal_that_is_closed_does_not_prevent_the_clean_up(
    local: LocalAws, tmp_path: Path
) -> None:
    local.knobs(import_seconds=10**6)
    before = len(local.calls("ImportImage"))
    process = start(tmp_path, "tokens", local)
    assert eventually(lambda: len(local.calls("ImportImage")) > before, process)
    assert process.stdout
    process.stdout.close()

    process.send_signal(signal.SIGHUP)

    assert process.wait(timeout=120) == INTERRUPTED
    assert report(tmp_path)["left"] == {}
    assert everything(local) == []


def test_an_account_that_does_not_respond_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalAws.start(auth=True) as own:

        def tokens(run: Run, record: Record) -> None:
            with Stack(run, record, "stack"):
                assert own.process
                own.process.terminate()
                own.process.wait()
                monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
                raise CheckError("the first problem")

        monkeypatch.setitem(CHECKS, "tokens", replace(CHECKS["tokens"], function=tokens))

        code = integ(tmp_path, "--local", str(own.port), "--yes", "--only", "tokens")

    assert code == PROBLEM
    found = report(tmp_path)
    assert found["records"]["tokens"]["error"] == "the first problem"
    assert {names[0].partition(":")[0] for names in found["left"].values()} == {"unknown"}
    printed = capsys.readouterr().out
    assert all(f"left: {kind}: unknown" in printed for kind in ("stacks", "AMIs", "roles"))
    assert "--clean-up" in printed.partition("to delete what is left")[2]


def test_what_could_not_be_deleted_at_first_is_deleted_a_little_later(
    local: LocalAws, tmp_path: Path
) -> None:
    in_use = {"code": "InvalidSnapshot.InUse", "message": "The snapshot is in use"}
    local.fault("ec2", "DeleteSnapshot", error=in_use, times=2)

    assert integ(tmp_path, "--local", str(local.port), "--yes", "--only", "who-calls-what") == DONE

    assert report(tmp_path)["left"] == {}


def test_an_image_that_cannot_be_deleted_does_not_prevent_the_deletion_of_others(
    local: LocalAws, tmp_path: Path
) -> None:
    disk = GivenDisk("an empty disk.raw", 1)
    run = Run(Account.simulated(local), "1128-4f2a9c", disk, tmp_path)
    for name in ("first", "second"):
        run.await_image(run.import_image(run.completed_task(), name), "AVAILABLE")
    local.fault("imagebuilder", "DeleteImage", error=DENIED, times=1)
    clean_up = CleanUp(run)

    clean_up._delete_images()

    assert len(clean_up.left()["images"]) == 1
    assert clean_up.delete_all() == {}


def test_what_cannot_be_deleted_does_not_prevent_the_deletion_of_the_rest(
    local: LocalAws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The clean-up tries twice.
    local.fault("ec2", "DeregisterImage", error=DENIED, times=2)

    code = integ(tmp_path, "--local", str(local.port), "--yes", "--only", "who-calls-what")

    assert code == PROBLEM
    assert report(tmp_path)["left"].keys() == {"AMIs", "snapshots"}
    run_id = capsys.readouterr().out.partition("--clean-up ")[2].partition("'")[0]
    assert integ(tmp_path, "--local", str(local.port), "--clean-up", run_id) == DONE
    assert everything(local) == []


@pytest.mark.slow
def test_what_a_killed_run_left_can_be_deleted_later(local: LocalAws, tmp_path: Path) -> None:
    local.knobs(import_seconds=10**6)
    process = start(tmp_path, "rollback-while-importing", local)
    assert imports_within(local, process)
    os.killpg(process.pid, signal.SIGKILL)
    printed, _ = process.communicate()
    run_id = printed.partition("--clean-up ")[2].partition("'")[0]
    assert everything(local) != []

    assert integ(tmp_path, "--local", str(local.port), "--clean-up", run_id) == DONE

    assert everything(local) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_checks_run_in_the_simulated_aws_with_the_policy_that_the_command_prints(
    tmp_path: Path,
) -> None:
    assert integ(tmp_path, "--local", "--yes") == DONE

    found = report(tmp_path)
    statuses = {name: record["status"] for name, record in found["records"].items()}
    outcomes = {kind: set(numbers) for kind, numbers in found["counts"].items()}
    assert statuses == dict.fromkeys(CHECKS, "completed")
    assert all("refuted" not in seen for seen in outcomes.values())
    assert found["left"] == {}


def start(reports: Path, check: str, local: LocalAws | None = None) -> subprocess.Popen[str]:
    """Start a run in a simulated AWS, or in one that it starts itself."""
    # Otherwise it inherits that nohup ignores SIGHUP.
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return _start(reports, check, local)
    finally:
        signal.signal(signal.SIGHUP, inherited)


def _start(reports: Path, check: str, local: LocalAws | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "integ", "--local", *([str(local.port)] if local else []),
            "--yes", "--only", check, "--reports", str(reports),
        ],
        cwd=CHECKOUT,
        # All processes that the run starts inherit the mark.
        env={
            **os.environ, "PYTHONPATH": f".{os.pathsep}lambda/vm_import", "STARTED_BY": _MARK,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def marked_processes() -> list[psutil.Process]:
    """The processes that a run started and that still run."""
    found = []
    for process in psutil.process_iter():
        # Processes of other users cannot be read, and some end meanwhile.
        with contextlib.suppress(psutil.Error):
            if process.environ().get("STARTED_BY") == _MARK:
                found.append(process)
    return found


def eventually(seen: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Wait until something is seen while a run continues; return whether it is."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if seen():
            return True
        time.sleep(0.2)
    return False


def imports_within(local: LocalAws, process: subprocess.Popen[str]) -> bool:
    """Wait until a run imports an image by a stack; return whether it does."""
    before = len(local.calls("ImportVmImage"))
    return eventually(lambda: len(local.calls("ImportVmImage")) > before, process)
