"""The tables of `tpo-lab train --dry-run`: steps, data and memory of each stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tpo_lab.cli.screen import table

if TYPE_CHECKING:
    from rich.console import RenderableType

MEMORY = ("parameters", "gradients", "optimizer", "activations", "total")


def plan_views(stages: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """The tables, from what `tpo_lab.training.cost.plan.stage_plan` gives of each stage."""
    yield _steps(stages)
    if any(stage["mixture"] for stage in stages):
        yield _mixture(stages)
        yield from _remarks(stages)
    yield _memory(stages)
    yield _counted_for(stages)


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB" if count >= 100 else f"{count:.3g} GiB"


def _steps(stages: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = [
        (
            stage["name"],
            stage["title"],
            "by the data" if stage["steps"] is None else f"{stage['steps']:,}",
            f"{stage['batch_size']:,}",
            f"{stage['trained']:,} of {stage['total']:,}",
        )
        for stage in stages
    ]
    return table(("stage", "", "steps", "rows a step", "parameters that train"), rows, numbers=(2, 3, 4), title="Steps")


def _mixture(stages: Sequence[Mapping[str, Any]]) -> RenderableType:
    columns = ("stage", "task", "data set", "samples", "rows", "share", "epochs", "clips", "missing", "hours")
    rows = [
        (
            stage["name"],
            each["task"],
            each["source"],
            f"{each['samples']:,}",
            f"{each['rows']:,}",
            f"{each['share']:.1%}",
            f"{each['epochs']:,.0f}" if each["epochs"] >= 100 else f"{each['epochs']:.3g}",
            f"{each['clips']:,}",
            f"{each['missing']:,}" + ("" if each["looked_for"] == each["clips"] else f" of {each['looked_for']:,}"),
            f"{each['hours']:.3g}" + ("+" if each["unknown_length"] else ""),
        )
        for stage in stages
        for each in stage["mixture"]
    ]
    return table(columns, rows, numbers=range(3, 10), title="Data")


def _remarks(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    shares = [each for stage in stages for each in stage["mixture"]]
    if any(each["unknown_length"] for each in shares):
        yield "+: some clips do not say how long they are."
    if any(each["missing"] for each in shares):
        yield "Clips are missing: training ends at the first one, or goes on without their samples with --on-bad skip."


def _memory(stages: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = [
        (
            stage["name"],
            str(stage["memory"]["rows"]),
            str(stage["memory"]["row"]["tokens"]),
            *(size(stage["memory"][name]) for name in MEMORY),
        )
        for stage in stages
    ]
    return table(("stage", "rows at once", "tokens a row", *MEMORY), rows, numbers=range(1, 8), title="Memory of a step, in each process")


def _counted_for(stages: Sequence[Mapping[str, Any]]) -> str:
    memory = stages[0]["memory"]
    precisions = " and ".join(sorted({stage["memory"]["precision"] for stage in stages}))
    cut = f"{memory['processes']} processes" if memory["processes"] > 1 else "one process"
    pieces = ", language model in pieces" if memory["sharded"] else ""
    again = "layers computed again" if memory["checkpointing"] else "no --checkpointing"
    longest = "the longest row looked at" if memory["row"]["rows"] else "a clip and 100 words"
    return (
        f"Counted for {cut}{pieces}, {precisions}, {again}, {longest}. "
        "Heads, kernels and the device's own come on top: leave a third free. --micro-batch and --checkpointing lower the activations."
    )
