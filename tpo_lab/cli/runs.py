"""`tpo-lab runs`: the runs of a sweep as a table, one run, two side by side, and its notebook opened."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.screen import plain, table
from tpo_lab.cli.settings import named_values
from tpo_lab.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from tpo_lab.reruns.results.collected import Run
    from tpo_lab.reruns.results.grouped import Grouped

TABLE = """
tpo-lab runs table runs/region-rate
tpo-lab runs table runs/region-rate --metric region_acc --baseline eval_samples=10
tpo-lab runs table runs/region-rate --out table.html
"""
SHOW = "tpo-lab runs show runs/region-rate 3f2a"
DIFF = """
tpo-lab runs diff runs/region-rate 3f2a 91bc
tpo-lab runs diff runs/region-rate runs/region-rate-2
"""
OPEN = """
tpo-lab runs open runs/region-rate 3f2a
tpo-lab runs open runs/region-rate "20_region_head eval_samples=10 seed=0" --print
"""
_FOLDER = "The folder of a sweep."
_KEY = "A key, a unique start of one, or a run's name."

group = typer.Typer(help="Look at the runs of a sweep: a table, one run, two side by side.")


@command(group, "table", example=TABLE)
def runs_table(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a sweep, or a folder of training runs.")],
    metric: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A field of the result records, such as after.region; repeatable. Default: the headline."),
    ] = [],
    over_seeds: Annotated[
        bool | None,
        typer.Option("--group/--no-group", help="A row per point and metric, over seeds. Default: where there are several."),
    ] = None,
    baseline: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="Compare with this point, seed by seed; repeatable. Default: the sweep's own."),
    ] = [],
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="table, csv, parquet, markdown, latex or html. Default: by --out's ending."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table there.")] = None,
) -> Result:
    """Show every run of a sweep, failed ones too; over seeds with mean, standard error and 95% interval."""
    from tpo_lab.reruns.display.cells import rows_of
    from tpo_lab.reruns.results.collected import is_sweep
    from tpo_lab.reruns.results.training_runs import training_runs, training_table

    chosen = _format(form, out)
    if not is_sweep(folder) and folder.is_dir() and training_runs(folder):
        for option, value in (("--metric", metric), ("--group", over_seeds), ("--baseline", baseline)):
            if value:
                raise UsageError(option, expected="none with training runs", got=value)
        frame = training_table(folder)
        return _result({"folder": str(folder), "runs": list(rows_of(frame))}, _Tables(folder, frame, frame), chosen, out)
    tables = _tables(folder, metric, over_seeds, baseline)
    document: dict[str, Any] = {"folder": str(folder), "states": tables.states(), "runs": list(rows_of(tables.frame))}
    if tables.grouped is not None:
        rows, method = list(rows_of(tables.grouped.frame)), tables.grouped.method
        document["grouped"] = {"interval": method, "level": 0.95, "baseline": tables.grouped.baseline, "rows": rows}
    return _result(document, tables, chosen, out)


class _Tables:
    """What one call of `runs table` may write: the runs, and where they are grouped, the table over seeds."""

    def __init__(
        self, folder: Path, frame: pd.DataFrame, short: pd.DataFrame, runs: Sequence[Run] = (), grouped: Grouped | None = None
    ) -> None:
        self.folder, self.frame, self.short, self.runs, self.grouped = folder, frame, short, runs, grouped

    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        found = [run.state for run in self.runs]
        return {state: found.count(state) for state in dict.fromkeys(found)}

    def summary(self) -> str:
        """One sentence on the runs, and where grouped, on how the intervals were made."""
        counts = ", ".join(f"{count} {state}" for state, count in self.states().items())
        told = f"{len(self.runs)} runs: {counts}." if self.runs else f"{len(self.frame)} runs."
        if self.grouped is None:
            return told
        from tpo_lab.reruns.results.statistics import BOOTSTRAP, RESAMPLES

        is_bootstrap = self.grouped.method == BOOTSTRAP
        how = (
            f"percentile bootstrap over seeds, {RESAMPLES:,} resamples" if is_bootstrap else "Student's t, as some have fewer than 5 seeds"
        )
        against = ", ".join(f"{name}={value}" for name, value in (self.grouped.baseline or {}).items())
        paired = f" Differences are from {against}, seed by seed." if self.grouped.baseline is not None else ""
        return f"{told} 95% intervals: {how}.{paired}"

    @property
    def main(self) -> pd.DataFrame:
        """The table that one file holds, with all digits."""
        return self.frame if self.grouped is None else self.grouped.frame

    @property
    def compact(self) -> pd.DataFrame:
        """The same for people."""
        from tpo_lab.reruns.display.compact import compact_groups

        return self.short if self.grouped is None else compact_groups(self.grouped.frame, self.grouped.method)


def _tables(folder: Path, wanted: Sequence[str], over_seeds: bool | None, baseline: Sequence[str]) -> _Tables:
    from tpo_lab.reruns.display.compact import compact_runs
    from tpo_lab.reruns.results.collected import runs_in, sweep_of
    from tpo_lab.reruns.results.grouped import grouped_table
    from tpo_lab.reruns.results.groups import has_seeds
    from tpo_lab.reruns.results.table import chosen_metrics, run_table

    runs = runs_in(folder)
    metrics = chosen_metrics(runs, wanted)
    frame = run_table(runs, metrics)
    grouped = None
    if over_seeds or baseline or (over_seeds is None and has_seeds(runs)):
        words = [word for text in baseline for word in shlex.split(text)]
        asked = named_values("--baseline", "NAME=VALUE, such as eval_samples=10", words) if baseline else sweep_of(folder).get("baseline")
        grouped = grouped_table(runs, metrics, asked)
    return _Tables(folder, frame, compact_runs(frame), runs, grouped)


def _format(form: str | None, out: Path | None) -> str:
    from tpo_lab.reruns.display.formats import FORMATS, format_of

    if form is not None and form not in FORMATS:
        raise unknown_name("--format", form, FORMATS)
    chosen = form or ("table" if out is None else format_of(out))
    if chosen == "parquet" and out is None:
        raise UsageError("--out", expected="a file for Parquet", got=None)
    return chosen


def _result(document: dict[str, Any], tables: _Tables, form: str, out: Path | None) -> Result:
    from tpo_lab.reruns.display.formats import write_parquet

    if form == "table" and out is None:
        return Result(plain(document), _screen(tables))
    if form == "parquet" and out is not None:
        write_parquet(tables.main, out)
    else:
        text = _text(tables, form, out)
        if out is None:
            return Result(plain(document), text.rstrip("\n"))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    return Result(plain({**document, "file": str(out)}), f"{len(tables.main)} rows: {out}")


def _screen(tables: _Tables) -> RenderableType:
    from rich.console import Group

    shown = [_view(tables.compact), tables.summary()]
    if tables.grouped is not None and any(state != "done" for state in tables.states()):
        unfinished = tables.short[tables.frame["state"] != "done"]
        shown.append(_view(unfinished, title="Runs that are not done"))
    if tables.runs:
        shown.append(f"Executed notebooks: {tables.folder / 'jobs'}/KEY/executed.ipynb, or `tpo-lab runs open {tables.folder} KEY`.")
    return Group(*shown)


def _view(frame: pd.DataFrame, title: str = "") -> RenderableType:
    from tpo_lab.reruns.display.cells import cell, numeric_columns

    right = numeric_columns(frame)
    rows = [[cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    numbers = [place for place, name in enumerate(frame.columns) if name in right]
    return table([str(name) for name in frame.columns], rows, numbers=numbers, title=title)


def _text(tables: _Tables, form: str, out: Path | None) -> str:
    from tpo_lab.reruns.display.formats import to_csv, to_latex, to_markdown

    if form == "csv":
        return to_csv(tables.main)
    if form == "markdown":
        return to_markdown(tables.compact, tables.summary())
    if form == "latex":
        return to_latex(tables.compact, tables.summary())
    if form == "html":
        return _page(tables, tables.folder if out is None else out.parent)
    return _drawn(_screen(tables))


def _drawn(view: RenderableType) -> str:
    """What the terminal would show, as text."""
    import io

    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=160, highlight=False).print(view)
    return page.getvalue()


def _page(tables: _Tables, base: Path) -> str:
    from tpo_lab.reruns.display.figures import figures_of
    from tpo_lab.reruns.display.page import Section, address, render

    sections = []
    if tables.grouped is not None:
        note = "n counts the seeds that have the number; what is missing, and why, stands beside it."
        sections.append(Section("Over seeds", note, tables.compact))
    frame = tables.short.assign(notebook=None, figures=None) if tables.runs else tables.short
    links = {
        "notebook": [[("notebook", address(run.executed, base))] if run.executed.exists() else [] for run in tables.runs],
        "figures": [[(path.stem, address(path, base)) for path in figures_of(run.folder)] for run in tables.runs],
    }
    failed = [run.state in ("failed", "skipped") for run in tables.runs]
    sections.append(Section("Runs", "A click on a head sorts.", frame, links if tables.runs else {}, failed))
    return render(tables.folder.resolve().name, tables.summary(), sections)


@command(group, "show", example=SHOW)
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help=_FOLDER)],
    key: Annotated[str, typer.Argument(metavar="KEY", help=_KEY)],
) -> Result:
    """Show one run: what was asked, its attempts, what came of it, and where its files are."""
    from tpo_lab.reruns.results.collected import find_run

    run = find_run(folder, key)
    files = {name: str(path) for name, path in _files(run).items() if path.exists()}
    document = {
        **run.job.to_dict(),
        "state": run.state,
        "attempts": run.attempts,
        "error": run.error,
        "record": run.record,
        "files": files,
    }
    return Result(plain(document), _one(run, files))


def _files(run: Run) -> dict[str, Path]:
    names = {"notebook": "executed.ipynb", "result": "result.json", "log": "log.txt", "training": "run"}
    return {"folder": run.folder, **{what: run.folder / name for what, name in names.items()}}


def _one(run: Run, files: Mapping[str, str]) -> RenderableType:
    from rich.console import Group

    from tpo_lab.reruns.display.cells import cell

    job = run.job
    facts = {"key": job.key, "link": job.link, "state": run.state, "seed": job.seed, "after": job.after, "seconds": run.seconds}
    swept = {name: "swept" for name in job.point}
    values = [(name, str(value), swept.get(name, "")) for name, value in job.values.items()]
    values += [(name, f"{part} of {job.after}", "taken") for name, part in job.takes.items()]
    attempts = [_attempt(each) for each in run.attempts]
    parts: list[RenderableType | None] = [
        job.name,
        table(("", ""), [(name, cell(value)) for name, value in facts.items() if value is not None]),
        table(("parameter", "value", ""), values),
        table(("attempt", "state", "began", "seconds", "worker", "error"), attempts, numbers=(3,)) if attempts else None,
        table(("result", "value"), [(name, cell(value)) for name, value in run.values.items()]) if run.values else None,
        f"error: {run.problem}" if run.problem else None,
        table(("", ""), list(files.items())),
    ]
    return Group(*(part for part in parts if part is not None))


def _attempt(line: Mapping[str, Any]) -> tuple[str, ...]:
    from tpo_lab.reruns.display.cells import cell

    error = line.get("error") or {}
    told = f"cell {error.get('cell')}: {error.get('type')}: {error.get('message')}" if error else ""
    return (*(cell(line.get(name)) for name in ("number", "state", "began", "seconds", "worker")), " ".join(told.split()))


@command(group, "diff", example=DIFF)
def diff(
    first: Annotated[str, typer.Argument(metavar="DIR|A", help="The folder of a sweep; or, of two arguments, the first folder.")],
    second: Annotated[str, typer.Argument(metavar="A|B", help="The first run; or the second folder: of a run, a sweep or a training run.")],
    third: Annotated[str | None, typer.Argument(metavar="[B]", help="The second run.")] = None,
) -> Result:
    """Show what differs between two runs: parameters, code and environment, metrics."""
    from tpo_lab.reruns.results.collected import find_run
    from tpo_lab.reruns.results.difference import differences, facts_in, facts_of_run

    if third is None:
        names, (one, other) = (first, second), (facts_in(Path(first)), facts_in(Path(second)))
    else:
        found = [find_run(Path(first), name) for name in (second, third)]
        names, (one, other) = (found[0].job.name, found[1].job.name), (facts_of_run(found[0]), facts_of_run(found[1]))
    differing = differences(one, other)
    document = {"first": names[0], "second": names[1], "differ": {name: list(both) for name, both in differing.items()}}
    return Result(plain({**document, "same": len({*one, *other}) - len(differing)}), _side_by_side(names, differing))


def _side_by_side(names: Sequence[str], differing: Mapping[str, tuple[Any, Any]]) -> RenderableType:
    from tpo_lab.reruns.display.cells import cell

    if not differing:
        return f"{names[0]} and {names[1]} do not differ."
    rows = [(name, cell(one), cell(other), _change(one, other)) for name, (one, other) in differing.items()]
    return table(("", *names, "second - first"), rows, numbers=(3,))


def _change(one: Any, other: Any) -> str:
    are_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other))
    return f"{other - one:+.4g}" if are_numbers else ""


@command(group, "open", example=OPEN)
def open_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help=_FOLDER)],
    key: Annotated[str, typer.Argument(metavar="KEY", help=_KEY)],
    print_: Annotated[bool, typer.Option("--print", help="Print the notebook's path and open nothing.")] = False,
) -> Result:
    """Open the executed notebook of a run in JupyterLab, or in the browser where that is not installed."""
    from tpo_lab.reruns.display.opening import open_notebook
    from tpo_lab.reruns.results.collected import find_run

    run = find_run(folder, key)
    path = str(run.executed) if print_ else open_notebook(run.executed)
    return Result({"key": run.job.key, "notebook": str(run.executed), "opened": None if print_ else path}, path)
