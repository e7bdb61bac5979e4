"""`tpo-lab train`: a recipe on a backbone and annotation files, in one process or under `accelerate launch`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import FILES, Result, Stopped, command
from tpo_lab.cli.screen import Bars, say, table
from tpo_lab.cli.settings import named_values
from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from tpo_lab.model import TPOModel
    from tpo_lab.recipes import Recipe
    from tpo_lab.runs import RunFolder
    from tpo_lab.sample import Sample
    from tpo_lab.stages import Stage
    from tpo_lab.training import TrainingOptions

    Samples = Sequence[Sample] | Mapping[str, Sequence[Sample]]

EXAMPLE = """
tpo-lab train --data train.jsonl --out runs/first
tpo-lab train --recipe paper --dry-run
tpo-lab train --data *.jsonl --out runs/short --stage 1 --set 1.steps=100
tpo-lab train --recipe paper --data paper --root /data/video --out runs/paper --stage 1
tpo-lab train --data qvh.jsonl --out qvh --head '{"name": "temporal", "head": "cg-detr", "features": [{"folder": "clip", "width": 512}]}'
"""

group = typer.Typer()


@command(group, "train", example=EXAMPLE)
def train(
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="A preset, or a .json or .toml file.")] = "nano",
    backbone: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="nano, a folder, or a hub id. Default: nano.")] = None,
    data: Annotated[
        list[Path], typer.Option(metavar=FILES, help="Samples as JSONL, several files are joined; or one mixture: a YAML file, or paper.")
    ] = [],
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Where a mixture's files lie. Default: beside its YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run folder; its checkpoint/ is the trained model.")] = None,
    head: Annotated[
        list[str],
        typer.Option(metavar="NAME|JSON", help="A head of a new model, settings as JSON; repeatable. Default: all three."),
    ] = [],
    stage: Annotated[str, typer.Option(metavar="1|2|2.HEAD|3a|3b|all", help="Which stages to run.")] = "all",
    checkpoint: Annotated[str | None, typer.Option(metavar="DIR", help="Start from this checkpoint, not from a backbone.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of batches and of everything random.")] = 0,
    set_: Annotated[list[str], typer.Option("--set", metavar="KNOB=VALUE", help="Change a knob of the recipe; repeatable.")] = [],
    micro_batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Rows at once on one device; saves memory.")] = None,
    feature_cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep vision features there, for later stages and runs; memory only by default.")
    ] = None,
    tracker: Annotated[
        list[str], typer.Option(metavar="NAME", help="Log every step to tensorboard, mlflow, wandb, ...; repeatable. Default: none.")
    ] = [],
    probe_every: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Measure gradients and routes every N steps, for probes.jsonl. Default: never."),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe and what each stage trains, then stop.")] = False,
) -> Result:
    """Train a model through the stages of a recipe."""
    from tpo_lab import recipes
    from tpo_lab.trackers import checked_trackers
    from tpo_lab.training import TrainingOptions

    trackers = checked_trackers(tracker)
    knobs = named_values("--set", "KNOB=VALUE, such as 2.region.steps=100", set_)
    chosen = recipes.recipe(recipe).replace(**knobs)
    if not dry_run:
        for name, value in (("--data", data), ("--out", out)):
            if not value:
                raise UsageError(name, expected="a value", got=None, hint="Only --dry-run needs none.")
    model = _model(backbone, checkpoint, chosen, _specs(head), frames="frames" in knobs, threads=threads, seed=seed)
    chosen = chosen.for_heads(tuple(name for name in model.heads if name in chosen.heads))
    stages = chosen.stage(stage)
    model.add_lora(chosen.lora)
    if dry_run or out is None:
        return _plan(model, chosen, stages, _samples(data, root, stages, seed) if data else None, seed)
    kept = None if feature_cache is None else str(feature_cache)
    options = TrainingOptions(seed=seed, micro_batch=micro_batch, feature_cache=kept, trackers=trackers, probe_every=probe_every)
    return _fit(model, chosen, stage, _samples(data, root, stages, seed), out, options, resume=resume)


def _samples(data: Sequence[Path], root: Path | None, stages: Sequence[Stage], seed: int) -> Samples:
    """The samples of JSONL files, or of a mixture, by stage."""
    from tpo_lab.datasets.mixture import is_mixture, mixture
    from tpo_lab.sample import read

    if not any(is_mixture(str(path)) for path in data):
        if root is not None:
            raise UsageError("--root", expected="none without a mixture in --data", got=str(root))
        return read(data)
    if len(data) > 1:
        raise UsageError("--data", expected="one mixture, or files of samples", got=[str(path) for path in data])
    chosen = mixture(str(data[0]), root=root)
    for stage in stages:
        chosen.require(stage.name)
    with Bars() as bars:
        return {stage.name: chosen.samples(stage.name, seed=seed, progress=bars.count) for stage in stages}


def _fit(model: TPOModel, recipe: Recipe, stage: str, samples: Samples, out: Path, options: TrainingOptions, *, resume: bool) -> Result:
    from tpo_lab.training import Interrupted, fit

    began = time.monotonic()
    try:
        with Bars() as bars:
            run = fit(
                model,
                samples,
                recipe,
                out,
                stage=stage,
                resume=resume,
                options=options,
                listener=bars.listen,
                report=_Announcer(model, recipe.stage(stage)),
            )
    except Interrupted as stop:
        raise Stopped(f"{stop} The run is in {out}.") from stop
    return _summary(run, recipe, time.monotonic() - began)


def _specs(heads: Sequence[str]) -> list[str | dict[str, Any]]:
    """Names as they are, JSON as the specs of `tpo_lab.build`."""
    found: list[str | dict[str, Any]] = []
    for head in heads:
        if not head.lstrip().startswith("{"):
            found.append(head)
            continue
        try:
            found.append(json.loads(head))
        except json.JSONDecodeError as error:
            expected = 'a name, or JSON such as {"name": "temporal", "head": "cg-detr"}'
            raise UsageError("--head", expected=expected, got=head, hint=f"{error}.") from error
    return found


def _model(
    backbone: str | None,
    checkpoint: str | None,
    recipe: Recipe,
    heads: Sequence[str | dict[str, Any]],
    *,
    frames: bool,
    threads: int | None,
    seed: int,
) -> TPOModel:
    import torch

    from tpo_lab import api
    from tpo_lab.cli.models import checkpoint_folder

    if threads is not None:
        torch.set_num_threads(threads)
    # Heads and task tokens are drawn when they are built, long before the training seeds itself.
    torch.manual_seed(seed)
    if checkpoint is None:
        # A backbone knows best how many frames it was pretrained with; only an explicit setting changes that.
        return api.build(backbone or "nano", heads or api.DEFAULT_HEADS, recipe=recipe, num_frames=recipe.frames if frames else None)
    if heads:
        raise UsageError("--head", expected="none beside --checkpoint, which names its own", got=list(heads))
    if backbone is not None:
        raise UsageError("--backbone", expected="none beside --checkpoint, which names its own", got=backbone)
    return api.load(checkpoint_folder(checkpoint))


class _Announcer:
    """Says what a run reports, with each stage's freeze table in place of the lines that list its trained parts alone."""

    def __init__(self, model: TPOModel, stages: Sequence[Stage]) -> None:
        self.model, self.stages = model, stages

    def __call__(self, line: str) -> None:
        if line.startswith(" "):
            return
        say(line)
        for stage in self.stages:
            if line.startswith(f"stage {stage.name}:"):
                say(_freeze_table(self.model, stage))


