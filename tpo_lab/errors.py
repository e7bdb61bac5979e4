"""The exceptions a caller can cause, each one readable sentence: what was wrong, expected, got, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TPOError(Exception):
    """A job that could not be done. The command line prints the message and exits with status 1."""


class UsageError(TPOError, ValueError):
    """A call that was wrong. The command line prints the message and exits with status 2.

    Args:
        argument: the argument, option, field or file that was wrong.
        expected: what would have been accepted.
        got: the value or shape that came.
        hint: what to do about it.
    """

    def __init__(self, argument: str, *, expected: str, got: object, hint: str = "") -> None:
        self.argument, self.expected, self.got, self.hint = argument, expected, got, hint
        tail = f" {hint}" if hint else ""
        super().__init__(f"{argument}: expected {expected}, got {got!r}.{tail}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.argument, self.expected, self.got, self.hint))


def _rebuild(argument: str, expected: str, got: object, hint: str) -> UsageError:
    return UsageError(argument, expected=expected, got=got, hint=hint)


class MissingExtraError(TPOError, ImportError):
    """An optional part is not installed; the message names the pip extra that brings it."""

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the module {module!r}, which is not installed. Install it with: pip install 'tpo-lab[{extra}]'")


def unknown_name(argument: str, got: str, valid: Iterable[str]) -> UsageError:
    """A `UsageError` for a name outside a closed set, with the closest valid names as the hint."""
    names = sorted(valid)
    close = difflib.get_close_matches(got, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return UsageError(argument, expected=f"one of {', '.join(names)}", got=got, hint=hint)
