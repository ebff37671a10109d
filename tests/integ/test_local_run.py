"""`make integ` against the simulated AWS: its verdicts follow what it sees, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from integ.__main__ import main
from integ.account import Account
from integ.check import CHECKS
from integ.clean_up import CleanUp
from integ.run import PREFIX, Run
from local_aws import LocalAws
from local_aws.client.environment import CHECKOUT
from local_aws.client.prerequisites import raw_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INTERRUPTED = 130
_MARK = "integ-under-test"


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
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
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

    assert integ(tmp_path, *arguments) == 0
    by_default = verdicts(tmp_path, "tokens")
    local.knobs(idempotency_mismatch="replay", idempotency_of_unusable_image="import")
    assert integ(tmp_path, *arguments) == 0
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

    assert integ(tmp_path, "--local", str(local.port), "--yes", "--only", check) == 0

    found = verdicts(tmp_path, check)
    assert {found[name] for name in knobs} == {"refuted"}
    assert everything(local) == []


@pytest.mark.slow
def test_an_import_that_cannot_be_cancelled_is_found_out(local: LocalAws, tmp_path: Path) -> None:
    local.knobs(import_seconds=600, cancel_import="refuse")

    assert integ(tmp_path, "--local", str(local.port), "--yes", "--only", "cancelling") == 0

    found = verdicts(tmp_path, "cancelling")
    assert found["cancel_import"] == found["becomes_cancelled_after_a_while"] == "refuted"
    assert found["cancel_terminal_error"] == "not decided"
    assert everything(local) == []


def test_a_check_that_fails_does_not_end_the_run_and_leaves_nothing(
    local: LocalAws, tmp_path: Path
) -> None:
    refused = {"code": "ServiceException", "message": "no", "status": 400}
    local.fault("imagebuilder", "ImportVmImage", error=refused, times=1)
    only = "tokens,unknown-and-failed-tasks"

    code = integ(tmp_path, "--local", str(local.port), "--yes", "--only", only)

    records = report(tmp_path)["records"]
    assert code == 1
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

    assert integ(tmp_path, "--local", str(local.port), "--only", "tokens") == 1

    assert len(local.calls()) == calls
    assert list(tmp_path.iterdir()) == []


def test_the_second_half_of_a_check_runs_later_with_what_the_first_one_kept(
    local: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a real account: the environment names it, and its clock cannot be moved."""
    for name, value in local.environment.items():
        monkeypatch.setenv(name, value)
    pause = time.sleep
    monkeypatch.setattr("integ.account.time.sleep", lambda seconds: pause(min(seconds, 0.2)))
    disk = tmp_path / "disk.raw"
    disk.write_bytes(raw_disk(1))

    assert integ(tmp_path, "--only", "tokens-after-a-day", "--disk", str(disk), "--yes") == 0

    (state,) = tmp_path.glob("*/state.json")
    kept = json.loads(state.read_text())
    record = kept["records"]["tokens-after-a-day"]
    assert record["status"] == "waiting"
    image = Run(Account.simulated(local), "").image(record["kept"]["arn"])
    assert image
    record["due"] = 0
    state.write_text(json.dumps(kept))
    local.advance(25 * 3600)

    assert integ(tmp_path, "--resume", state.parent.name) == 0

    assert verdicts(tmp_path, "tokens-after-a-day")["client_token_expires"] == "confirmed"
    assert everything(local) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_leaves_nothing(
    local: LocalAws, tmp_path: Path, number: signal.Signals
) -> None:
    local.knobs(import_seconds=10**6)
    process = start(local, tmp_path, "rollback-while-importing")
    assert imports_within(local, process)

    process.send_signal(number)

    printed, _ = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, printed
    assert "nothing is left" in printed
    assert "Traceback" not in printed
    assert everything(local) == []
    assert marked_processes() == []


@pytest.mark.slow
def test_what_a_killed_run_left_can_be_deleted_later(local: LocalAws, tmp_path: Path) -> None:
    local.knobs(import_seconds=10**6)
    process = start(local, tmp_path, "rollback-while-importing")
    assert imports_within(local, process)
    os.killpg(process.pid, signal.SIGKILL)
    printed, _ = process.communicate()
    run_id = printed.partition("--clean-up ")[2].partition("'")[0]
    assert everything(local) != []

    assert integ(tmp_path, "--local", str(local.port), "--clean-up", run_id) == 0

    assert everything(local) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_checks_run_in_the_simulated_aws_with_the_policy_that_the_command_prints(
    tmp_path: Path,
) -> None:
    assert integ(tmp_path, "--local", "--yes") == 0

    found = report(tmp_path)
    statuses = {name: record["status"] for name, record in found["records"].items()}
    outcomes = {kind: set(numbers) for kind, numbers in found["counts"].items()}
    assert statuses == dict.fromkeys(CHECKS, "completed")
    assert all("refuted" not in seen for seen in outcomes.values())
    assert found["left"] == {}


def start(local: LocalAws, reports: Path, check: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "integ", "--local", str(local.port), "--yes", "--only", check,
            "--reports", str(reports),
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


def imports_within(local: LocalAws, process: subprocess.Popen[str]) -> bool:
    """Wait until a run imports an image by a stack; return whether it does."""
    end, before = time.monotonic() + 120, len(local.calls("ImportVmImage"))
    while process.poll() is None and time.monotonic() < end:
        if len(local.calls("ImportVmImage")) > before:
            return True
        time.sleep(0.2)
    return False
