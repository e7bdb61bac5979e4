"""What a user has drawn: the prompt records of `tpo_lab.sample`, and the plain JSON in which they travel to the page and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from tpo_lab.errors import UsageError
from tpo_lab.sample import Prompt

_PROMPT: TypeAdapter[Prompt] = TypeAdapter(Prompt)
_PHRASES = {"missing": "this field", "extra_forbidden": "only the fields of a prompt", "too_short": "at least two points"}
_KINDS = "a BoxPrompt, PointPrompt or ScribblePrompt, or one as a dict with its type"


def prompts_of(given: Any, size_wh: tuple[int, int], duration_sec: float) -> tuple[Prompt, ...]:
    """Prompts as records, from records or from their JSON.

    Args:
        given: a list of them.
        size_wh: pixels of the frame that they must lie in; its right and lower edges count.
        duration_sec: the latest time.

    Raises:
        UsageError: the first that is no prompt, or lies outside the frame or the clip.
    """
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise UsageError("prompts", expected=f"a list, each {_KINDS}", got=given)
    found = tuple(_prompt(f"prompts[{place}]", each) for place, each in enumerate(given))
    for place, prompt in enumerate(found):
        _check_place(f"prompts[{place}]", prompt, size_wh, duration_sec)
    return found


def plain(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [prompt.model_dump(mode="json") for prompt in prompts]


def corners(prompt: Prompt) -> Sequence[Sequence[float]]:
    """The points (x, y) that a prompt is drawn with: two corners of a box, or those of a stroke."""
    return (prompt.xyxy[:2], prompt.xyxy[2:]) if prompt.type == "box" else prompt.points


def _prompt(where: str, given: Any) -> Prompt:
    try:
        # a record may have been made without being checked
        return _PROMPT.validate_python(given.model_dump() if isinstance(given, BaseModel) else given)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        if detail["type"].startswith(("union_tag", "model_attributes", "model_type", "dict")):
            raise UsageError(where, expected=_KINDS, got=given) from None
        # pydantic puts the kind of the prompt first
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"][1:])
        message = _PHRASES.get(detail["type"], detail["msg"])
        got = None if detail["type"] == "missing" else detail["input"]
        raise UsageError(f"{where}{field}", expected=message.removeprefix("Input should be "), got=got) from None


def _check_place(where: str, prompt: Prompt, size_wh: tuple[int, int], duration_sec: float) -> None:
    width, height = size_wh
    for x, y in corners(prompt):
        if not (x <= width and y <= height):
            raise UsageError(where, expected=f"a place inside the frame of {width} x {height} pixels", got=[x, y])
    if prompt.time_sec > duration_sec:
        raise UsageError(f"{where}.time_sec", expected=f"a time within the clip of {duration_sec:g} s", got=prompt.time_sec)
