"""`tpo-lab train`: a recipe on a backbone and annotation files, in one process or under `accelerate launch`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    from tpo_lab.training.cost.plan import Resources

    Samples = Sequence[Sample] | Mapping[str, Sequence[Sample]]

EXAMPLE = """
tpo-lab train --data train.jsonl --out runs/first
tpo-lab train --recipe paper --dry-run
accelerate launch --num_processes 8 -m tpo_lab train --data train.jsonl --out runs/first --backbone DIR --shard fsdp --checkpointing
tpo-lab train --data *.jsonl --out runs/short --stage 1 --set 1.steps=100
tpo-lab train --recipe paper --data paper --root /data/video --out runs/paper --stage 1
tpo-lab train --data qvh.jsonl --out qvh --workers 8 --frame-cache frames --on-bad skip --max-dropped 1%
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, from its latest checkpoint.")] = False,
    resume_anyway: Annotated[
        bool, typer.Option("--resume-anyway", help="Go on though recipe, options or data changed; the model's history says so.")
    ] = False,
    save_every: Annotated[int, typer.Option(metavar="N", min=1, help="Steps between two checkpoints to go on from.")] = 100,
    keep: Annotated[int, typer.Option(metavar="N", min=1, help="How many of those to keep, the latest ones.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", help="Of batches and of everything random.")] = 0,
    set_: Annotated[list[str], typer.Option("--set", metavar="KNOB=VALUE", help="Change a knob of the recipe; repeatable.")] = [],
    micro_batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Rows at once on one device; saves memory.")] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute layers again in the backward pass; saves memory, takes a third longer.")
    ] = False,
    shard: Annotated[
        str, typer.Option(metavar="auto|ddp|fsdp", help="Under accelerate launch: all weights on each device, or the LLM's in pieces.")
    ] = "auto",
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
    workers: Annotated[int, typer.Option(metavar="N", min=0, help="Processes that decode clips ahead of the training.")] = 0,
    frame_cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep decoded frames there, for later runs; 16 frames of 384 pixels take 7 MB.")
    ] = None,
    on_bad: Annotated[
        str, typer.Option(metavar="raise|skip", help="A clip that cannot be read ends the job, or is left out and listed in dropped.jsonl.")
    ] = "raise",
    max_dropped: Annotated[str, typer.Option(metavar="N|P%", help="With skip: how many samples of a stage may be left out.")] = "1%",
    on_corrupt: Annotated[
        str, typer.Option(metavar="raise|drop|warn", help="A damaged frame: the clip cannot be read, or the last good frame is shown.")
    ] = "raise",
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print steps, what trains, data and memory of each stage, then stop.")] = False,
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
    kept = None if feature_cache is None else str(feature_cache)
    options = TrainingOptions(seed=seed, micro_batch=micro_batch, feature_cache=kept, trackers=trackers, probe_every=probe_every)
    options = replace(options, save_every=save_every, keep=keep, checkpointing=checkpointing, shard=shard)
    decoded = None if frame_cache is None else str(frame_cache)
    options = replace(options, workers=workers, frame_cache=decoded, on_bad=on_bad, max_dropped=max_dropped, on_corrupt=on_corrupt)
    model = _model(backbone, checkpoint, chosen, _specs(head), frames="frames" in knobs, threads=threads, seed=seed, outline=dry_run)
    chosen = chosen.for_heads(tuple(name for name in model.heads if name in chosen.heads))
    stages = chosen.stage(stage)
    model.add_lora(chosen.lora)
    if dry_run or out is None:
        return _plan(model, chosen, stages, _samples(data, root, stages, seed) if data else None, options)
    return _fit(model, chosen, stage, _samples(data, root, stages, seed), out, options, resume=resume, resume_anyway=resume_anyway)


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


def _fit(
    model: TPOModel,
    recipe: Recipe,
    stage: str,
    samples: Samples,
    out: Path,
    options: TrainingOptions,
    *,
    resume: bool,
    resume_anyway: bool,
) -> Result:
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
                resume_anyway=resume_anyway,
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
    outline: bool = False,
) -> TPOModel:
    """The model to train; with `outline` a backbone of real size has shapes alone, as its configuration says."""
    import torch

    from tpo_lab import api
    from tpo_lab.backbones import outline_of
    from tpo_lab.cli.models import checkpoint_folder

    if threads is not None:
        torch.set_num_threads(threads)
    # Heads and task tokens are drawn when they are built, long before the training seeds itself.
    torch.manual_seed(seed)
    if checkpoint is None:
        # A backbone knows best how many frames it was pretrained with; only an explicit setting changes that.
        count, name = recipe.frames if frames else None, backbone or "nano"
        return api.build(outline_of(name, count) if outline else name, heads or api.DEFAULT_HEADS, recipe=recipe, num_frames=count)
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


def _plan(model: TPOModel, recipe: Recipe, stages: Sequence[Stage], samples: Samples | None, options: TrainingOptions) -> Result:
    """The recipe, and for each stage its steps, what trains, the data and the memory of a step."""
    from rich.console import Group

    from tpo_lab.cli.train_plan import plan_views
    from tpo_lab.training import StageData, groups_of
    from tpo_lab.training.cost.plan import stage_plan
    from tpo_lab.training.rows.data import counted

    groups, resources = groups_of(samples or (), stages), _resources(options)
    data = {each.name: StageData(groups[each.name], each, options.seed) if samples else None for each in stages}
    plans = [stage_plan(model, stage, data[stage.name], resources) for stage in stages]
    document = {
        "recipe": recipe.to_dict(),
        "backbone": model.backbone.name,
        "samples": counted(samples or (), groups),
        "stages": plans,
    }
    tables = [_freeze_table(model, stage, f"stage {stage.name}: {stage.title}") for stage in stages]
    return Result(document, Group(recipe.describe(), *tables, *plan_views(plans), "Nothing was trained."))


def _resources(options: TrainingOptions) -> Resources:
    """What a step would be cut into: as many processes as `accelerate launch` has started."""
    from tpo_lab.training.cost.plan import Resources
    from tpo_lab.training.steps.processes import chosen, cuts_weights

    return Resources(
        processes=int(os.environ.get("WORLD_SIZE", "1")),
        micro_batch=options.micro_batch,
        checkpointing=options.checkpointing,
        sharded=cuts_weights(chosen(options.shard)),
    )


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
