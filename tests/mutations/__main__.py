"""Deliberate faults, one by one; the tests must notice each: `make mutate`.

These are lists by hand instead of mutmut or cosmic-ray: those change every operator and constant,
mostly texts and time limits that no behaviour depends on, and cannot express faults such as a
lookup that is left out. A mutation names a module, a function and a change of its syntax tree. One
whose node is not found exactly once is an error.

noticed_by.json says which test noticed each the last time. It is run first, because that saves
most of the time; if it passes, the others are run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.mutations import of_handler, of_local_aws

_NOTICED_BY: Final = Path(__file__).with_name("noticed_by.json")


def main() -> int:
    """Try all, and print which the tests notice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="only faults with this in their name")
    wanted = parser.parse_args().name
    mutations = (*of_handler.MUTATIONS, *of_local_aws.MUTATIONS)
    chosen = [mutation for mutation in mutations if wanted in mutation.name]
    names = {mutation.name for mutation in mutations}
    noticed_by: dict[str, str] = json.loads(_NOTICED_BY.read_text())
    noticed_by = {name: test for name, test in noticed_by.items() if name in names}
    start = time.monotonic()
    problems = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda one: one.run(noticed_by.get(one.name, "")), chosen)
        for mutation, result in zip(chosen, results, strict=True):
            problems += bool(result.problem)
            if result.noticed_by:
                noticed_by[mutation.name] = result.noticed_by
                _NOTICED_BY.write_text(json.dumps(noticed_by, indent=1, sort_keys=True) + "\n")
            where = f"{mutation.module}.{mutation.function}".rstrip(".")
            sys.stdout.write(f"{result.problem or 'noticed'}: {mutation.name} ({where})\n")
            sys.stdout.flush()
    seconds = time.monotonic() - start
    sys.stdout.write(f"{len(chosen)} mutations, {problems} problems, in {seconds:.0f} s\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
