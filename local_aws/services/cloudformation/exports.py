"""Exports of stacks and of nested stacks.

MiniStack lets an update change or remove an export that another stack imports, keeps an export that
an update removed, and knows no exports of nested stacks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from local_aws import seams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_NESTED = "AWS::CloudFormation::Stack"


class ExportError(ValueError):
    """An export that another stack imports would change, or another stack has its name."""


def register() -> None:
    """Add exports and limits of nested stacks for the whole process."""
    seams.NESTED_STACK_TYPE.replace(partial(_with_exports, seams.RESOLVE_OUTPUTS.present))
    seams.NESTED_CAPABILITIES.replace(_with_limits)


def change_exports(
    stack_name: str, before: list[dict[str, Any]], exports: Mapping[str, dict[str, Any]]
) -> None:
    """Check the new exports of a stack, and remove those that it no longer has.

    Args:
        stack_name: The stack.
        before: Its outputs before the stack operation.
        exports: Its exports by name, as MiniStack has them.

    Raises:
        ExportError: It may not have these exports.
    """
    # https://github.com/aws-solutions/aws-waf-security-automations/issues/268
    for name in exports:
        if owner := next(_exporters_of(name, stack_name), None):
            raise ExportError(f"Export with name {name} is already exported by stack {owner}")
    for output in before:
        name = output.get("ExportName", "")
        value = exports.get(name, {}).get("Value")
        if value != output["OutputValue"]:
            _refuse_if_used(name, stack_name, "deleted" if value is None else "updated")
    for output in before:
        if output.get("ExportName") not in exports:
            seams.EXPORTS.pop(output.get("ExportName"), None)


def _refuse_if_used(export: str, stack_name: str, what: str) -> None:
    # https://github.com/linz/geostore/issues/630
    if users := list(_users_of(export, stack_name)):
        raise ExportError(f"Export {export} cannot be {what} as it is in use by {', '.join(users)}")


def _exporters_of(export: str, stack_name: str) -> Iterator[str]:
    for name, stack in _others(stack_name):
        if any(export == output.get("ExportName") for output in stack.get("Outputs", [])):
            yield name


def _users_of(export: str, stack_name: str) -> Iterator[str]:
    for name, stack in _others(stack_name):
        if export in seams.imported_export_names(stack, name):
            yield name


def _others(stack_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, stack in list(seams.STACKS.items()):
        if name != stack_name and not stack["StackStatus"].startswith("DELETE"):
            yield name, stack


def _with_exports(
    resolve: Callable[..., Any], acts: dict[str, Callable[..., Any]]
) -> dict[str, Callable[..., Any]]:
    """Give nested stacks their exports.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-stack-exports.html
    """

    def create(*arguments: Any) -> Any:  # noqa: ANN401
        stack_id, attributes = acts["create"](*arguments)
        _export(resolve, stack_id, [])
        return stack_id, attributes

    def update(stack_id: str, *arguments: Any) -> Any:  # noqa: ANN401
        before = (seams.find_stack(stack_id) or {}).get("Outputs", [])
        try:
            updated_id, attributes = acts["update"](stack_id, *arguments)
            _export(resolve, updated_id, before)
        except Exception:
            # MiniStack forgets the outputs, which the stack has until an update succeeds.
            (seams.find_stack(stack_id) or {})["Outputs"] = before
            raise
        return updated_id, attributes

    def delete(stack_id: str, properties: dict[str, Any]) -> None:
        stack = seams.find_stack(stack_id) or {}
        for output in stack.get("Outputs", []):
            _refuse_if_used(output.get("ExportName", ""), stack["StackName"], "deleted")
        acts["delete"](stack_id, properties)

    return acts | {"create": create, "update": update, "delete": delete}


def _export(resolve: Callable[..., Any], stack_id: str, before: list[dict[str, Any]]) -> None:
    stack = seams.find_stack(stack_id)
    name, template = stack["StackName"], stack["_template"]
    try:
        outputs, exports = resolve(
            template.get("Outputs", {}),
            stack["_conditions"],
            stack["_resources"],
            stack["_resolved_params"],
            template.get("Mappings", {}),
            name,
            stack_id,
        )
        change_exports(name, before, exports)
    except ValueError as error:
        stack["StackStatus"] = status = stack["StackStatus"].replace("COMPLETE", "FAILED")
        stack["StackStatusReason"] = reason = str(error)
        seams.ADD_STACK_EVENT(stack_id, name, name, _NESTED, status, reason, stack_id)
        raise
    stack["Outputs"] = outputs
    seams.EXPORTS.update(exports)


def _with_limits(check: Callable[..., None]) -> Callable[..., None]:
    """Check the template of a nested stack as that of another stack.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
    """

    def with_limits(parent_name: str, template: dict[str, Any]) -> None:
        check(parent_name, template)
        seams.check_template_limits(template)

    return with_limits