def _freeze_table(model: TPOModel, stage: Stage, title: str = "") -> Table:
    from tpo_lab import freeze

    return freeze.table(freeze.FreezePlan.of(stage), model.named_parts(), title)


def _plan(model: TPOModel, recipe: Recipe, stages: Sequence[Stage], samples: Samples | None, seed: int) -> Result:
    """The recipe and what trains in each stage; with data, also the number of steps."""
    from rich.console import Group

    from tpo_lab import freeze
    from tpo_lab.training import StageData, groups_of
    from tpo_lab.training.data import counted

    groups = groups_of(samples or (), stages)
    steps = {each.name: StageData(groups[each.name], each, seed).total_steps if samples else each.steps for each in stages}
    shapes = {stage.name: freeze.shape(freeze.FreezePlan.of(stage), model.named_parts()) for stage in stages}
    document = {
        "recipe": recipe.to_dict(),
        "backbone": model.backbone.name,
        "samples": counted(samples or (), groups),
        "stages": [{"name": stage.name, "title": stage.title, "steps": steps[stage.name], **shapes[stage.name]} for stage in stages],
    }
    tables = [_freeze_table(model, stage, f"stage {stage.name}: {stage.title}") for stage in stages]
    lengths = ", ".join(f"{name} {count if count is not None else 'by the data'}" for name, count in steps.items())
    return Result(document, Group(recipe.describe(), *tables, f"Steps: {lengths}. Nothing was trained."))


def _summary(run: RunFolder, recipe: Recipe, seconds: float) -> Result:
    from rich.console import Group

    by_stage: dict[str, list[dict[str, Any]]] = {}
    for line in run.metrics():
        by_stage.setdefault(line["stage"], []).append(line)
    stages = [
        {"name": name, "steps": len(lines), "first_loss": lines[0]["loss"], "last_loss": lines[-1]["loss"]}
        for name, lines in by_stage.items()
    ]
    rows = [(line["name"], str(line["steps"]), f"{line['first_loss']:.4g}", f"{line['last_loss']:.4g}") for line in stages]
    losses = table(("stage", "steps", "loss at first", "loss at last"), rows, numbers=(1, 2, 3))
    trained = run.path / "checkpoint"
    document = {"run": str(run.path), "checkpoint": str(trained), "recipe": recipe.name, "stages": stages, "seconds": round(seconds, 1)}
    return Result(document, Group(losses, f"Trained in {seconds:.0f} s: {trained}"))
