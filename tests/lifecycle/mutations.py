"""Deliberate faults in handler and constructs, one by one; the tests must notice each.

`make mutate` runs this.

This is a list by hand instead of mutmut or cosmic-ray: those change every operator and constant,
mostly texts and time limits that no behaviour depends on, and cannot express faults such as a
lookup that is left out. Each entry here is a fault that would lose, orphan or duplicate an image,
or hang a stack.

A mutation names a module, a function and a change of its syntax tree. A change finds its node by
its kind and by the identifiers in it, so it survives new lines, other texts and moved code. A
mutation whose node is not found exactly once is an error.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CHECKOUT = Path(__file__).parents[2]
# The handler and the constructs, as they lie in the checkout: the constructs load the contract.
_SOURCES = (Path("lambda", "vm_import"), Path("constructs"))
_HANDLER_TESTS = (
    "tests/unit",
    "tests/lifecycle/test_sequences.py",
    "tests/handler",
    "tests/lifecycle",
)
_CONSTRUCT_TESTS = tuple(
    f"tests/construct/test_{name}.py"
    for name in ("vm_import_task", "vm_import_role", "imported_vm_image", "policies")
)

Replacement = Callable[[ast.AST], ast.AST | None]
Change = Callable[[ast.AST], int]
"""Changes a function's syntax tree; returns how many nodes it has changed."""


class StaleError(Exception):
    """The node of a mutation is not found exactly once."""


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        name: What is wrong.
        module: The module, such as `image.resource` or `cdk_vm_import.vm_disk`.
        function: The qualified name of the function in the module; empty: the module itself.
        change: The change of the function's syntax tree.
    """

    name: str
    module: str
    function: str
    change: Change

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests that must notice it."""
        return _CONSTRUCT_TESTS if self.module.startswith("cdk_vm_import") else _HANDLER_TESTS

    def apply(self, copy: Path) -> None:
        """Write the fault into a copy of the sources.

        Raises:
            StaleError: The node of the mutation is not found exactly once.
        """
        files = [copy / root / f"{self.module.replace('.', '/')}.py" for root in _SOURCES]
        source = _one(file for file in files if file.is_file())
        tree: ast.AST = ast.parse(source.read_text())
        node = tree
        for part in filter(None, self.function.split(".")):
            node = _one(
                child
                for child in ast.iter_child_nodes(node)
                if isinstance(child, (ast.ClassDef, ast.FunctionDef)) and child.name == part
            )
        if (count := self.change(node)) != 1:
            raise StaleError(f"{count} nodes match in {self.module}.{self.function}")
        source.write_text(ast.unparse(ast.fix_missing_locations(tree)))


def _one(candidates: Iterable[T]) -> T:
    found = list(candidates)
    if len(found) != 1:
        raise StaleError(f"{len(found)} functions or files match")
    return found[0]


def _identifiers(node: ast.AST) -> set[str]:
    """The names, attributes, arguments and strings in a node."""
    found = set()
    for child in ast.walk(node):
        for name in ("id", "attr", "arg", "name"):
            if isinstance(value := getattr(child, name, None), str):
                found.add(value)
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            found.add(child.value)
    return found


