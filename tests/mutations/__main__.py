"""Deliberate faults, one by one; the tests must notice each: `make mutate`.

These are lists by hand instead of mutmut or cosmic-ray: those change every operator and constant,
mostly texts and time limits that no behaviour depends on, and cannot express faults such as a
lookup that is left out. A mutation names a module, a function and a change of its syntax tree. One
whose node is not found exactly once is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.mutations import of_handler, of_local_aws


def main() -> int:
    """Try all, and print which the tests notice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="only faults with this in their name")
    wanted = parser.parse_args().name
    mutations = (*of_handler.MUTATIONS, *of_local_aws.MUTATIONS)
    chosen = [mutation for mutation in mutations if wanted in mutation.name]
    start = time.monotonic()
    problems = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda mutation: mutation.problem, chosen)
        for mutation, problem in zip(chosen, found, strict=True):
            problems += bool(problem)
            where = f"{mutation.module}.{mutation.function}".rstrip(".")
            sys.stdout.write(f"{problem or 'noticed'}: {mutation.name} ({where})\n")
            sys.stdout.flush()
    seconds = time.monotonic() - start
    sys.stdout.write(f"{len(chosen)} mutations, {problems} problems, in {seconds:.0f} s\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
