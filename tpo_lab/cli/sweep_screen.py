"""What a person sees while a sweep runs: a live table where standard error is a terminal, else a line for each run that ends."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tpo_lab.cli.screen import say, screen, table
from tpo_lab.reruns.running.progress import Progress, Running

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_MOST_RUNNING = 16


class SweepScreen:
    """Follows a sweep on standard error."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def __enter__(self) -> SweepScreen:
        from rich.live import Live

        if screen().is_terminal:
            self._live = Live(console=screen(), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, progress: Progress) -> None:
        """Show how far the sweep is."""
        if self._live is not None:
            self._live.update(view(progress), refresh=True)
            return
        total, left = sum(progress.counts.values()), remaining(progress.seconds_left)
        ended = total - progress.counts["waiting"] - progress.counts["running"]
        for line in progress.ended:
            say(f"{ended}/{total} {line}{f' ({left} left)' if left else ''}")


def view(progress: Progress) -> RenderableType:
    """The live table: numbers of runs by state, those that run now, the last failures, and the time that is left."""
    from rich.console import Group
    from rich.text import Text

    counts = "  ".join(f"{number} {state}" for state, number in progress.counts.items())
    left = remaining(progress.seconds_left)
    rows = [(run.name, _cells(run), f"{run.seconds:.0f} s") for run in progress.running[:_MOST_RUNNING]]
    return Group(
        Text(f"{counts}{f'   {left} left' if left else ''}"),
        *([table(("running", "cell", "for"), rows, numbers=(1, 2))] if rows else []),
        *(Text(line, style="red") for line in progress.failures),
    )


def _cells(run: Running) -> str:
    return f"{min(run.cells_done + 1, run.cells)}/{run.cells}" if run.cells else "-"


def remaining(seconds: float | None) -> str:
    """Time that is left as h:mm:ss; "" where it is not known, or none is left."""
    return "" if not seconds else str(timedelta(seconds=round(seconds)))
