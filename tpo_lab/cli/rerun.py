"""`tpo-lab rerun`: a notebook, or a chain of them, over many parameters and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, Stopped, command
from tpo_lab.cli.screen import table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tpo_lab.reruns.running.progress import Summary

group = typer.Typer()

EXAMPLE = """
tpo-lab rerun rate.yaml
tpo-lab rerun rate.yaml --dry-run
tpo-lab rerun rate.yaml --out runs/rate --workers 4 --retry 1
tpo-lab rerun rate.yaml --scheduler tcp://node1:8786
"""


@command(group, "rerun", example=EXAMPLE)
def rerun(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="What runs: notebooks, parameters, points, seeds.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the runs go; runs/NAME by default.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Runs side by side; by default one for each GPU, or core (at most four).")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="URL", help="Run on the workers of this Dask scheduler; all must see the folder.")
    ] = None,
    retry: Annotated[int, typer.Option(metavar="N", min=0, help="How often a run that fails is tried again.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs with their state, and run nothing.")] = False,
) -> Result:
    """Run notebooks over many parameters and seeds; called again it goes on, and tries again what failed.

    A run that is done is not run again as long as its notebook, its parameters, its input data and the code are the same.
    """
    from tpo_lab.cli.sweep_screen import SweepScreen
    from tpo_lab.reruns.plan.sweep import Sweep
    from tpo_lab.reruns.running.rerun import folder_of, states_before
    from tpo_lab.reruns.running.rerun import rerun as run

    read = Sweep.read(sweep)
    folder = folder_of(read, out)
    if dry_run:
        return _planned(read.name, folder, states_before(read, folder), read.optuna.trials if read.optuna else 0)
    shown = SweepScreen()
    try:
        with shown:
            done = run(read, folder, workers=workers, scheduler=scheduler, retries=retry, tell=shown.tell)
    except KeyboardInterrupt:
        raise Stopped(f"Interrupted. What is done is kept; the same command goes on in {folder}.") from None
    return Result(done.to_dict(), _view(done), status=1 if done.failed or done.skipped else 0)


def _planned(name: str, folder: Path, jobs: list[tuple[Any, str]], trials: int) -> Result:
    listed = [{"name": job.name, "key": job.key, "state": state} for job, state in jobs]
    document = {"out": str(folder), "name": name, "jobs": listed, "trials": trials}
    if trials:
        return Result(document, f"Optuna would choose {trials} points, one after the other. Nothing was run.")
    waiting = sum(state != "done" for _, state in jobs)
    rows = [(job.name, job.key, state) for job, state in jobs]
    title = f"{waiting} of {len(jobs)} runs would run in {folder}"
    return Result(document, table(("run", "key", "state"), rows, title=title))


def _view(done: Summary) -> RenderableType:
    from rich.console import Group

    counts = f"{done.done} of {done.jobs} runs are done, {done.failed} failed, {done.skipped} skipped"
    told = f"{counts}. {done.ran} ran now, {done.reused} were done before; {done.seconds:.0f} s."
    rows = [(each["name"], str(each["cell"]), each["error"], each["notebook"]) for each in done.failures]
    failed = [table(("failed run", "cell", "error", "notebook"), rows, numbers=(1,))] if rows else []
    return Group(*failed, told, f"The table: tpo-lab runs table {done.out}")
