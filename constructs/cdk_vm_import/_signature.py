"""The signatures that `help()` and editors show: jsii's metaclass hides those of constructs."""

import inspect
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", bound=type)


class _Text:
    """A default as it is written in code."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def shows_arguments(**defaults: str) -> Callable[[T], T]:
    """Give a class the signature of its constructor.

    Args:
        **defaults: How to show the defaults whose own text says nothing, by argument.
    """

    def decorate(cls: T) -> T:
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        _, *parameters = signature.parameters.values()
        shown = [
            parameter.replace(default=_Text(defaults[parameter.name]))
            if parameter.name in defaults
            else parameter
            for parameter in parameters
        ]
        cls.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=shown, return_annotation=inspect.Signature.empty
        )
        return cls

    return decorate
