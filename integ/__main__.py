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
from integ.output import say, warn
from integ.plan import plan_text, policy
from integ.report import summary, write_report
from integ.run import PREFIX, REPORTS, SIGNALS, Run, new_run_id, pause_until, run_id, timestamp
from local_aws import LocalAws, LocalAwsError
from local_aws.client.cdk_cli import CdkCli, CdkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType
    from typing import Any

    from integ.check import Check

    Handler = Callable[[int, FrameType | None], None]

# Seconds of AWS time in a real second, in the simulated AWS.
SPEED: Final = 60
# The exit codes. argparse uses 2 itself.
DONE: Final = 0
PROBLEM: Final = 1
INVALID: Final = 2
INTERRUPTED: Final = 130
EXIT_CODES: Final = {
    DONE: "All checks ran and nothing is left, whatever the checks decided.",
    PROBLEM: "A check failed, something is left, the run could not start, or you did not agree.",
    INVALID: "The arguments are not valid.",
    INTERRUPTED: "SIGINT, SIGTERM or SIGHUP interrupted the run. It cleaned up and printed what "
    "is left.",
}
_BOOTSTRAP: Final = "/cdk-bootstrap/hnb659fds/version"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says.

    Args:
        arguments: The arguments. Default: those of the process.

    Returns:
        One of `EXIT_CODES`.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        for check in CHECKS.values():
            say(f"{check.name:<28} {check.title}{' (--long)' if check.pause else ''}")
            if decides := [*check.rows, *check.knobs]:
                say(f"    decides {', '.join(decides)}")
        return DONE
    _handle_signals(_interrupt)
    try:
        with _account(options) as account:
            return _run(account, options)
    except (AccountError, LocalAwsError, CdkError, BotoCoreError, ClientError) as error:
        warn(str(error))
        return PROBLEM
    except OSError as error:
        warn(f"a file cannot be used: {error} (--reports is {options.reports})")
        return PROBLEM
    except KeyboardInterrupt:
        warn("\ninterrupted")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())
    parser = argparse.ArgumentParser(
        prog="make integ ARGS=...",
        description="Compare a real AWS account with the simulated AWS. See docs/integ.md.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--only",
        action="extend",
        default=[],
        type=_checks,
        metavar="CHECK",
        help="run this check (repeatable)",
    )
    add("--long", action="store_true", help="run the checks too that take days")
    add("--disk", metavar="FILE", help="the disk to import: a file or s3://BUCKET/KEY")
    add("--yes", action="store_true", help="do not ask before the start")
    add("--reports", type=Path, default=REPORTS, metavar="FOLDER", help="where the reports are")
    add(
        "--local",
        nargs="?",
        const=0,
        type=int,
        metavar="PORT",
        help="use the simulated AWS on a port (default: start one)",
    )
    other = parser.add_mutually_exclusive_group().add_argument
    other("--list", action="store_true", help="list the checks")
    other("--policy", action="store_true", help="print the IAM policy that the run needs")
    other(
        "--resume",
        type=run_id,
        metavar="RUN",
        help="run the second halves of a run whose time has come",
    )
    other("--clean-up", type=run_id, metavar="RUN", help="delete everything that a run left")
    return parser


