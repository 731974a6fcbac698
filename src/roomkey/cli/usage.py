"""What is said about a command that was typed wrongly: what is wrong with it, and how it is used."""

import inspect
from collections.abc import Callable
from typing import Final, cast

from cyclopts import CycloptsError
from cyclopts.argument import Argument
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

ELSEWHERE: Final = {"keys rotate": "keys that encrypt the storage are rotated by `roomkey encryption rotate`"}
"""Where something else is done that people look for under a command."""


def explain(error: CycloptsError) -> tuple[str, str]:
    """What is wrong, in one line, and how the command is used, in another."""
    match error:
        case UnusedCliTokensError(unused_tokens=list(tokens)) if tokens:
            plural = "s" if len(tokens) > 1 else ""
            wrong = f"there is no place for the argument{plural} {', '.join(map(repr, tokens))}"
        case MissingArgumentError(argument=Argument() as argument):
            is_place = argument.parameter.name is None or not argument.field_info.is_keyword_only
            name = argument.name.removeprefix("--").replace("-", "_").upper() if is_place else argument.name
            wrong = f"{name} is missing"
        case _:
            wrong = " ".join(str(error).split())
    elsewhere = ELSEWHERE.get(" ".join(error.command_chain or ()))
    return wrong, f"usage: {_usage(error)}{f'; {elsewhere}' if elsewhere else ''}"


def _usage(error: CycloptsError) -> str:
    command = " ".join(("roomkey", *(error.command_chain or ())))
    target = cast("Callable[..., object] | None", getattr(error, "target", None))
    if target is None:
        return f"{command} COMMAND; `{command} --help` lists the commands"
    places = [
        parameter.name.upper() if parameter.default is parameter.empty else f"[{parameter.name.upper()}]"
        for parameter in inspect.signature(target).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    return f"{' '.join((command, *places))} [OPTIONS]; `{command} --help` explains them"
