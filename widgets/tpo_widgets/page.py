"""Views on a page of its own: one HTML file that holds their code, their state and their frames, and asks nobody for anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import TPOError
from tpo_widgets import source
from tpo_widgets.playhead import MOMENT

if TYPE_CHECKING:
    from tpo_widgets.view import View

MOST_BYTES = 24 << 20
"""Of frames and the like in one page; what does not fit is left out, the least important first."""
_NOT_READ = ("playhead", "layout", "tabbable", "tooltip", "comm")


def page(views: Sequence[View], *, title: str = "TPO Lab") -> str:
    """An HTML document with views below each other; those that share a playhead do so on the page too."""
    fronts = sorted({view.front for view in views})
    playheads = list({id(view.playhead): view.playhead for view in views}.values())
    room = MOST_BYTES // max(len(views), 1)
    state = {
        "playheads": [{name: getattr(each, name) for name in MOMENT} for each in playheads],
        "views": [_stored(view, playheads.index(view.playhead), room) for view in views],
    }
    entries = ", ".join(f"{json.dumps(front)}: {source.expression(front)}" for front in fronts)
    data = json.dumps(state, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{source.css('page', 'base', *fronts)}</style></head>\n<body>\n"
        f'<main id="views"></main>\n<script type="application/json" id="state">{data}</script>\n'
        f'<script type="module">\n{source.esm("host")}\nopenPage({{{entries}}});\n</script>\n</body></html>\n'
    )


def _stored(view: View, playhead: int, room: int) -> dict[str, Any]:
    """A view as the page holds it: the traits that its front end reads, and what it would ask the kernel for."""
    state = {name: value for name, value in view.get_state().items() if not name.startswith("_") and name not in _NOT_READ}
    return {"front": view.front, "state": {**state, "playhead": playhead}, "resources": _resources(view, room)}


def _resources(view: View, room: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name in view.content.names():
        try:
            resource = view.content.resource(name)
        except TPOError as error:
            found[name] = [{}, None, str(error)]
            continue
        room -= len(resource.data) * 4 // 3
        if room < 0:
            break
        found[name] = [dict(resource.about), base64.b64encode(resource.data).decode(), ""]
    return found
