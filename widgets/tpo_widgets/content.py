"""What a view shows, as plain data: made in Python without a browser, and drawn by the front end or as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image


class Resource(NamedTuple):
    """Something large that the front end asks for by name when it needs it.

    Attributes:
        data: bytes, such as a JPEG.
        about: JSON beside them.
    """

    data: bytes = b""
    about: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Moment:
    """The values of a playhead; see `Playhead`."""

    time_sec: float = 0.0
    sample: str = ""
    head: str = ""
    object: int = -1
    token: int = -1


class Content(Protocol):
    """What one view shows."""

    @property
    def document(self) -> dict[str, Any]:
        """JSON that travels with the view's state: all that it needs to draw at once, at most some tens of kilobytes."""

    def resource(self, name: str) -> Resource:
        """What the front end asks for by that name.

        Raises:
            UsageError: there is no such resource, or it cannot be read.
        """

    def names(self) -> Iterable[str]:
        """Resources that a page without a kernel should hold, the most important first."""

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """The view at a moment, for where nothing can be scrubbed.

        Args:
            moment: of the playhead.
            dark: whether on a dark ground.
            width: in pixels.
        """


@dataclass(frozen=True)
class Trouble:
    """The content of a view that has nothing to show, and says why.

    Attributes:
        sentence: what was expected, what came, what to do.
    """

    sentence: str
    document: dict[str, Any] = field(default_factory=dict)

    def resource(self, name: str) -> Resource:
        """There is none."""
        from tpo_lab.errors import UsageError

        raise UsageError("resource", expected="none, this view has nothing to show", got=name)

    def names(self) -> Iterable[str]:
        """None."""
        return ()

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """The sentence."""
        from tpo_widgets.sheet import Sheet, wrapped

        lines = wrapped(self.sentence, width - 32)
        sheet = Sheet(width, 24 + 18 * len(lines), dark=dark)
        for number, line in enumerate(lines):
            sheet.text(16, 12 + 18 * number, line, anchor="la")
        return sheet.image
