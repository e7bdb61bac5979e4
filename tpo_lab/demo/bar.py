"""The demo's one progress bar, on standard error: which phase, which step, which losses, how long still."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tpo_lab.runs import METRICS, is_loss, last_jsonl

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_SHOWN_LOSSES = 4


class Bar:
    """One bar over phases whose expected lengths are known beforehand; silent where standard error is no terminal.

    Args:
        weights: expected seconds of every phase that is still to do, by name.
        say: prints a line for the person who waits; where None, on standard error.
        console: where the bar is drawn; standard error where None.
    """

    def __init__(self, weights: Mapping[str, float], say: Callable[[str], None] | None = None, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.weights = dict(weights)
        self.console = console or Console(stderr=True, highlight=False)
        self._say = say or (lambda line: self.console.print(line, markup=False, soft_wrap=True))
        self._done = 0.0
        self._phase = ""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        # The time left comes from the last minutes, not seconds: phases differ in speed.
        self._progress: Progress = Progress(*columns, console=self.console, transient=True, speed_estimate_period=180)
        self._task = self._progress.add_task("", total=sum(self.weights.values()) or 1.0, note="")

    def __enter__(self) -> Bar:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def share(self) -> float:
        """How much of the whole is done, from 0 to 1."""
        return float(self._progress.tasks[0].percentage) / 100

    @property
    def line(self) -> str:
        """What stands beside the bar."""
        task = self._progress.tasks[0]
        return f"{task.description} {task.fields['note']}".rstrip()

    def begin(self, phase: str) -> None:
        """The next phase starts."""
        self._phase = phase
        self.at(0.0)

    def at(self, fraction: float, note: str = "", *, step: str = "") -> None:
        """So much of the phase is done, from 0 to 1."""
        reached = self._done + self.weights.get(self._phase, 0.0) * min(max(fraction, 0.0), 1.0)
        self._progress.update(self._task, completed=reached, description=f"{self._phase} {step}".rstrip(), note=note)

    def count(self, done: int, total: int) -> None:
        """So many things of the phase are done."""
        self.at(done / total, f"{done}/{total}")

    def end(self) -> None:
        """The phase is done."""
        self._done += self.weights.get(self._phase, 0.0)
        self.at(0.0)

    def say(self, line: str) -> None:
        """A line above the bar."""
        # Stopped for the moment, since `say` may write past the console of the bar.
        if self.console.is_terminal:
            self._progress.stop()
        self._say(line)
        if self.console.is_terminal:
            self._progress.start()


class TrainingWatch:
    """Follows the training in another process by the files that it writes.

    Args:
        run: the folder that holds the run folders of the stages.
        steps: stage -> its number of steps.
        bar: is moved.
        training_share: how much of the phase the training is expected to take; the rest is start, evaluation and figures.
    """

    def __init__(self, run: Path, steps: Mapping[str, int], bar: Bar, training_share: float = 0.8) -> None:
        self.run, self.steps, self.bar, self.training_share = run, dict(steps), bar, training_share
        self.cells = 0.0

    def on_cell(self, done: int, total: int) -> None:
        """A cell of the notebook has ended."""
        self.cells = done / total

    def __call__(self) -> None:
        """Look at the files and move the bar."""
        trained, step, losses = 0, "", ""
        for stage, total in self.steps.items():
            line = last_jsonl(self.run / stage / METRICS)
            if line is not None:
                trained += min(line["step"], total)
                step = f"stage {stage} step {line['step']}/{total}"
                terms = {name: value for name, value in line.items() if is_loss(name)}
                losses = "  ".join(f"{name} {value:.3g}" for name, value in list(terms.items())[:_SHOWN_LOSSES])
        share = trained / max(sum(self.steps.values()), 1)
        self.bar.at(self.training_share * share + (1 - self.training_share) * self.cells, losses, step=step)
