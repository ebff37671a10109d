"""Play many random sequences of stack operations, on all processors: `make soak`.

10,000 of an image alone, under every order of events; and 2,000 of a stack of an import task, its
image and the links that wait for it. Each batch has a seed; `--seed` plays only that batch again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import multiprocessing
import random
import sys
import time
import traceback

from tests.lifecycle import test_lifecycle_machine, test_stack
from tests.lifecycle.test_lifecycle_machine import AWS

_BATCH = 500
_STACKS = _BATCH // 5
_PLAYED = f"{_BATCH} sequences of an image and {_STACKS} of a stack"


def batch(seed: int) -> tuple[int, float, str]:
    """Play one batch; return its seed, its seconds and what went wrong."""
    start = time.monotonic()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            test_lifecycle_machine.play(_BATCH, seed)
            logging.disable(logging.CRITICAL)
            with AWS.installed():
                for stack in range(seed * _STACKS, (seed + 1) * _STACKS):
                    try:
                        test_stack.play(AWS, stack)
                    except BaseException as error:
                        error.add_note(f"the stack of seed {stack}")
                        raise
        except Exception:  # noqa: BLE001 - whatever it is, it is reported with its sequence
            return seed, time.monotonic() - start, f"{output.getvalue()}{traceback.format_exc()}"
    return seed, time.monotonic() - start, ""


def main() -> int:
    """Play all batches and print what each comes to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--seed", type=int, help="of one batch; default: others each time")
    options = parser.parse_args()
    first = random.randrange(10**6) * 1000  # noqa: S311
    count = -(-options.sequences // _BATCH)
    seeds = [options.seed] if options.seed is not None else [first + n for n in range(count)]
    start = time.monotonic()
    failures = 0
    with multiprocessing.get_context("spawn").Pool() as pool:
        for seed, seconds, problem in pool.imap_unordered(batch, seeds):
            failures += bool(problem)
            outcome = "FAILED" if problem else "passed"
            sys.stdout.write(f"seed {seed}: {_PLAYED} {outcome} in {seconds:.0f} s\n")
            sys.stdout.write(problem)
            sys.stdout.flush()
    sys.stdout.write(
        f"{len(seeds) * _BATCH} sequences of an image and {len(seeds) * _STACKS} of a stack, "
        f"{failures} of {len(seeds)} batches failed, "
        f"in {time.monotonic() - start:.0f} s\n"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
