"""Evaluate Fn::Join in the conditions of a template, which MiniStack takes for true.

`cdk bootstrap` finds out this way whether a list is empty, and gives its execution role
AdministratorAccess if it is.
https://github.com/aws/aws-cdk-cli/blob/main/packages/aws-cdk/lib/api/bootstrap/bootstrap-template.yaml
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from local_aws import seams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Evaluate = Callable[[dict[str, Any], dict[str, Any]], dict[str, bool]]
    Parameters = Mapping[str, Mapping[str, str]]


def register() -> None:
    """Add the function to MiniStack's CloudFormation, for the whole process."""
    seams.EVALUATE_CONDITIONS.replace(_joining)


def _joining(evaluate: Evaluate) -> Evaluate:
    @wraps(evaluate)
    def joining(template: dict[str, Any], parameters: dict[str, Any]) -> dict[str, bool]:
        conditions = _join(template.get("Conditions", {}), parameters)
        return evaluate({**template, "Conditions": conditions}, parameters)

    return joining


def _join(value: Any, parameters: Parameters) -> Any:  # noqa: ANN401 - JSON
    match value:
        case {"Fn::Join": [separator, items]}:
            return separator.join(_values(items, parameters))
        case dict():
            return {name: _join(item, parameters) for name, item in value.items()}
        case list():
            return [_join(item, parameters) for item in value]
    return value


def _values(items: Any, parameters: Parameters) -> list[str]:  # noqa: ANN401 - JSON
    match items:
        case {"Ref": name}:  # a CommaDelimitedList, which MiniStack does not split
            return [item.strip() for item in parameters[name]["Value"].split(",")]
        case list():
            return [parameters[i["Ref"]]["Value"] if isinstance(i, dict) else i for i in items]
    raise ValueError(
        f"local_aws cannot join {items} in a condition: use a Ref to a parameter or a list"
    )
