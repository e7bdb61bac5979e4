"""StageView: a recipe as a picture, and the run that follows it, also while it trains."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.recipes import Recipe
from tpo_lab.runs import RunFolder
from tpo_lab.training.watch.alarms import Alarm
from tpo_widgets.content import Trouble
from tpo_widgets.playhead import Playhead
from tpo_widgets.stages.content import StageContent
from tpo_widgets.stages.figure import loss_figure
from tpo_widgets.stages.watch import StageWatch, folder_of, watched
from tpo_widgets.view import View

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from tpo_lab.model import TPOModel
    from tpo_lab.objective import LossReport
    from tpo_lab.training import Listener

UPDATE_SEC = 0.5
"""Between two updates of the front end."""
_SHARE = 0.05
"""Of the time, that updates may take."""


class StageView(View):
    """Which part of a model each stage trains, with what rate, on what; and how the training goes.

    ```python
    view = StageView("nano", model)
    display(view)
    tpo.fit(model, samples, tpo.recipe("nano"), "runs/first", listener=view.listen("runs/first"))
    ```

    Args:
        recipe: a recipe, the name of a preset, or a file. Where a run has one, that of the run is shown.
        model: tells how many parameters each part has; the recipe is cut to its heads, as training does.
        run: a run folder, finished or not; it may come into being later where a recipe is given. See `follow` for one that still trains.
        theme: "light", "dark", or "auto", which follows the page.
        playhead: shared with other views; its `head` is the head that is looked at.

    Attributes:
        stage: name of the stage that is looked at; "" for all. Chosen by a click on its column, or set here.
    """

    front = "stage_view"
    stage = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        recipe: Recipe | str | Path | None = None,
        model: TPOModel | None = None,
        *,
        run: RunFolder | Path | str | None = None,
        theme: str = "auto",
        playhead: Playhead | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._watch = StageWatch(model=model)
        self._sent, self._pause = -1e9, UPDATE_SEC
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        super().__init__(lambda: self._opened(recipe, model, run), theme=theme, playhead=playhead)

    @traitlets.validate("stage")
    def _known_stage(self, proposal: Any) -> str:
        name = str(proposal["value"])
        names = self.content.stage_names if isinstance(self.content, StageContent) else ()
        if name and names and name not in names:
            raise unknown_name("stage", name, names)
        return name

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What is wrong with the run so far."""
        with self._lock:
            return self._watch.history.alarms() if self._watch.history else ()

    def listen(self, run: RunFolder | Path | str | None = None) -> Listener:
        """Get ready for a training in this process, and give the listener for `tpo_lab.fit`.

        Args:
            run: the folder that `fit` writes to; then the view shows what stands there too: gradient norms, and what an earlier part of
                the run has left. Without one it shows what a listener hears.

        Raises:
            UsageError: no folder's name.
        """
        self.stop()
        with self._lock:
            self._watch.begin(None if run is None else folder_of(run), live=True, local=True)
        self._update()
        return self.listener

    def listener(self, stage: str, step: int, total: int, report: LossReport) -> None:
        """For `tpo_lab.fit(..., listener=view.listener)`: called after every step. Never stops the training."""
        try:
            with self._lock:
                self._watch.hear(stage, step, total, report)
                if step == total or time.monotonic() - self._sent >= self._pause:
                    self._watch.poll()
                    self._update(poster=step == total)
        except Exception as error:
            # hours of training are worth more than a picture of them
            self.error = error

    def follow(self, run: RunFolder | Path | str, *, every_sec: float = UPDATE_SEC) -> StageView:
        """Watch a run that another process trains, until `stop`. The folder may come into being later.

        Args:
            run: its folder.
            every_sec: how often to look.

        Raises:
            UsageError: no folder's name, or no time.
        """
        folder = folder_of(run)
        if not isinstance(every_sec, (int, float)) or not every_sec > 0:
            raise UsageError("every_sec", expected="seconds above 0", got=every_sec)
        self.stop()
        with self._lock:
            self._watch.begin(folder, live=True)
            self._watch.poll()
        self._update()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(self._stopping, every_sec), name="StageView.follow", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End `follow` or `listen`, after a last look. A second call does nothing."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        if not self._watch.status.live:
            return
        with self._lock:
            self._watch.end()
            self._watch.poll()
        self._update(poster=True)

    def close(self) -> None:
        """Stop watching, and take the view away."""
        if stopping := getattr(self, "_stopping", None):  # a view whose keywords were wrong has none
            stopping.set()
        super().close()

    def to_plotly(self) -> go.Figure:
        """The loss curves as a plotly figure, at most 400 points each; a curve for each term, over the steps of the whole run.

        Raises:
            MissingExtraError: plotly is not installed.
            UsageError: there is no run.
        """
        with self._lock:
            return loss_figure(self._watch.history)

    def _opened(self, recipe: Any, model: TPOModel | None, run: Any) -> StageContent:
        self._watch = watched(recipe, model, run)
        return self._watch.content()

    def _update(self, *, poster: bool = False) -> None:
        """Show how things stand; where it takes long, less often."""
        with self._lock:
            began = time.monotonic()
            content = self._made(self._watch.content)
            with self.hold_sync():
                self.problem = content.sentence if isinstance(content, Trouble) else ""
                self.document = content.document
                # while a run goes on, the picture would always be an old one, and the room that it takes is the curves'
                self.poster = self._poster() if poster else ""
            self._sent = time.monotonic()
            self._pause = max(UPDATE_SEC, (self._sent - began) / _SHARE)

    def _look(self, stopping: threading.Event, every_sec: float) -> None:
        while not stopping.wait(max(every_sec, self._pause if self._pause > UPDATE_SEC else 0.0)):
            try:
                with self._lock:
                    if self._watch.poll() or self._watch.alarms_are_due:
                        self._update()
            except Exception as error:  # a folder on a network may be away for a while
                self.error = error