def _replace(root: ast.AST, matches: Callable[[ast.AST], bool], replacement: Replacement) -> int:
    """Replace the nodes that match; return their number."""
    count = 0

    class Transformer(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST | None:
            nonlocal count
            if matches(node):
                count += 1
                return replacement(node)
            return self.generic_visit(node)

    Transformer().generic_visit(root)
    return count


def _expression(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body


# --- changes ---


def _test(names: set[str], replacement: Replacement, root: ast.AST) -> int:
    count = 0
    for node in ast.walk(root):
        if isinstance(node, (ast.If, ast.IfExp, ast.While)) and names <= _identifiers(node.test):
            node.test = replacement(node.test)  # type: ignore[assignment]
            count += 1
        if isinstance(node, ast.comprehension):
            for index, test in enumerate(node.ifs):
                if names <= _identifiers(test):
                    node.ifs[index] = replacement(test)  # type: ignore[call-overload]
                    count += 1
    return count


def always(*names: str) -> Change:
    """Take the branch whose condition contains the identifiers."""
    return partial(_test, {*names}, lambda _: ast.Constant(value=True))


def never(*names: str) -> Change:
    """Skip the branch whose condition contains the identifiers."""
    return partial(_test, {*names}, lambda _: ast.Constant(value=False))


def drop_operand(*names: str, beside: str = "") -> Change:
    """Remove the operand of `and` or `or` that contains the identifiers.

    Args:
        names: The identifiers.
        beside: An identifier in another operand.
    """

    def change(root: ast.AST) -> int:
        count = 0
        for node in ast.walk(root):
            if not isinstance(node, ast.BoolOp) or not {beside} - {""} <= _identifiers(node):
                continue
            kept = [value for value in node.values if not {*names} <= _identifiers(value)]
            if kept and len(kept) < len(node.values):
                count += len(node.values) - len(kept)
                node.values = kept if len(kept) > 1 else [*kept, kept[0]]
        return count

    return change


def call(name: str, becomes: str) -> Change:
    """Replace the call of a function or method by an expression."""

    def is_call(node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        return name in {getattr(node.func, "id", None), getattr(node.func, "attr", None)}

    return partial(_replace, matches=is_call, replacement=lambda _: _expression(becomes))


def argument(function: str, index: int, becomes: str) -> Change:
    """Replace a positional argument of the call of a function or method."""

    def change(root: ast.AST) -> int:
        count = 0
        for node in ast.walk(root):
            if isinstance(node, ast.Call) and function in {
                getattr(node.func, "id", None),
                getattr(node.func, "attr", None),
            }:
                node.args[index] = _expression(becomes)
                count += 1
        return count

    return change


def returns(becomes: str) -> Change:
    """Have the function return the value of an expression."""

    def change(root: ast.AST) -> int:
        assert isinstance(root, ast.FunctionDef)
        root.body = [ast.Return(_expression(becomes))]
        return 1

    return change


def assign(name: str, becomes: str) -> Change:
    """Assign another value to a variable or constant."""

    def change(root: ast.AST) -> int:
        count = 0
        for node in ast.walk(root):
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if name in {getattr(target, "id", None) for target in targets}:
                    node.value = _expression(becomes)
                    count += 1
        return count

    return change


def drop_entry(*names: str) -> Change:
    """Remove the entry of a dictionary, or the element of a list or set, with the identifiers."""

    def change(root: ast.AST) -> int:
        count = 0
        for node in ast.walk(root):
            if isinstance(node, ast.Dict):
                entries = [*zip(node.keys, node.values, strict=True)]
                kept = [
                    (key, value)
                    for key, value in entries
                    if not {*names} <= _identifiers(ast.Tuple([*filter(None, [key, value])]))
                ]
                count += len(entries) - len(kept)
                node.keys, node.values = [k for k, _ in kept], [v for _, v in kept]
            elif isinstance(node, (ast.List, ast.Set)):
                elements = [e for e in node.elts if not {*names} <= _identifiers(e)]
                count += len(node.elts) - len(elements)
                node.elts = elements
        return count

    return change


def drop_statement(*names: str) -> Change:
    """Remove the innermost statement that contains the identifiers."""

    def matches(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.stmt)
            and {*names} <= _identifiers(node)
            and not any(
                isinstance(child, ast.stmt) and {*names} <= _identifiers(child)
                for child in ast.walk(node)
                if child is not node
            )
        )

    return partial(_replace, matches=matches, replacement=lambda _: ast.Pass())


def drop_keyword(name: str) -> Change:
    """Leave a keyword argument out of the call that has it."""

    def change(root: ast.AST) -> int:
        count = 0
        for node in ast.walk(root):
            if isinstance(node, ast.Call):
                kept = [keyword for keyword in node.keywords if keyword.arg != name]
                count += len(node.keywords) - len(kept)
                node.keywords = kept
        return count

    return change


def drop_finally() -> Change:
    """Remove the `finally` of the one `try` that has it; its body runs if nothing is raised."""

    def change(root: ast.AST) -> int:
        count = 0
        for node in ast.walk(root):
            if isinstance(node, ast.Try) and node.finalbody:
                node.finalbody = []
                count += 1
        return count

    return change


def _handle(error: str, body: ast.stmt, root: ast.AST) -> int:
    count = 0
    for node in ast.walk(root):
        if not isinstance(node, ast.ExceptHandler) or node.type is None:
            continue
        if error in _identifiers(node.type):
            node.body = [body]
            count += 1
    return count


def raise_in_handler(error: str) -> Change:
    """Have the handler of an exception raise it again."""
    return partial(_handle, error, ast.Raise())


def ignore_in_handler(error: str) -> Change:
    """Have the handler of an exception ignore it."""
    return partial(_handle, error, ast.Pass())


R = "Reconciler"
MUTATIONS = (
    # identity and properties
    Mutation("the tag of the token is left out", "identity", "Record.tag", returns("{}")),
    Mutation(
        "the token is different each time", "identity", "tokens_of", call("uuid5", "uuid.uuid4()")
    ),
    Mutation(
        "the token does not depend on the resource",
        "identity",
        "tokens_of",
        drop_entry("logical_id"),
    ),
    Mutation(
        "the token does not depend on the stack", "identity", "tokens_of", drop_entry("stack_id")
    ),
    Mutation("there is only one token", "identity", "", assign("MAX_TOKENS", "1")),
    Mutation("the tag of the stack is left out", "identity", "Owner.tags", drop_entry("STACK")),
    Mutation("resources of others count as own", "identity", "Owner.owns", returns("True")),
    Mutation(
        "nothing belongs to another resource", "identity", "Owner.is_another", returns("False")
    ),
    Mutation(
        "the client token of the user is ignored",
        "image.properties",
        "ImageProperties.request",
        drop_operand("client_token"),
    ),
    Mutation(
        "a name of any form is accepted",
        "image.properties",
        "ImageProperties.read",
        never("fullmatch"),
    ),
    Mutation("no image is retained", "image.resource", "Images._was_retained", returns("False")),
    # find or create
    Mutation("the lookup is left out", "reconciler", f"{R}._find_or_create", call("find", "[]")),
    Mutation(
        "failed images count as usable", "aws.image_builder", "Image.is_usable", returns("True")
    ),
    Mutation(
        "an image in the hands of another resource is changed",
        "reconciler",
        f"{R}.update",
        drop_operand("is_another"),
    ),
    Mutation(
        "the answer of the import is not checked",
        "reconciler",
        f"{R}._create_under",
        never("is_another"),
    ),
    Mutation(
        "a lost answer is a failure", "reconciler", f"{R}._create_under", assign("existing", "None")
    ),
    Mutation(
        "a used token is an error",
        "reconciler",
        f"{R}._create_under",
        drop_operand("is_token_used", beside="existing"),
    ),
    Mutation("a failed Create names no id", "index", "_placeholder", returns("''")),
    Mutation(
        "a failed Update names the old id",
        "reconciler",
        f"{R}._find_or_create",
        argument("failures_name", 0, "''"),
    ),
    Mutation(
        "an Update that runs beside its rollback deletes the image of the rollback",
        "reconciler",
        f"{R}._is_left",
        returns("True"),
    ),
    Mutation(
        "a rollback deletes nothing", "reconciler", f"{R}._clean_up_after", never("_rolls_back_to")
    ),
    Mutation(
        "a rollback deletes nothing that a placeholder names",
        "reconciler",
        f"{R}._rolls_back_to",
        drop_operand("placeholder", beside="result_id"),
    ),
    Mutation(
        "a rollback from an id deletes nothing",
        "reconciler",
        f"{R}._rolls_back_to",
        drop_operand("result_id"),
    ),
    Mutation(
        "a rollback forgets the successor of an image that was deleted by hand",
        "reconciler",
        f"{R}._rolls_back_to",
        call("stack", "None"),
    ),
    Mutation(
        "a Delete does not wait for a concurrent Create",
        "aws.session",
        "",
        assign("READS_WHILE_OTHERS_WORK", "1"),
    ),
    Mutation(
        "a Delete ignores an id that CloudFormation invented",
        "reconciler",
        f"{R}._named_by",
        never("properties"),
    ),
    Mutation(
        "a Delete ignores a placeholder", "reconciler", f"{R}._named_by", call("read", "None")
    ),
    Mutation(
        "a Delete takes the image of a later event",
        "reconciler",
        f"{R}.delete",
        call("_belongs_to_another_event", "False"),
    ),
    Mutation(
        "a Delete by a placeholder takes the image of a later event",
        "reconciler",
        f"{R}._belongs_to_another_event",
        call("read", "None"),
    ),
    Mutation(
        "a Delete by an invented id takes the image of a later event",
        "reconciler",
        f"{R}._belongs_to_another_event",
        never("changed"),
    ),
    Mutation(
        "a Delete by an invented id leaves the images of a stack that is deleted",
        "reconciler",
        f"{R}._belongs_to_another_event",
        never("is_deleted"),
    ),
    Mutation(
        "an image does not record who created it", "reconciler", f"{R}._record", always("is_new")
    ),
    Mutation(
        "an image does not record who adopted it",
        "reconciler",
        f"{R}._record",
        drop_statement("adopted_by"),
    ),
    Mutation("a denied Delete fails", "reconciler", f"{R}.delete", raise_in_handler("AwsError")),
    Mutation(
        "a Delete deletes an image without the tags of the resource",
        "reconciler",
        f"{R}.delete_existing",
        never("owns"),
    ),
    Mutation(
        "a rollback deletes a retained image that the update did not find",
        "image.resource",
        "Images._was_retained",
        always("_LONGEST_OPERATION"),
    ),
    Mutation(
        "a rollback deletes a retained image that the update adopted",
        "image.resource",
        "Images._was_retained",
        drop_operand("adopted_by", beside="_LONGEST_OPERATION"),
    ),
    Mutation(
        "a new policy does not delete the old image",
        "image.resource",
        "Images._was_retained",
        call("stack", "None"),
    ),
    Mutation(
        "an image is retained though nobody retains it",
        "image.resource",
        "Images.delete",
        drop_operand("is_retained", beside="_was_retained"),
    ),
    Mutation("failed images are left", "reconciler", f"{R}._find_or_create", drop_finally()),
    Mutation(
        "a running image is not cancelled",
        "image.resource",
        "Images.delete",
        call("cancel", "None"),
    ),
    Mutation(
        "a running image is deleted at once",
        "image.resource",
        "Images.delete",
        call("read_until_found", "True"),
    ),
    Mutation(
        "the tags of the resource are not put back", "reconciler", f"{R}._tag", drop_entry("_owner")
    ),
    Mutation(
        "the tag of the token is not put back", "reconciler", f"{R}._tag", drop_entry("record")
    ),
    Mutation(
        "tags that were removed from the template stay",
        "reconciler",
        f"{R}._tag",
        argument("change_tags", 2, "[]"),
    ),
    Mutation(
        "tags are compared only with what is read",
        "reconciler",
        f"{R}._tag",
        drop_statement("items", "changed", "previous", "dict"),
    ),
    Mutation("a new image is read only once", "aws.session", "", assign("READS", "1")),
    Mutation(
        "a failed image ends the search for one that is being created",
        "reconciler",
        f"{R}._find.is_found",
        call("any", "bool(found)"),
    ),
    Mutation(
        "a rollback to a failed image fails",
        "reconciler",
        f"{R}._find_or_create",
        raise_in_handler("ImportTaskError"),
    ),
    Mutation(
        "a failed import task is not noticed before the import",
        "image.resource",
        "Images.check",
        never("is_usable"),
    ),
    Mutation(
        "an unknown import task is not noticed before the import",
        "image.resource",
        "Images.check",
        always("task", "is_usable"),
    ),
    # executions
    Mutation(
        "an execution is not named after its request",
        "cloudformation.event",
        "Event.id",
        drop_entry("RequestId"),
    ),
    Mutation(
        "an execution that exists is an error",
        "aws.step_functions",
        "StateMachine.start",
        raise_in_handler("AwsError"),
    ),
    Mutation(
        "the executions of all resources are stopped",
        "cloudformation.executions",
        "_of",
        always("startswith"),
    ),
    Mutation(
        "an event stops its own execution",
        "cloudformation.executions",
        "put_in_order",
        always("name", "own"),
    ),
    Mutation(
        "earlier executions continue",
        "cloudformation.executions",
        "put_in_order",
        call("stop", "None"),
    ),
    Mutation(
        "a superseded event is carried out",
        "cloudformation.executions",
        "put_in_order",
        never("any"),
    ),
    Mutation(
        "executions that have ended are not looked at",
        "cloudformation.executions",
        "put_in_order",
        call("ended_since", "[]"),
    ),
    Mutation(
        "events are ordered by their delivery",
        "cloudformation.executions",
        "_is_later",
        never("sent"),
    ),
    Mutation(
        "events of the same second have no order",
        "cloudformation.executions",
        "_is_later",
        call("bool", "False"),
    ),
    Mutation("the order of events is not checked", "index", "_take", call("_put_in_order", "None")),
    Mutation(
        "an event is carried out though its order is not known",
        "index",
        "_put_in_order",
        ignore_in_handler("VmImportError"),
    ),
    Mutation(
        "a Delete fails without the state machine",
        "index",
        "on_event",
        raise_in_handler("Exception"),
    ),
    Mutation("what may succeed later is a failure", "index", "_take", never("may_pass")),
    Mutation(
        "an unknown resource type has no error of its own",
        "index",
        "_take",
        never("resource_type", "_STEPS"),
    ),
    Mutation(
        "nobody follows an import that nobody waits for",
        "index",
        "_take",
        never("outcome", "follow_up"),
    ),
    Mutation(
        "a follow-up has the ResponseURL",
        "cloudformation.executions",
        "start_follow_up",
        always("ResponseURL"),
    ),
    # waiting
    Mutation("the wait never ends", "contract", "wait_limit", returns("10**9")),
    Mutation(
        "a failed import task does not end the wait",
        "image.progress",
        "poll",
        assign("task_failed", "False"),
    ),
    Mutation("throttling ends the wait", "image.progress", "poll", never("is_transient")),
    Mutation(
        "a failed wait leaves its image", "image.resource", "step", always("is_known", "follow_up")
    ),
    Mutation(
        "a failed wait deletes the image in use",
        "image.resource",
        "step",
        drop_operand("is_known", beside="follow_up"),
    ),
    Mutation(
        "a failed wait names the image, which a later event may adopt",
        "image.resource",
        "step",
        argument("failures_name", 0, "state.image"),
    ),
    Mutation("an image that hands on fails", "image.waiting", "Wait.step", always("continues")),
    Mutation("the last link hands on", "image.waiting", "Wait.step", never("continues")),
    Mutation(
        "a link waits for an image that had failed before",
        "image.wait_link",
        "step",
        never("IMPORT_FAILED"),
    ),
    Mutation("the Delete of a link waits", "image.wait_link", "step", never("Delete")),
    Mutation(
        "an AMI that could not be tagged is forgotten",
        "image.waiting",
        "Wait._tag",
        never("may_pass"),
    ),
    Mutation(
        "one poll that does not find the image ends the wait",
        "image.waiting",
        "",
        assign("_GONE", "1"),
    ),
    Mutation(
        "an image that is gone is waited for", "image.waiting", "Wait._confirm", never("missed")
    ),
    Mutation(
        "a time-out counts as available",
        "image.waiting",
        "Wait.step",
        always("outcome", "available"),
    ),
    Mutation(
        "an AMI that Image Builder does not name is not found",
        "image.progress",
        "_available",
        assign("found", "[]"),
    ),
    Mutation("the AMI of a task is found only by its name", "amis", "Amis.find", never("task")),
    Mutation(
        "an AMI that is not listed yet is not tagged",
        "amis",
        "Amis.tag",
        call("NotListedError", "RuntimeError()"),
    ),
    Mutation(
        "the polling interval does not grow",
        "image.waiting",
        "polling_interval",
        drop_statement("age"),
    ),
    Mutation(
        "a deprecated image is unusable",
        "aws.image_builder",
        "",
        assign(
            "_FAILED", "frozenset({'FAILED', 'CANCELLED', 'DELETED', 'DEPRECATED', 'DISABLED'})"
        ),
    ),
    # errors
    Mutation(
        "an image that is gone is an error",
        "aws.image_builder",
        "ImageBuilder.get",
        raise_in_handler("AwsError"),
    ),
    Mutation(
        "an error of DeleteImage is ignored",
        "aws.image_builder",
        "ImageBuilder.delete",
        ignore_in_handler("AwsError"),
    ),
    Mutation(
        "throttling is a failure", "errors", "AwsError.__init__", assign("is_passing", "False")
    ),
    Mutation(
        "a fault of AWS is a failure",
        "errors",
        "AwsError.__init__",
        drop_operand("status", beside="is_lost"),
    ),
    Mutation(
        "a denied call is a failure at once",
        "cloudformation.step",
        "State.may_pass",
        drop_operand("is_brief", beside="is_transient"),
    ),
    Mutation(
        "a denied call is repeated for 90 seconds since the event, not since its denial",
        "cloudformation.step",
        "State.may_pass",
        assign("is_new", "self.elapsed < 90"),
    ),
    Mutation(
        "too many tags are added before others are removed",
        "tags",
        "change_tags",
        assign("is_removed_first", "False"),
    ),
    Mutation(
        "an import that cannot be cancelled stalls the rollback",
        "image.resource",
        "Images._cancel_task",
        call("cancel", "None"),
    ),
    Mutation(
        "the task of another image is cancelled",
        "image.resource",
        "Images._cancel_task",
        always("images_imported_from"),
    ),
    Mutation(
        "the task of another stack is cancelled",
        "image.resource",
        "Images._cancel_task",
        drop_operand("STACK"),
    ),
    Mutation(
        "an image that GetImage may not show is not found",
        "aws.image_builder",
        "ImageBuilder.get",
        never("is_denied"),
    ),
    Mutation(
        "the request id changes with each event",
        "image.resource",
        "_attributes",
        drop_operand("record"),
    ),
    Mutation(
        "the ClientToken attribute is always the first token",
        "image.resource",
        "_attributes",
        drop_operand("token", beside="lookup"),
    ),
    # the response
    Mutation(
        "a failure is responded to as a success",
        "cloudformation.response",
        "CfnResource._wrap_function",
        call("Response", "Response(getattr(error, 'physical_id', ''), {}, str(error))"),
    ),
    Mutation(
        "a response is sent twice",
        "cloudformation.response",
        "CfnResource._deliver",
        call("_put", "self._put(body) or self._put(body)"),
    ),
    Mutation(
        "a refused response counts as delivered",
        "cloudformation.response",
        "CfnResource._put",
        always("status"),
    ),
    Mutation(
        "a response may have any length",
        "cloudformation.response",
        "",
        assign("_MAX_RESPONSE", "8192"),
    ),
    Mutation(
        "a failed event has an empty id",
        "cloudformation.response",
        "CfnResource.generate_physical_id",
        returns("''"),
    ),
    Mutation(
        "an undelivered response is forgotten",
        "cloudformation.response",
        "CfnResource._send",
        call("_deliver", "None"),
    ),
    # pages
    Mutation(
        "only the first page of a list is read",
        "aws.session",
        "AwsApi._pages",
        call("paginate", "[getattr(aws_client(self.service), operation)(**request)]"),
    ),
    Mutation(
        "only the first page of executions is read",
        "aws.step_functions",
        "StateMachine._list",
        call(
            "_pages",
            "[self._call('list_executions', stateMachineArn=self._arn, **request)]",
        ),
    ),
    Mutation(
        "only the first page of import tasks is read",
        "aws.ec2",
        "Ec2.tasks",
        call("_pages", "[self._call('describe_import_image_tasks', MaxResults=1000)]"),
    ),
    Mutation(
        "a task that is being deleted is imported",
        "aws.ec2",
        "",
        assign("_FAILED", "frozenset({'deleted'})"),
    ),
    Mutation(
        "a replayed image with another token is accepted",
        "reconciler",
        "Reconciler._create_under",
        never("created", "token"),
    ),
    # what an import creates
    Mutation(
        "snapshots that DeregisterImage did not delete are forgotten",
        "aws.ec2",
        "Ec2.deregister",
        call("delete_snapshots", "{}"),
    ),
    Mutation(
        "snapshots that cannot be deleted are not reported",
        "aws.ec2",
        "Ec2.delete_snapshots",
        drop_statement("refused", "snapshot_id", "code"),
    ),
    Mutation(
        "the snapshots of a failed import are left",
        "amis",
        "Amis._delete_snapshots_of_failed",
        returns("{}"),
    ),
    Mutation(
        "the snapshots of a failed import are found but not deleted",
        "amis",
        "Amis._delete_snapshots_of_failed",
        call("delete_snapshots", "{}"),
    ),
    Mutation(
        "the AMI has no token of its task",
        "amis",
        "Amis.tag",
        drop_statement("TOKEN", "changed", "task"),
    ),
    Mutation(
        "a rollback gives the AMI the token of another task",
        "amis",
        "Amis.record_task",
        drop_operand("TOKEN"),
    ),
    Mutation(
        "an AMI that is still used is deleted", "amis", "Amis._reason_to_retain", returns("''")
    ),
    Mutation(
        "a disk that was a snapshot is deleted with the AMI",
        "import_task.properties",
        "ImportTaskProperties.snapshots",
        returns("[]"),
    ),
    Mutation(
        "an active task is not cancelled",
        "import_task.resource",
        "ImportTasks.delete",
        call("cancel", "None"),
    ),
    Mutation(
        "a task that EC2 forgot is gone",
        "import_task.resource",
        "ImportTasks.get",
        drop_operand("_forgotten"),
    ),
    # the constructs
    Mutation(
        "an image from an ARN is in the environment of the stack",
        "cdk_vm_import.imported_vm_image",
        "_ImageFromArn.__init__",
        drop_keyword("environment_from_arn"),
    ),
    Mutation(
        "tags of an aspect are not checked on a task",
        "cdk_vm_import.vm_import_task",
        "VmImportTask.__init__",
        call("add_validation", "None"),
    ),
    Mutation(
        "a task does not wait for the policies of its role",
        "cdk_vm_import.vm_import_task",
        "VmImportTask.__init__",
        call("wait_for_policies", "None"),
    ),
    Mutation(
        "disks with the same file name are one asset",
        "cdk_vm_import.vm_disk",
        "_asset",
        argument("sha256", 0, "file.name.encode()"),
    ),
    Mutation(
        "VM Import may not attach licences",
        "cdk_vm_import.vm_import_role",
        "VmImportRole._allow",
        drop_statement("_attaches_licenses"),
    ),
    Mutation(
        "VM Import may not use the key of the AMI",
        "cdk_vm_import.vm_import_role",
        "VmImportRole._allow",
        never("encryption_key"),
    ),
    Mutation(
        "the ARN of a licence may not be a token",
        "cdk_vm_import._task_validation",
        "license_configurations",
        drop_operand("Token"),
    ),
    Mutation(
        "a response that failed is not sent again", "contract", "", assign("RESPONSE_RETRIES", "0")
    ),
    Mutation("a step that failed is not repeated", "contract", "", assign("STEP_RETRIES", "0")),
)


def survives(mutation: Mutation) -> str:
    """Try a fault; return what is wrong with the tests or the mutation, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        copy, ignored = Path(folder), shutil.ignore_patterns("__pycache__")
        for root in _SOURCES:
            shutil.copytree(_CHECKOUT / root, copy / root, ignore=ignored)
        try:
            mutation.apply(copy)
        except StaleError as error:
            return f"STALE: {error}"
        pytest = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
        ]
        run = subprocess.run(
            [
                *pytest,
                "-o",
                f"pythonpath=. {' '.join(str(copy / r) for r in _SOURCES)}",
                *mutation.tests,
            ],
            cwd=_CHECKOUT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode == 0:
        return "SURVIVES"
    # A fault that only keeps the tests from running shows nothing.
    return "" if "1 failed" in run.stdout else f"NO TEST RAN:\n{run.stdout[-2000:]}"


def main() -> int:
    """Try all, and print which the tests notice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "name", nargs="?", default="", help="only mutations with this in their name"
    )
    chosen = [one for one in MUTATIONS if parser.parse_args().name in one.name]
    start = time.monotonic()
    problems = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutation, problem in zip(chosen, pool.map(survives, chosen), strict=True):
            problems += bool(problem)
            where = f"{mutation.module}.{mutation.function}".rstrip(".")
            sys.stdout.write(f"{problem or 'noticed'}: {mutation.name} ({where})\n")
            sys.stdout.flush()
    seconds = time.monotonic() - start
    sys.stdout.write(f"{len(chosen)} mutations, {problems} problems, in {seconds:.0f} s\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