def _checks(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in CHECKS:
            raise argparse.ArgumentTypeError(
                f"check {name!r} does not exist: use one of {', '.join(CHECKS)}"
            )
    return names


# --- signals ---


def _handle_signals(handler: Handler) -> None:
    for number in SIGNALS:
        # A shell ignores SIGINT in a program that it runs in the background, where `kill -INT`
        # must still work. But nohup ignores SIGHUP, because the run must continue.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(*_: int | FrameType | None) -> None:
    # A second signal before the clean-up would prevent it.
    _handle_signals(lambda *_: None)
    raise KeyboardInterrupt


def _end_clean_up(run: Run) -> Handler:
    """Return a signal handler: the first signal only prints a message, the second one ends it."""
    signals: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            warn(f"not cleaned up: {_clean_up_command(run)}")
            raise KeyboardInterrupt
        warn("the clean-up still runs; another signal ends it")

    return handle


# --- the account and the run ---


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
        # Ctrl-C reaches all programs of the terminal, but the clean-up still needs the server.
        with LocalAws.start(speed=SPEED, auth=True, own_session=True) as local:
            yield Account.simulated(local)


def _run(account: Account, options: argparse.Namespace) -> int:
    identity = account.identity()
    about = {**identity, "region": account.region, "simulated": account.is_simulated}
    about["partition"] = identity["principal"].split(":")[1]
    if options.policy:
        given = find_disk(account, options.disk).stored if options.disk else None
        say(json.dumps(policy(about, PREFIX, given), indent=2))
        return DONE
    if options.clean_up:
        run = Run(account, options.clean_up, reports=options.reports)
        run.about = _same_account(run, about) or about
        for record in _waiting(run):
            record.end("interrupted", "deleted before its second half")
        return _clean_up(run)
    if options.resume:
        run = Run(account, options.resume, reports=options.reports)
        if not _same_account(run, about):
            raise AccountError(
                f"run {run.id} is not in {run.folder.parent}: resume it in the checkout in which "
                "it was started"
            )
        return _execute(run, [])
    checks = _chosen(options, simulated=account.is_simulated)
    disk = find_disk(account, options.disk)
    deploys = any(check.stacks for check in checks)
    if deploys and not account.is_simulated:
        _raise_unless_bootstrapped(account)
    run = Run(account, new_run_id(), disk, options.reports)
    run.about = {**about, "started": account.now(), "disk": disk.place}
    plan = plan_text(checks, run.about, run.prefix, disk)
    say(plan)
    if not options.yes and not _agrees():
        return PROBLEM
    run.save()
    (run.folder / "plan.txt").write_text(plan + "\n")
    if deploys and account.local:
        with tempfile.TemporaryDirectory() as folder:
            CdkCli(account.local, Path(folder)).bootstrap()
    if options.local == 0:
        # So each run in a simulated AWS of its own also checks the policy.
        run.account = account.restricted(json.dumps(policy(about, run.prefix)))
        run.about |= run.account.identity()
    return _execute(run, checks)


def _same_account(run: Run, about: dict[str, Any]) -> dict[str, Any]:
    """Return what is known about a run, or nothing if it was started in another checkout.

    Raises:
        AccountError: The run is in another account or Region.
    """
    if run.about and any(run.about[name] != about[name] for name in ("account", "region")):
        raise AccountError(
            f"run {run.id} is in account {run.about['account']}, {run.about['region']}, but these "
            f"credentials are for {about['account']}, {about['region']}: set AWS_PROFILE and "
            "AWS_REGION"
        )
    return run.about


def _chosen(options: argparse.Namespace, *, simulated: bool) -> list[Check]:
    if options.only:
        return [check for check in CHECKS.values() if check.name in options.only]
    # A day passes at once in the simulated AWS.
    return [c for c in CHECKS.values() if options.long or simulated or not c.pause]


def _agrees() -> bool:
    try:
        return input("\nStart? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        warn("\nnobody agreed: use --yes in a script")
        return False


def _raise_unless_bootstrapped(account: Account) -> None:
    ssm = account.client("ssm")
    try:
        ssm.get_parameter(Name=_BOOTSTRAP)
    except ssm.exceptions.ParameterNotFound:
        raise AccountError(
            f"{account.region} is not bootstrapped in this account: run cdk bootstrap"
        ) from None


# --- checks ---


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
        warn("\ninterrupted")
    code = _clean_up(run, calls)
    for record in _waiting(run):
        say(f"second half of {record.check}, from {timestamp(record.due)} UTC on:")
        say(f"    make integ ARGS='--resume {run.id}'")
    if isinstance(problem, KeyboardInterrupt):
        return INTERRUPTED
    if problem:
        raise problem
    failed = any(record.status == "failed" for record in run.records.values())
    return PROBLEM if failed else code


def _waiting(run: Run) -> list[Record]:
    return [record for record in run.records.values() if record.status == "waiting"]


def _perform(run: Run, record: Record) -> None:
    """Run a check, or its second half, and keep what it saw."""
    check, account = CHECKS[record.check], run.account
    is_second = record.status == "waiting"
    function = check.later if is_second and check.later else check.function
    record.clock = account.date
    say(f"{timestamp(account.date())}  {check.name}{', second half' if is_second else ''}")
    record.started = record.started or account.date()
    record.status = "running"
    try:
        function(run, record)
    except KeyboardInterrupt:
        record.end("interrupted", "interrupted")
        raise
    except (CheckError, BotoCoreError, ClientError, LocalAwsError) as error:
        record.end("failed", str(error))
    except Exception:  # noqa: BLE001 - the next check can still run
        record.end("failed", traceback.format_exc())
    else:
        if check.pause and not is_second:
            record.status, record.due = "waiting", account.date() + check.pause
        else:
            record.end("completed")
    finally:
        record.ended = account.date()
        run.save()
    for verdict in record.verdicts:
        say(f"    {verdict.outcome.value:<12} {verdict.subject}")
    if record.error:
        say(f"    failed: {record.error.strip()[-1500:]}")


def _clean_up(run: Run, calls: dict[str, int] | str = "not looked up") -> int:
    """Delete what the run created, write the report if there is one, and print what is left."""
    _handle_signals(_end_clean_up(run))
    place = f"account {run.about['account']}, {run.about['region']}"
    say(f"{timestamp(run.account.date())}  clean-up of run {run.id} in {place}")
    kept = [
        str(value)
        for record in _waiting(run)
        for value in [record.kept.get("arn"), run.tasks.get(record.kept.get("task", ""))]
        if value and "arn" in record.kept
    ]
    left = CleanUp(run, kept).delete_all()
    if run.records:
        run.save()
        path = write_report(run, calls, left)
        for line in summary(run):
            say(line)
        say(f"report: {path}")
    for kind, names in left.items():
        say(f"left: {kind}: {', '.join(names)}")
    if left:
        say(f"to delete what is left: {_clean_up_command(run)}")
        return PROBLEM
    say("nothing is left" + (f", except {', '.join(kept)}" if kept else ""))
    return DONE


def _clean_up_command(run: Run) -> str:
    return f"make integ ARGS='--clean-up {run.id}'"


if __name__ == "__main__":
    sys.exit(main())
