"""What all views have in common: a thin class with traits around content that was made without a browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets
from ipywidgets import widget_serialization

from tpo_lab.errors import TPOError, UsageError
from tpo_widgets import source
from tpo_widgets.content import Content, Moment, Trouble
from tpo_widgets.keywords import strict
from tpo_widgets.playhead import MOMENT, Playhead

if TYPE_CHECKING:
    from PIL.Image import Image

THEMES = ("auto", "light", "dark")
PICTURE_WIDTH = 900
_FALLBACK_BYTES, _POSTER_BYTES = 60_000, 20_000
_FAST = 2
"""Of Pillow's ways to choose few colours (Image.Quantize.FASTOCTREE)."""


class View(anywidget.AnyWidget):
    """A view of content. What a caller can get wrong in the content becomes a panel with one sentence, and the notebook goes on.

    A subclass names its front end in `front` and hands a function that makes its content to `View.__init__`.

    Attributes:
        document: what the front end draws at once.
        problem: a sentence in its place; "" where there is none.
        theme: "light", "dark", or "auto", which follows the page.
        playhead: the moment and the selection, maybe shared with other views.
        poster: a small picture, for where no kernel answers.
        error: what went wrong while the content was made, or None.
    """

    front: ClassVar[str] = ""
    document = traitlets.Dict().tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)
    theme = traitlets.Enum(THEMES, "auto").tag(sync=True)
    playhead = traitlets.Instance(Playhead).tag(sync=True, **widget_serialization)
    poster = traitlets.Unicode("").tag(sync=True)

    def __init_subclass__(cls, **keywords: Any) -> None:
        if "__init__" in cls.__dict__:
            cls.__init__ = strict(cls.__init__, cls.__name__)  # type: ignore[method-assign]
        if "front" in cls.__dict__:
            cls._esm, cls._css = source.esm(cls.front), source.css("base", cls.front)
        super().__init_subclass__(**keywords)

    def __init__(self, make: Callable[[], Content], *, theme: str = "auto", playhead: Playhead | None = None) -> None:
        if theme not in THEMES:
            raise UsageError("theme", expected=f"one of {', '.join(THEMES)}", got=theme)
        self.error: Exception | None = None
        self.content: Content = Trouble("")
        content = self._made(make)
        super().__init__(
            document=content.document,
            problem=content.sentence if isinstance(content, Trouble) else "",
            theme=theme,
            playhead=playhead or Playhead(),
            poster=self._poster(),
        )
        self.on_msg(self._answer)

    def show(self, make: Callable[[], Content]) -> None:
        """Show other content in the same place."""
        content = self._made(make)
        with self.hold_sync():
            self.problem = content.sentence if isinstance(content, Trouble) else ""
            self.document = content.document
            self.poster = self._poster()

    def to_png(self, path: str | Path | None = None, *, width: int = PICTURE_WIDTH) -> bytes:
        """The view at its playhead's moment as a PNG; also written to `path` where one is given."""
        data = _encoded(self._picture(width), "PNG")
        if path is not None:
            Path(path).write_bytes(data)
        return data

    def to_html(self, path: str | Path | None = None, *, title: str = "") -> str:
        """A page of its own with this view, which works from disk without a kernel; also written to `path` where one is given."""
        from tpo_widgets.page import page

        text = page([self], title=title or type(self).__name__)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @property
    def moment(self) -> Moment:
        """What the playhead is at."""
        return Moment(**{name: getattr(self.playhead, name) for name in MOMENT})

    def _made(self, make: Callable[[], Content]) -> Content:
        try:
            self.content, self.error = make(), None
        except Exception as error:
            # whatever is wrong with what was given, a view says so in its place and does not stop the notebook
            self.content, self.error = Trouble(f"{type(self).__name__}: {_sentence(error)}"), error
        return self.content

    def _answer(self, view: View, message: Any, buffers: Sequence[Any]) -> None:
        """Sends what the front end asks for by name: {"want": [name, ...]}."""
        if not isinstance(message, dict) or "want" not in message:
            self.heard(message)
            return
        found: list[list[Any]] = []
        failed: list[list[str]] = []
        data: list[bytes] = []
        for name in message["want"]:
            try:
                resource = self.content.resource(str(name))
            except Exception as error:  # a file may have gone since; the view says so in the frame's place
                failed.append([name, _sentence(error)])
                continue
            found.append([name, dict(resource.about)])
            data.append(resource.data)
        self.send({"found": found, "failed": failed}, buffers=data)

    def heard(self, message: Any) -> None:
        """What the front end says beside asking for resources; a view that understands something overrides this."""

    def _picture(self, width: int) -> Image:
        return self.content.picture(self.moment, dark=self.theme == "dark", width=width)

    def _poster(self) -> str:
        if isinstance(self.content, Trouble):
            return ""
        try:
            picture = self.content.picture(Moment(), dark=False, width=480)
        except Exception:  # the view itself says what is wrong with a frame
            return ""
        return "data:image/jpeg;base64," + base64.b64encode(_within(picture, _POSTER_BYTES, "JPEG")).decode()

    def _repr_mimebundle_(self, **keywords: Any) -> Any:
        """The live view, and a picture for where widgets are not drawn."""
        bundle = super()._repr_mimebundle_(**keywords)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        try:
            picture = _within(self._picture(PICTURE_WIDTH), _FALLBACK_BYTES, "PNG")
        except Exception:  # the same: nothing here may stop a notebook
            return data, metadata
        return {**data, "image/png": base64.b64encode(picture).decode()}, metadata


def _sentence(error: Exception) -> str:
    """One line of an error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TPOError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _encoded(picture: Image, form: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **({"quality": 70} if form == "JPEG" else {"optimize": True}))
    return file.getvalue()


def _within(picture: Image, most: int, form: str) -> bytes:
    """A picture encoded in at most so many bytes, made smaller where it must be."""
    while True:
        data = _encoded(picture.quantize(96, method=_FAST) if form == "PNG" else picture, form)
        if len(data) <= most or picture.width < 64:
            return data
        picture = picture.resize((max(1, picture.width * 4 // 5), max(1, picture.height * 4 // 5)))
