"""The command line of `make integ`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

import integ.checks  # noqa: F401 - registers the checks
from integ.account import Account, AccountError
from integ.check import CHECKS, CheckError, Record
from integ.checks.trail import calls_of_run
from integ.clean_up import CleanUp
from integ.disk import find_disk
from integ.plan import plan_text, policy
from integ.report import summary, write_report
from integ.run import PREFIX, REPORTS, Run, new_run_id, pause_until, run_id, timestamp
from local_aws import LocalAws, LocalAwsError
from local_aws.client.cdk_cli import CdkCli, CdkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from integ.check import Check

# Seconds of AWS time in a real second, in the simulated AWS.
SPEED: Final = 60
_INTERRUPTED: Final = 130
_BOOTSTRAP: Final = "/cdk-bootstrap/hnb659fds/version"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says.

    Args:
        arguments: The arguments. Default: those of the process.

    Returns:
        0 if all checks ran, whatever they found out.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        for check in CHECKS.values():
            _print(f"{check.name:<28} {check.title}{' (--long)' if check.pause else ''}")
            if decides := [*check.rows, *check.knobs]:
                _print(f"    decides {', '.join(decides)}")
        return 0
    # SIGINT needs a handler too: a shell ignores it in a program that it runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with _account(options) as account:
            return _run(account, options)
    except (AccountError, LocalAwsError, CdkError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make integ ARGS=...",
        description="Compare a real AWS account with the simulated AWS. See docs/integ.md.",
    )
    add = parser.add_argument
    add("--list", action="store_true", help="list the checks")
    add("--only", action="append", default=[], metavar="CHECK", help="run this check (repeatable)")
    add("--long", action="store_true", help="run the checks too that take days")
    add("--disk", metavar="FILE", help="the disk to import: a file or s3://BUCKET/KEY")
    add("--yes", action="store_true", help="do not ask before the start")
    add("--policy", action="store_true", help="print the IAM policy that the run needs")
    add(
        "--resume",
        type=run_id,
        metavar="RUN",
        help="run the second halves of a run whose time has come",
    )
    add("--clean-up", type=run_id, metavar="RUN", help="delete what a run left")
    add("--reports", type=Path, default=REPORTS, metavar="FOLDER", help="where the reports are")
    add(
        "--local",
        nargs="?",
        const=0,
        type=int,
        metavar="PORT",
        help="use the simulated AWS on a port (default: start one)",
    )
    return parser


@contextlib.contextmanager
def _account(options: argparse.Namespace) -> Iterator[Account]:
    if options.local is None:
        yield Account.real()
    elif options.local:
        local = LocalAws(options.local)
        local.knobs()  # raises if none runs there
        yield Account.simulated(local)
    else:
        # Its server logs failures of resources, which several checks cause on purpose.
        os.environ.setdefault("LOG_LEVEL", "CRITICAL")
        with LocalAws.start(speed=SPEED, auth=True) as local:
            yield Account.simulated(local)


def _run(account: Account, options: argparse.Namespace) -> int:
    identity = account.identity()
    number, region = identity["account"], account.region
    about = {**identity, "region": region, "simulated": account.is_simulated}
    about["partition"] = identity["principal"].split(":")[1]
    if options.policy:
        given = find_disk(account, options.disk).stored if options.disk else None
        _print(json.dumps(policy(about, PREFIX, given), indent=2))
        return 0
    if options.clean_up:
        return _clean_up(Run(account, options.clean_up, reports=options.reports))
    if options.resume:
        run = Run(account, options.resume, reports=options.reports)
        if run.about.get("account") != number:
            raise AccountError(
                f"run {options.resume} is not known in account {number}: use the account and the "
                "checkout in which it was started"
            )
        return _execute(run, [])
    checks = _chosen(options, simulated=account.is_simulated)
    disk = find_disk(account, options.disk)
    run = Run(account, new_run_id(), disk, options.reports)
    run.about = {**about, "started": account.now(), "disk": disk.place}
    plan = plan_text(checks, run.about, run.prefix, disk)
    _print(plan)
    if not options.yes and not _agrees():
        return 1
    run.save()
    (run.folder / "plan.txt").write_text(plan + "\n")
    if any(check.deploys for check in checks):
        _check_bootstrap(account)
    if options.local == 0:
        # So each run in a simulated AWS of its own also checks the policy.
        run.account = account.restricted(json.dumps(policy(about, run.prefix)))
        run.about |= run.account.identity()
    return _execute(run, checks)


def _chosen(options: argparse.Namespace, *, simulated: bool) -> list[Check]:
    names = [name for names in options.only for name in names.split(",")]
    if unknown := [name for name in names if name not in CHECKS]:
        raise AccountError(f"check {unknown[0]!r} does not exist: use one of {', '.join(CHECKS)}")
    if names:
        return [check for check in CHECKS.values() if check.name in names]
    # A day passes at once in the simulated AWS.
    return [c for c in CHECKS.values() if options.long or simulated or not c.pause]


def _agrees() -> bool:
    try:
        return input("\nStart? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        sys.stderr.write("\nnobody agreed: use --yes in a script\n")
        return False


def _check_bootstrap(account: Account) -> None:
    try:
        account.client("ssm").get_parameter(Name=_BOOTSTRAP)
    except ClientError:
        if account.local is None:
            raise AccountError(
                f"{account.region} is not bootstrapped in this account: run cdk bootstrap"
            ) from None
        with tempfile.TemporaryDirectory() as folder:
            CdkCli(account.local, Path(folder)).bootstrap()


def _execute(run: Run, checks: Sequence[Check]) -> int:
    """Run checks, and the second halves whose time has come; clean up and report."""
    calls: dict[str, int] | str = "not looked up, because the run was interrupted"
    problem: BaseException | None = None
    try:
        for check in checks:
            run.records[check.name] = Record(check.name)
            _perform(run, run.records[check.name])
        for record in _waiting(run):
            pause_until(run.account, record.due)
            if record.due <= run.account.now():
                _perform(run, record)
        calls = calls_of_run(run)
    except BaseException as error:  # noqa: BLE001 - whatever happens, the clean-up comes first
        problem = error
    if isinstance(problem, KeyboardInterrupt):
        sys.stderr.write("\ninterrupted\n")
    code = _clean_up(run, calls)
    for record in _waiting(run):
        _print(f"second half of {record.check}, from {timestamp(record.due)} UTC on:")
        _print(f"    make integ ARGS='--resume {run.id}'")
    if isinstance(problem, KeyboardInterrupt):
        return _INTERRUPTED
    if problem:
        raise problem
    failed = any(record.status == "failed" for record in run.records.values())
    return code or int(failed)


def _waiting(run: Run) -> list[Record]:
    return [record for record in run.records.values() if record.status == "waiting"]


def _perform(run: Run, record: Record) -> None:
    """Run a check, or its second half, and keep what it saw."""
    check, account = CHECKS[record.check], run.account
    is_second = record.status == "waiting"
    function = check.later if is_second and check.later else check.function
    record.clock = account.now
    _print(f"{timestamp(account.now())}  {check.name}{', second half' if is_second else ''}")
    record.started = record.started or account.now()
    record.status = "running"
    try:
        function(run, record)
    except KeyboardInterrupt:
        record.status, record.error = "interrupted", "interrupted"
        record.decide_rest("interrupted")
        raise
    except (CheckError, BotoCoreError, ClientError) as error:
        record.status, record.error = "failed", f"{error}"
    except Exception:  # noqa: BLE001 - the next check can still run
        record.status, record.error = "failed", traceback.format_exc()
    else:
        record.status = "completed"
        if check.pause and not is_second:
            record.status, record.due = "waiting", account.now() + check.pause
    finally:
        record.ended = account.now()
        if record.status == "failed":
            record.decide_rest("the check failed")
        elif record.status == "completed":
            record.decide_rest("what was seen does not decide it")
        run.save()
    for verdict in record.verdicts:
        _print(f"    {verdict.outcome.value:<12} {verdict.subject}")
    if record.error:
        _print(f"    failed: {record.error.strip()[-1500:]}")


def _clean_up(run: Run, calls: dict[str, int] | str = "not looked up") -> int:
    """Delete what the run created, write the report if there is one, and print what is left."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _report_clean_up(run))
    _print(f"{timestamp(run.account.now())}  clean-up")
    kept = [
        str(value)
        for record in _waiting(run)
        for value in [record.kept.get("arn"), run.tasks.get(record.kept.get("task", ""))]
        if value and "arn" in record.kept
    ]
    left = CleanUp(run, kept).delete_all()
    if run.records:
        path = write_report(run, calls, left)
        for line in summary(run):
            _print(line)
        _print(f"report: {path}")
    for kind, names in left.items():
        _print(f"left: {kind}: {', '.join(names)}")
    if not left:
        _print("nothing is left" + (f", except {', '.join(kept)}" if kept else ""))
    return int(bool(left))


def _report_clean_up(run: Run) -> Callable[[int, FrameType | None], None]:
    """Return a signal handler: the first signal only says what happens, the second one ends it."""
    signals: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            sys.stderr.write(f"not cleaned up: make integ ARGS='--clean-up {run.id}'\n")
            raise KeyboardInterrupt
        sys.stderr.write("the clean-up still runs; another signal ends it\n")

    return handle


def _interrupt(*_: int | FrameType | None) -> None:
    raise KeyboardInterrupt


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
