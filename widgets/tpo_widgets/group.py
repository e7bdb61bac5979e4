"""Views that are shown together move together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipywidgets import VBox

from tpo_lab.errors import UsageError
from tpo_widgets.view import View


class Together(VBox):  # type: ignore[misc]
    """Views below each other that share one playhead, in the kernel and in the browser.

    Args:
        views: at least one; all get the playhead of the first.

    Raises:
        UsageError: no views, or something that is none.
    """

    def __init__(self, *views: View) -> None:
        strangers = [type(view).__name__ for view in views if not isinstance(view, View)]
        if not views or strangers:
            raise UsageError("views", expected="one or more views", got=strangers or None)
        for view in views[1:]:
            view.playhead = views[0].playhead
        self.views = views
        super().__init__(children=views)

    def to_html(self, path: str | Path | None = None, *, title: str = "TPO Lab") -> str:
        """A page of its own with all of them; also written to `path` where one is given."""
        from tpo_widgets.page import page

        text = page(self.views, title=title)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_png(self, path: str | Path | None = None, *, width: int = 900) -> bytes:
        """All of them below each other as a PNG; also written to `path` where one is given."""
        import io

        from PIL import Image

        pictures = [Image.open(io.BytesIO(view.to_png(width=width))) for view in self.views]
        joined = Image.new("RGB", (width, sum(picture.height for picture in pictures)), "#ffffff")
        top = 0
        for picture in pictures:
            joined.paste(picture, (0, top))
            top += picture.height
        file = io.BytesIO()
        joined.save(file, "PNG", optimize=True)
        if path is not None:
            Path(path).write_bytes(file.getvalue())
        return file.getvalue()

    def _repr_mimebundle_(self, **keywords: Any) -> Any:
        bundle = super()._repr_mimebundle_(**keywords)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        pictures = [view._repr_mimebundle_() for view in self.views]
        shown = next((found[0]["image/png"] for found in pictures if "image/png" in found[0]), None)
        return ({**data, "image/png": shown} if shown else data), metadata


def together(*views: View) -> Together:
    """Views below each other that share one scrubber and one selection: `together(HeadView(trace), GradientView(trace))`."""
    return Together(*views)
