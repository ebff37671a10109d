"""Changes of a syntax tree, each of which makes a fault.

A change finds its node by its kind and by the identifiers in it, so it survives new lines, other
texts and moved code.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial

Replacement = Callable[[ast.AST], ast.AST | None]
Change = Callable[[ast.AST], int]
"""Changes a function's syntax tree; returns how many nodes it has changed."""


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


def iterate(name: str, becomes: str) -> Change:
    """Have the `for` with a variable, also of a comprehension, run over another expression."""

    def change(root: ast.AST) -> int:
        count = 0
        for node in ast.walk(root):
            if not isinstance(node, (ast.For, ast.comprehension)):
                continue
            if getattr(node.target, "id", None) == name:
                node.iter = _expression(becomes)
                count += 1
        return count

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
