"""What went wrong, as an exit status and one paragraph that a person can act on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import typer

from tpo_lab.cli.command import Stopped
from tpo_lab.errors import TPOError, UsageError

# What typer raises for a call that it cannot parse; its home differs between typer's versions.
WrongCall: type[Exception] = typer.BadParameter.__bases__[0]
_WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


@dataclass(frozen=True)
class Failure:
    """Why a command ended without a result.

    Attributes:
        status: the exit status.
        kind: "usage", "failed", "interrupted" or "bug".
        message: one paragraph.
        details: the parts of a `UsageError`, for programs.
    """

    status: int
    kind: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {"kind": self.kind, "status": self.status, "message": self.message, **self.details}


def explain(error: BaseException) -> Failure:
    """The failure that an exception means."""
    if isinstance(error, WrongCall):
        return Failure(2, "usage", _parse_problem(error))
    if isinstance(error, UsageError):
        parts = {"argument": error.argument, "expected": error.expected, "got": error.got, "hint": error.hint}
        return Failure(2, "usage", _paragraph(str(error)), parts)
    if isinstance(error, (Stopped, KeyboardInterrupt)):
        return Failure(130, "interrupted", _paragraph(str(error)) or "Interrupted.")
    if isinstance(error, TPOError):
        return Failure(1, "failed", _paragraph(str(error)))
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        wrong = isinstance(error, _WRONG_PATH)
        return Failure(2 if wrong else 1, "usage" if wrong else "failed", f"{error.strerror}{where}")
    # torch's own class is not imported for this: it may not even be loaded.
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):
        return Failure(1, "failed", "The memory did not suffice. A smaller --micro-batch needs less and trains the same.")
    cause = _paragraph(f"{type(error).__name__}: {error}")
    return Failure(1, "bug", f"This is a bug in tpo-lab ({cause}). Call it again with --debug and report what it prints.")


def _parse_problem(error: Any) -> str:
    path = error.ctx.command_path if error.ctx is not None else "tpo-lab"
    message = _paragraph(error.format_message())
    return f"{message}{'' if message[-1:] in '.?!)' else '.'} See `{path} --help`."


def _paragraph(text: str) -> str:
    return " ".join(text.split())
