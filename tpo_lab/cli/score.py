"""`tpo-lab score`: the official metrics of a benchmark from prediction files; no model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.screen import Bars, table

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLE = """
tpo-lab score qvhighlights --pred preds.jsonl --gt highlight_val_release.jsonl
tpo-lab score lasot --variant pytracking --pred results --gt annos
tpo-lab score davis --pred results --gt DAVIS --workers 4
tpo-lab score nextgqa --pred ground.json --pred-qa qa.json --gt gsub_test.json --gt-qa test.csv
"""

group = typer.Typer()


@command(group, "score", example=EXAMPLE)
def score(
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCHMARK", help="For example qvhighlights, charades-sta, refcoco, lasot; an unknown name lists all.")
    ],
    pred: Annotated[Path, typer.Option(metavar="FILE|DIR", help="The predictions, in the benchmark's official form.")],
    gt: Annotated[Path, typer.Option(metavar="FILE|DIR", help="The ground truth, as it is published.")],
    variant: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A rule other than the default, as lasot pytracking, davis unsupervised; an unknown name lists all.",
        ),
    ] = "",
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Score what both sides have, as the official tool can.")] = False,
    bootstrap: Annotated[
        int, typer.Option(metavar="N", min=0, help="Resamples of 95% confidence intervals, over queries or videos; 0 for none.")
    ] = 0,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes for benchmarks of masks and of tracks.")] = 1,
    pred_qa: Annotated[Path | None, typer.Option(metavar="FILE", help="The predicted answers; nextgqa only.")] = None,
    gt_qa: Annotated[Path | None, typer.Option(metavar="FILE", help="The questions with their answers; nextgqa only.")] = None,
) -> Result:
    """Official metrics, in percent, from prediction files; no model is loaded."""
    from tpo_lab import scoring

    with Bars() as bars:
        request = scoring.Request(
            pred=pred,
            gt=gt,
            variant=variant,
            allow_missing=allow_missing,
            bootstrap=bootstrap,
            workers=workers,
            pred_qa=pred_qa,
            gt_qa=gt_qa,
            progress=lambda done, total: bars.move(benchmark, done, total),
        )
        document = scoring.score(benchmark, request).to_dict()
    return Result(document, _view(document))


def _view(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    intervals = document["detail"].get("intervals", {})
    rows = [(name, f"{value:.2f}", _ends(intervals.get(name))) for name, value in document["metrics"].items()]
    columns = ("metric", "percent", "95% interval") if intervals else ("metric", "percent")
    title = f"{document['benchmark']} ({document['variant']})"
    counts = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in document["counts"].items())
    return Group(table(columns, [row[: len(columns)] for row in rows], numbers=(1, 2), title=title), counts)


def _ends(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
