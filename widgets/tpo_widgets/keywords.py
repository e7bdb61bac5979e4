"""Keywords of views are strict: a misspelt one is refused, with the closest names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tpo_lab.errors import unknown_name


def strict(method: Callable[..., None], owner: str) -> Callable[..., None]:
    """The same `__init__`, which refuses keywords that it does not have.

    Args:
        method: without `**keywords`.
        owner: the class's name, for the message.
    """
    parameters = inspect.signature(method).parameters
    names = [name for name in parameters if name != "self"]

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in names:
                raise unknown_name(f"{owner} keyword", name, names)
        method(self, *args, **keywords)

    return checked
