"""Official annotation formats as samples, and predictions in the forms that official evaluations take. One line here adds a format."""

from __future__ import annotations

from tpo_lab.datasets.formats.format import Dropped, Format, Reading, Source
from tpo_lab.datasets.formats.qvhighlights import QVHIGHLIGHTS
from tpo_lab.errors import unknown_name

FORMATS: dict[str, Format] = {form.name: form for form in (QVHIGHLIGHTS,)}


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: there is none; the closest names are in the hint.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]


__all__ = ["FORMATS", "Dropped", "Format", "Reading", "Source", "format_named"]
