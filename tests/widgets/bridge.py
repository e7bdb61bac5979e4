"""A page in a browser and a view in Python, tied together without Jupyter: its comm is a list, its front end's messages another."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tpo_widgets import source
from tpo_widgets.view import View

PATIENCE_SEC = 30.0

_PAGE = """<!doctype html><html><head><meta charset="utf-8"><link rel="icon" href="data:,"><style>{css}</style></head>
<body><main id="views"></main><script type="module">
{host}
const entries = {{{entries}}};
const outbox = [];
const models = {{}};
const bytes = (text) => {{ const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)); return new DataView(raw.buffer); }};
globalThis.live = {{
  drain: () => outbox.splice(0, outbox.length),
  accept: (id, changes) => models[id].accept(changes),
  receive: (id, message, buffers) => models[id].receive(message, buffers.map(bytes)),
  async open(id, front, state) {{
    models[id] = hostModel(state, {{ managed: models, outbox: (what) => outbox.push([id, what]) }});
    if (!front) return;
    const el = document.createElement("div");
    document.getElementById("views").append(el);
    await entries[front].render({{ model: models[id], el }});
  }},
}};
</script></body></html>"""


class _Comm:
    """In the place of the kernel's end of a widget's wire."""

    def __init__(self, model_id: str, sent: list[tuple[str, dict[str, Any], list[Any]]]) -> None:
        self.comm_id, self._sent = model_id, sent

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        self._sent.append((self.comm_id, data, list(buffers or [])))

    def on_msg(self, callback: Any) -> None:
        """The bridge calls the widget itself."""

    def close(self, *args: Any, **keywords: Any) -> None:
        """Nothing is held."""


class Live:
    """Views on a page, with their Python side attached.

    Attributes:
        page: Playwright's.
    """

    def __init__(self, page: Any, views: Sequence[View], folder: Path) -> None:
        self.page, self._sent = page, []
        self._widgets: dict[str, Any] = {}
        fronts = sorted({view.front for view in views})
        entries = ", ".join(f"{json.dumps(front)}: {source.expression(front)}" for front in fronts)
        file = folder / f"live{time.monotonic_ns()}.html"
        file.write_text(_PAGE.format(css=source.css("base", *fronts), host=source.esm("host"), entries=entries), encoding="utf-8")
        page.goto(file.as_uri())
        page.wait_for_function("() => globalThis.live")
        for view in views:
            self._open(view.playhead, "")
            self._open(view, view.front)
        self.pump()

    def _open(self, widget: Any, front: str) -> None:
        model_id = widget.model_id
        if model_id in self._widgets:
            return
        widget.comm = _Comm(model_id, self._sent)
        self._widgets[model_id] = widget
        state = {name: value for name, value in widget.get_state().items() if not name.startswith("_")}
        self.page.evaluate("([id, front, state]) => live.open(id, front, state)", [model_id, front, json.loads(json.dumps(state))])

    def pump(self) -> None:
        """Carries messages both ways until there are none."""
        while True:
            out = self.page.evaluate("() => live.drain()")
            for model_id, what in out:
                self._to_python(model_id, what)
            sent, self._sent[:] = list(self._sent), []
            for model_id, data, buffers in sent:
                self._to_page(model_id, data, buffers)
            if not out and not sent:
                return

    def _to_python(self, model_id: str, what: dict[str, Any]) -> None:
        data = {"method": "update", "state": what["state"]} if "state" in what else {"method": "custom", "content": what["message"]}
        self._widgets[model_id]._handle_msg({"content": {"data": {**data, "buffer_paths": []}}, "buffers": []})

    def _to_page(self, model_id: str, data: dict[str, Any], buffers: list[Any]) -> None:
        if data["method"] == "custom":
            texts = [base64.b64encode(bytes(each)).decode() for each in buffers]
            self.page.evaluate("([id, message, buffers]) => live.receive(id, message, buffers)", [model_id, data["content"], texts])
        elif data["method"] in ("update", "echo_update") and data["state"]:
            self.page.evaluate("([id, changes]) => live.accept(id, changes)", [model_id, json.loads(json.dumps(data["state"]))])

    def until(self, true: Callable[[], Any], what: str = "the condition") -> Any:
        """Carries messages until something holds, and gives its value."""
        end = time.monotonic() + PATIENCE_SEC
        while time.monotonic() < end:
            self.pump()
            if found := true():
                return found
            self.page.wait_for_timeout(20)
        raise AssertionError(f"{what} did not come true in {PATIENCE_SEC:g} s")

    def until_page(self, script: str) -> Any:
        """The same for an expression on the page, such as `() => document.querySelector("canvas")`."""
        return self.until(lambda: self.page.evaluate(script), script)
