"""Small JSON documents as a whole: side files, and files that are no JSON as published."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.files import read_text

_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])')


def read_document(path: Path, *, trailing_commas: bool = False) -> Any:
    """The document of a file; NaN and infinity are no JSON. With `trailing_commas`, those before a closing bracket are passed over.

    Raises:
        UsageError: the file is no UTF-8, or no JSON.
    """
    text = read_text(path)
    if trailing_commas:
        text = _STRING_OR_COMMA.sub(lambda found: found[1] or "", text)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(str(path), expected="a JSON document", got=str(error)) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
