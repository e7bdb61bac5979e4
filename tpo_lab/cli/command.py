"""What every command shares: what it returns, the options --json and --debug, its example, and several values after one option."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from tpo_lab.errors import TPOError

if TYPE_CHECKING:
    from rich.console import RenderableType

FILES = "FILE..."
"""The metavar of an option that takes several files after it, `--data a.jsonl b.jsonl`, as well as once for each."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output; everything else goes to standard error.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Function = TypeVar("Function", bound=Callable[..., "Result"])


@dataclass(frozen=True)
class Result:
    """What a command gives back.

    Attributes:
        document: what --json prints.
        view: what a person sees instead.
        status: 0 done, 1 the job found something wrong.
    """

    document: Mapping[str, Any]
    view: RenderableType
    status: int = 0


class Stopped(TPOError):
    """The user interrupted a command; the message says what is saved and how to go on. Exit status 130."""


def command(app: typer.Typer, name: str, *, example: str) -> Callable[[Function], Function]:
    """Adds a function as a command, with --json and --debug, and with its example below its help.

    Args:
        app: the group that gets the command.
        name: of the command.
        example: one or several calls, a line each; shown as they are.
    """

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def run(json: bool, debug: bool, **arguments: Any) -> Result:
            try:
                return function(**arguments)
            except KeyboardInterrupt:
                raise Stopped("Interrupted.") from None

        signature = inspect.signature(function, eval_str=True)
        common = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
            for option, annotation in (("json", AsJson), ("debug", Debug))
        ]
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *common])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*signature.parameters.values(), *common)}
        app.command(name, cls=Command, epilog=_epilog(example))(run)
        return function

    return register


class Command(TyperCommand):
    """A command whose file options take several values at once, as a shell's wildcard gives them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the words of a call."""
        several = {name for parameter in self.params if parameter.metavar == FILES for name in parameter.opts}
        return super().parse_args(ctx, spread(args, several))


def spread(words: list[str], several: Collection[str]) -> list[str]:
    """The words with `--data a.jsonl b.jsonl` written as `--data a.jsonl --data b.jsonl`.

    Only a word that ends in .jsonl or names an existing file continues such a list, so that an argument after it is left alone.
    """
    found: list[str] = []
    option, is_first = "", False
    for place, word in enumerate(words):
        if word == "--":
            return found + words[place:]
        if word in several:
            option, is_first = word, True
        elif is_first:
            is_first = False
        elif option and not word.startswith("-") and (word.endswith(".jsonl") or Path(word).is_file()):
            found.append(option)
        else:
            option = ""
        found.append(word)
    return found


def _epilog(example: str) -> str:
    lines = [line.replace("[", r"\[") for line in example.strip().splitlines()]
    # Typer joins single lines and keeps paragraphs.
    return "\n\n".join(["[bold]Example[/bold]", *(f"  {line.strip()}" for line in lines)])
