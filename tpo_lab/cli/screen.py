"""What a person sees: results on standard output; lines, tables and progress bars on standard error."""

from __future__ import annotations

import functools
import math
import os
import signal
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import TPOError

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from tpo_lab.objective import LossReport

_LOG_WIDTH = 140
_LINES_PER_STAGE = 10
_SECONDS_A_LINE = 5.0


@functools.cache
def screen() -> Console:
    """Standard error; silent in all processes but the first that `accelerate launch` starts."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def say(line: RenderableType) -> None:
    """One line, or a table, for the person who waits."""
    screen().print(_verbatim(line), soft_wrap=isinstance(line, str))


def show(view: RenderableType) -> None:
    """A result on standard output; wide enough for its tables where that is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    console.print(_verbatim(view), soft_wrap=isinstance(view, str))


def _verbatim(view: RenderableType) -> RenderableType:
    """The view with its plain strings as texts, in which brackets are no markup; tables of other modules may hold markup."""
    from rich.console import Group
    from rich.text import Text

    if isinstance(view, Group):
        return Group(*map(_verbatim, view.renderables))
    return Text(view) if isinstance(view, str) else view


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = (), title: str = "") -> Table:
    """A table of plain texts: nothing in them is read as markup.

    Args:
        columns: the heads; all empty for a table without a head.
        rows: a text per column.
        numbers: which columns hold numbers, from 0; they stand to the right.
        title: above the table.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", show_header=any(columns), show_edge=any(columns), box=_box(any(columns)))
    for place, name in enumerate(columns):
        made.add_column(Text(name), justify="right" if place in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _box(has_head: bool) -> Box | None:
    from rich import box

    return box.ROUNDED if has_head else None


def plain(value: Any) -> Any:
    """The value as JSON can hold it: numbers that are not finite become None, unknown objects their text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


class Bars:
    """Progress bars, one for each name; where standard error is no terminal, a line at every tenth of the way.

    While they are shown, Ctrl-C is not lost: what interrupts a callback of compiled code (pydantic's, for one) comes back from it as
    another error, or not at all.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said = time.monotonic()
        self._interrupted = False
        self._previous: Any = None

    def __enter__(self) -> Bars:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if screen().is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._progress = Progress(*columns, console=screen())
            self._progress.start()
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if self._progress is not None:
            self._progress.stop()
        if self._interrupted and isinstance(error, Exception) and not isinstance(error, TPOError):
            raise KeyboardInterrupt from error

    def _interrupt(self, number: int, frame: object) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def _stop_if_interrupted(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def move(self, name: str, done: int, total: int, note: str = "") -> None:
        """Says how far the work called `name` has come."""
        self._stop_if_interrupted()
        if self._progress is None:
            every = max(total // _LINES_PER_STAGE, 1)
            if done % every == 0 or done >= total:
                say(f"{name}: {done}/{total} {note}".rstrip())
            return
        if name not in self._tasks:
            # A resumed stage begins where it stopped, so that the time left is that of the steps that are left.
            self._tasks[name] = self._progress.add_task(name, total=total, completed=max(done - 1, 0), note=note)
        self._progress.update(self._tasks[name], completed=done, note=note)

    def count(self, name: str, done: int) -> None:
        """Says how far work has come whose end is not known."""
        self._stop_if_interrupted()
        if self._progress is None:
            if time.monotonic() - self._said >= _SECONDS_A_LINE:
                self._said = time.monotonic()
                say(f"{name}: {done:,}")
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, note="")
        self._progress.update(self._tasks[name], completed=done)

    def listen(self, stage: str, step: int, total: int, report: LossReport) -> None:
        """The listener of a training run: the loss of each part of the objective, weighted."""
        losses = "  ".join(f"{name} {float(value.detach()):.3g}" for name, value in report.per_head().items())
        self.move(f"stage {stage}", step, total, losses)
