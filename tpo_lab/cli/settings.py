"""Settings on the command line: NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tpo_lab.errors import UsageError


def named_values(option: str, expected: str, settings: Iterable[str]) -> dict[str, Any]:
    """`1.steps=100` as {"1.steps": 100}; a value that is no JSON is a text.

    Args:
        option: that the settings were given to, for its message.
        expected: what one looks like, with an example.
        settings: each one NAME=VALUE.

    Raises:
        UsageError: a setting without a name or an equals sign.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not (name and equals):
            raise UsageError(option, expected=expected, got=setting)
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found
