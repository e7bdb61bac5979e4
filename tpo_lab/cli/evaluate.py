"""`tpo-lab evaluate`: every metric with the route emitted by the model and with the route given, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import FILES, Result, command
from tpo_lab.cli.screen import Bars, plain, table

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLE = """
tpo-lab evaluate runs/first --data val.jsonl
tpo-lab evaluate nano-tpo --data qvhighlights.jsonl --predictions answers.jsonl
tpo-lab evaluate runs/demo/40_joint_training/run/3b --data val.jsonl --blind --out runs/blind
"""

group = typer.Typer()


@command(group, "evaluate", example=EXAMPLE)
def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or run folder, nano-tpo, or nano (untrained heads).")
    ],
    data: Annotated[list[Path], typer.Option(metavar=FILES, help="Samples as JSONL; several files are joined.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write evaluation.json there.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N samples.")] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Show grey frames: what do the questions alone give away?")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write samples with the model's answers; `data convert --back` submits them."),
    ] = None,
    records: Annotated[bool, typer.Option("--records", help="Add every answer to the result.")] = False,
) -> Result:
    """Score a model on annotated samples, task by task."""
    from itertools import islice

    from tpo_lab import evaluation
    from tpo_lab.cli.models import open_model
    from tpo_lab.predictions import predicted_samples
    from tpo_lab.runs import write_json
    from tpo_lab.sample import iter_samples, write

    samples = list(islice((sample for path in data for sample in iter_samples(path)), limit))
    model = open_model(checkpoint)
    with Bars() as bars:
        found = evaluation.evaluate(model, samples, blind=blind, progress=lambda done, total: bars.move("samples", done, total))
    asked = {"checkpoint": checkpoint, "data": [str(path) for path in data], "limit": limit, "blind": blind}
    document = plain({**asked, "headline": found.headline(), **found.to_dict(records=records)})
    if out is not None:
        write_json(out / "evaluation.json", document)
    if predictions is not None:
        document["predictions"] = {"file": str(predictions), "samples": write(predictions, predicted_samples(samples, found.records))}
    return Result(document, _view(found.scores))


def _view(scores: Mapping[str, Any]) -> RenderableType:
    from rich.console import Group

    rows: list[tuple[str, ...]] = []
    for task, found in scores.items():
        if task == "routing":
            continue
        # Plain answers have no route that could be given: their scores stand in the first column.
        routed, forced = _flat(found.get("routed", found)), _flat(found.get("teacher_forced", {}))
        rows += [(task, name, _number(routed.get(name)), _number(forced.get(name))) for name in dict.fromkeys([*routed, *forced])]
    routing = scores["routing"]
    rates = [(name, _number(value)) for name, value in _flat(routing).items()]
    confusion = [(label, *map(str, counts)) for label, counts in zip(routing["labels"], routing["confusion"], strict=True)]
    return Group(
        table(("task", "metric", "routed", "teacher-forced"), rows, numbers=(2, 3), title="Scores"),
        "Routed: the model must emit the route token itself. Teacher-forced: the true route is given.",
        table(("routes", "value"), rates, numbers=(1,), title="Routing"),
        table(("expected / emitted", *routing["labels"]), confusion, numbers=range(1, len(confusion) + 1), title="Routing, in samples"),
    )


def _flat(scores: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Numbers and intervals under dotted names; lists of labels and matrices are left out."""
    found: dict[str, Any] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{name}."))
        elif isinstance(value, (int, float)) or name.endswith("/interval"):
            found[prefix + name] = value
    return found


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return " to ".join(f"{each:.3f}" for each in value)
    return f"{value:.0f}" if float(value).is_integer() and value > 1 else f"{value:.3f}"
