"""Deliberate faults in the handler, one by one: the tests must notice each (`make mutate`).

A list by hand instead of mutmut or cosmic-ray: those change every operator and constant, mostly
texts and time-outs that no behaviour depends on, and cannot express faults like a lookup left out;
here each entry is a fault that would lose, leave or duplicate an image, or hang a stack.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]
_HANDLER = _CHECKOUT / "lambda" / "vm_import"
_TESTS = (
    "tests/lifecycle/test_sequences.py",
    "tests/handler/test_image_properties.py",
    "tests/handler/test_cfn_resource.py",
    "tests/lifecycle/test_task_and_image.py",
    "tests/handler/test_import_task.py",
    "tests/handler/test_waiting.py",
)


@dataclass(frozen=True)
class Mutation:
    """A fault: in a file of the handler, one text instead of another."""

    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        "the stack and resource tags are dropped",
        "image_properties.py",
        "{**self.tags, **owner.tags, TOKEN_TAG: token}",
        "{**self.tags, TOKEN_TAG: token}",
    ),
    Mutation(
        "the token tag is dropped",
        "image_properties.py",
        "{**self.tags, **owner.tags, TOKEN_TAG: token}",
        "{**self.tags, **owner.tags}",
    ),
    Mutation(
        "the token is another each time",
        "image_properties.py",
        "str(uuid.uuid5(_NAMESPACE, text))",
        "str(uuid.uuid4())",
    ),
    Mutation(
        "the token does not depend on the resource",
        "image_properties.py",
        "[owner.stack_id, owner.logical_id, identity]",
        "[owner.stack_id, identity]",
    ),
    Mutation(
        "there is one generation only",
        "image_properties.py",
        "GENERATIONS: Final = 5",
        "GENERATIONS: Final = 1",
    ),
    Mutation(
        "the user's client token is passed over",
        "image_properties.py",
        '"clientToken": self.client_token or token',
        '"clientToken": token',
    ),
    Mutation(
        "a name of any form is taken",
        "image_properties.py",
        'if not _NAME.fullmatch(properties["Name"]):',
        "if False:",
    ),
    Mutation(
        "the policy is not read",
        "image_properties.py",
        'retained=str(properties.get("Retain")).lower() == "true"',
        "retained=False",
    ),
    Mutation(
        "the lookup is skipped",
        "lifecycle.py",
        "        own = self._own(sought)\n        doomed",
        "        own = list[Image]()\n        doomed",
    ),
    Mutation(
        "dead images count as alive",
        "lifecycle.py",
        "if image := next((image for image in own if not image.is_dead), None):",
        "if image := next((image for image in own), None):",
    ),
    Mutation(
        "images of others count as own",
        "lifecycle.py",
        "return self._owner.tags.items() <= image.tags.items()",
        "return True",
    ),
    Mutation(
        "an image that was given away is still changed",
        "lifecycle.py",
        "if image and not image.is_dead and not self._is_of_another(image):",
        "if image and not image.is_dead:",
    ),
    Mutation(
        "what the import answers is not looked at",
        "lifecycle.py",
        "        return image and replace(image, request_id=request_id)",
        "        return replace(image, request_id=request_id) if image else "
        'Image(arn, "PENDING", "", {}, request_id)',
    ),
    Mutation(
        "a lost answer is a failure",
        "lifecycle.py",
        "if own or (mismatch and not properties.client_token):",
        "if mismatch and not properties.client_token:",
    ),
    Mutation(
        "a burnt token is an error",
        "lifecycle.py",
        "if own or (mismatch and not properties.client_token):",
        "if own:",
    ),
    Mutation(
        "a Create answers no id to clean up by",
        "lifecycle.py",
        "        self._answer_with(properties.placeholder(self._owner))\n"
        "        return self._ensure(properties)",
        "        return self._ensure(properties)",
    ),
    Mutation(
        "a failed Update answers the old id",
        "lifecycle.py",
        "                if failed_id:\n                    self._answer_with(failed_id)\n",
        "",
    ),
    Mutation(
        "an Update of tags answers an id that means the image in use",
        "lifecycle.py",
        "return self._ensure(properties, physical_id, old.tags)",
        "return self._ensure(properties, physical_id, old.tags, "
        "properties.placeholder(self._owner))",
    ),
    Mutation(
        "an Update deletes the image that it replaces",
        "lifecycle.py",
        "if old and physical_id in {result.arn, old.placeholder(self._owner)}:",
        "if old:",
    ),
    Mutation(
        "a rollback sweeps nothing",
        "lifecycle.py",
        "if old and physical_id in {result.arn, old.placeholder(self._owner)}:",
        "if old and physical_id == old.placeholder(self._owner):",
    ),
    Mutation(
        "a rollback sweeps nothing that a placeholder stands for",
        "lifecycle.py",
        "if old and physical_id in {result.arn, old.placeholder(self._owner)}:",
        "if old and physical_id == result.arn:",
    ),
    Mutation(
        "a Delete does not wait for a Create in flight",
        "lifecycle.py",
        "_LOOKS_FOR_OTHERS: Final = 8",
        "_LOOKS_FOR_OTHERS: Final = 1",
    ),
    Mutation(
        "a Delete passes over an id that CloudFormation invented",
        "lifecycle.py",
        "        elif properties:\n            sought",
        "        elif properties and is_image_arn(physical_id):\n            sought",
    ),
    Mutation(
        "a Delete passes over a placeholder",
        "lifecycle.py",
        "            doomed += self._look_for_own(_LOOKS, sought)\n",
        "            doomed += []\n",
    ),
    Mutation(
        "a Delete takes live images of other ids along",
        "lifecycle.py",
        "[other for other in others if other.is_dead and other.build < build]",
        "[other for other in others if other.build < build]",
    ),
    Mutation(
        "a Delete removes an image without our tags",
        "lifecycle.py",
        "if image and self._is_own(image):",
        "if image:",
    ),
    Mutation(
        "a retained image of any age is deleted",
        "lifecycle.py",
        "return retained and not image.is_dead and image.age > _OLDEST_NEWCOMER",
        "return False",
    ),
    Mutation(
        "an old image is kept though nobody retains it",
        "lifecycle.py",
        "return retained and not image.is_dead and image.age > _OLDEST_NEWCOMER",
        "return not image.is_dead and image.age > _OLDEST_NEWCOMER",
    ),
    Mutation(
        "a rollback sweeps retained images",
        "lifecycle.py",
        "self._sweep(image for image in images if not _is_kept(image, old))",
        "self._sweep(images)",
    ),
    Mutation(
        "dead images are left",
        "lifecycle.py",
        "        finally:\n            self._sweep(doomed)",
        "        finally:\n            pass",
    ),
    Mutation(
        "dead images are left when the event fails",
        "lifecycle.py",
        "        finally:\n            self._sweep(doomed)\n",
        "        except ZeroDivisionError:\n            raise\n        self._sweep(doomed)\n",
    ),
    Mutation(
        "a running image is not cancelled",
        "lifecycle.py",
        "        if image.is_running:\n            self._aws.cancel(image)\n",
        "",
    ),
    Mutation(
        "a running image is deleted at once",
        "lifecycle.py",
        "            if not seen.is_running:\n                self._aws.delete(seen)\n"
        "                return",
        "            self._aws.delete(seen)\n            return",
    ),
    Mutation(
        "our tags are not put back",
        "lifecycle.py",
        "wanted = {**properties.tags, **self._owner.tags, TOKEN_TAG: token}",
        "wanted = {**properties.tags}",
    ),
    Mutation(
        "one look is enough for an image that was just made",
        "lifecycle.py",
        "image = self._look(_LOOKS, lambda: self._aws.get(physical_id))",
        "image = self._aws.get(physical_id)",
    ),
    Mutation(
        "one look is enough for what a placeholder stands for",
        "lifecycle.py",
        "self._look_for_own(_LOOKS, sought)",
        "self._look_for_own(1, sought)",
    ),
    Mutation(
        "a dead image ends the look for the one in the making",
        "lifecycle.py",
        "return any(not image.is_dead for image in seen)",
        "return bool(seen)",
    ),
    Mutation(
        "an import that was answered is listed at once",
        "lifecycle.py",
        "looks = _LOOKS if arn or mismatch or error.is_transient else 1",
        "looks = _LOOKS if mismatch or error.is_transient else 1",
    ),
    Mutation(
        "tags are compared with what is seen alone",
        "lifecycle.py",
        "        changed |= dict(properties.tags.items() - before.items())\n",
        "",
    ),
    Mutation(
        "a rollback to a dead image fails",
        "lifecycle.py",
        "            if not (physical_id and own):\n                raise\n",
        "            raise\n",
    ),
    Mutation(
        "a wait is not named after its request",
        "state_machine.py",
        '"name": _name(event),',
        '"name": f"{_prefix(event)}{id(event)}",',
    ),
    Mutation(
        "a request that was handed over is an error",
        "state_machine.py",
        'if refusal.code == "ExecutionAlreadyExists":\n                    break',
        'if refusal.code == "ExecutionAlreadyExists":\n                    raise refusal',
    ),
    Mutation(
        "the waits of all resources are ended",
        "state_machine.py",
        'if listed["name"].startswith(prefix):',
        "if True:",
    ),
    Mutation(
        "an event ends its own wait",
        "state_machine.py",
        "if other.is_running and own.is_after(other):",
        "if other.is_running:",
    ),
    Mutation(
        "earlier waits go on",
        "index.py",
        "        take_turn(event, state_machine)\n",
        "        pass\n",
    ),
    Mutation(
        "an event that comes too late is carried out",
        "state_machine.py",
        "            if other.is_after(own):\n",
        "            if False:\n",
    ),
    Mutation(
        "events are taken in the order in which they come",
        "state_machine.py",
        "if self.sent and other.sent and abs(self.sent - other.sent) > _SKEW:",
        "if False:",
    ),
    Mutation(
        "events without a date have no order",
        "state_machine.py",
        "return self.started > other.started",
        "return False",
    ),
    Mutation(
        "a Delete fails without the state machine",
        "index.py",
        '        if event["RequestType"] != "Delete":\n            raise\n',
        "        raise\n",
    ),
    Mutation(
        "the wait has no end",
        "waiting.py",
        "return min(timeout, (LONGEST_SIGNAL if after_answer else LONGEST_ANSWER) - GRACE)",
        'return float("inf")',
    ),
    Mutation(
        "a failed task does not end the wait",
        "progress.py",
        "    if image.is_dead or failed:\n",
        "    if image.is_dead:\n",
    ),
    Mutation(
        "a wait in vain leaves its image",
        "imported_vm_image.py",
        'if waiting.image != self._event.get("PhysicalResourceId"):',
        "if False:",
    ),
    Mutation(
        "a wait in vain takes a retained image for its newcomer",
        "imported_vm_image.py",
        "self._lifecycle(_FOR_THE_CLEAN_UP).delete(arn, properties)",
        "self._lifecycle(_FOR_THE_CLEAN_UP).delete(arn, None)",
    ),
    Mutation(
        "a Delete looks for an import in flight no longer than a step takes",
        "imported_vm_image.py",
        "step = _FOR_A_STEP if is_image_arn(physical_id) else _FOR_THE_CLEAN_UP",
        "step = _FOR_A_STEP",
    ),
    Mutation(
        "a deprecated image is dead",
        "image_builder.py",
        'frozenset({"FAILED", "CANCELLED", "DELETED"})',
        'frozenset({"FAILED", "CANCELLED", "DELETED", "DEPRECATED", "DISABLED"})',
    ),
    Mutation(
        "an image that is gone is an error",
        "errors.py",
        'NOT_FOUND: Final = frozenset({"ResourceNotFoundException"})',
        "NOT_FOUND: Final = frozenset[str]()",
    ),
    Mutation(
        "an error of DeleteImage is swallowed",
        "image_builder.py",
        "            if error.code not in NOT_FOUND:\n                raise",
        "            logger.info(str(error))",
    ),
    Mutation(
        "throttling is a failure",
        "aws_calls.py",
        "if not (patient or failure.code in THROTTLED):",
        "if not patient or failure.code in THROTTLED:",
    ),
    Mutation(
        "without waiting nobody tags the AMI",
        "imported_vm_image.py",
        "waiting.wait_until(self._limit(import_limit))\n            return",
        "return",
    ),
    Mutation(
        "an AMI that could not be tagged is forgotten",
        "imported_vm_image.py",
        "return not is_transient(error)",
        "return True",
    ),
    Mutation(
        "what nobody waits for is signalled",
        "imported_vm_image.py",
        "if handle and not self._handle_is_used:\n            signal",
        "if handle:\n            signal",
    ),
    Mutation(
        "a fault of AWS is a failure",
        "aws_calls.py",
        "if not (patient or failure.code in THROTTLED):",
        "if failure.code not in THROTTLED:",
    ),
    Mutation(
        "no time is kept back for the answer",
        "deadline.py",
        "_FOR_THE_ANSWER: Final = 120.0",
        "_FOR_THE_ANSWER: Final = 0.0",
    ),
    Mutation(
        "the event's failure is answered as success",
        "cfn_resource.py",
        'self.Status = "FAILED"',
        'self.Status = "SUCCESS"',
    ),
    Mutation(
        "it is answered twice",
        "cfn_resource.py",
        "            if not problem:\n                return\n",
        "            if not problem:\n                self._put(body)\n                return\n",
    ),
    Mutation(
        "a refused answer counts as delivered",
        "cfn_resource.py",
        "return None if response.status // 100 == 2",
        "return None if response.status // 100 != 7",
    ),
    Mutation(
        "an answer may have any length",
        "cfn_resource.py",
        "_LONGEST_ANSWER: Final = 4096",
        "_LONGEST_ANSWER: Final = 8192",
    ),
    Mutation(
        "the snapshots of a dead import are left",
        "import_tasks.py",
        'return self.status in {"deleting", "deleted"}',
        "return False",
    ),
    Mutation(
        "the snapshots of a cancelled import are looked for but not deleted",
        "imported_amis.py",
        "return self._ec2.delete_snapshots(left)\n\n    def left_by",
        "return {}\n\n    def left_by",
    ),
    Mutation(
        "an AMI does not tell its task",
        "imported_amis.py",
        "wanted[TOKEN_TAG] = task.token",
        "pass",
    ),
    Mutation(
        "an update that is rolled back has the AMI tell another task",
        "import_task_lifecycle.py",
        " and TOKEN_TAG not in ami.tags",
        "",
    ),
    Mutation(
        "the task of an update that never answered is left",
        "import_task_lifecycle.py",
        "self._end([task.task_id for task in tasks], old)",
        "pass",
    ),
    Mutation(
        "an undelivered answer is forgotten",
        "cfn_resource.py",
        "                raise self._undelivered\n            time.sleep",
        "                return\n            time.sleep",
    ),
    Mutation(
        "a failed event gets an empty id",
        "cfn_resource.py",
        'return str(event["RequestId"])',
        'return ""',
    ),
)


def survives(mutation: Mutation) -> str:
    """Try a fault; return what is wrong with the tests, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        handler = Path(folder) / "vm_import"
        shutil.copytree(_HANDLER, handler, ignore=shutil.ignore_patterns("__pycache__"))
        source = handler / mutation.file
        text = source.read_text()
        if text.count(mutation.old) != 1:
            return "STALE: its old text is not there once"
        source.write_text(text.replace(mutation.old, mutation.new))
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        run = subprocess.run(
            [*pytest, "-o", f"pythonpath=. {handler}", *_TESTS],
            cwd=_CHECKOUT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode == 0:
        return "SURVIVES"
    # a fault that only keeps the tests from running shows nothing
    return "" if "1 failed" in run.stdout else f"NO TEST RAN:\n{run.stdout[-2000:]}"


def main() -> int:
    """Try all; print which the tests notice."""
    start = time.monotonic()
    problems = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutation, problem in zip(MUTATIONS, pool.map(survives, MUTATIONS), strict=True):
            problems += bool(problem)
            sys.stdout.write(f"{problem or 'noticed'}: {mutation.name} ({mutation.file})\n")
            sys.stdout.flush()
    seconds = time.monotonic() - start
    sys.stdout.write(f"{len(MUTATIONS)} faults, {problems} unnoticed, in {seconds:.0f} s\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
