"""The training loop: a recipe's stages on a model, resumable, with every loss on its own. Stands on accelerate."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tpo_lab import checkpoint
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.interrupt import stop_on_interrupt
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.runs import METRICS, RunFolder
from tpo_lab.sample import Sample
from tpo_lab.trackers import checked_trackers, tracked
from tpo_lab.training.data import StageData, counted, groups_of
from tpo_lab.training.loop import STATE, Listener, StageLoop, TrainingOptions


def fit(
    model: TPOModel,
    samples: Sequence[Sample] | Mapping[str, Sequence[Sample]],
    recipe: Recipe,
    out: Path | str,
    *,
    stage: str = "all",
    resume: bool = False,
    options: TrainingOptions | None = None,
    listener: Listener | None = None,
    report: Callable[[str], None] | None = None,
) -> RunFolder:
    """Train a model through the stages of a recipe.

    Args:
        samples: the training data of every task that the stages name; or by stage, where each has its own.
        recipe: is cut to the heads that the model has.
        out: the run folder; `out/checkpoint` is the trained model.
        stage: "1", "2", "2.<head>", "3a", "3b" or "all".
        resume: go on from the state in `out`, with the weights there; stages that are finished there are not run again.
        listener: called after every step.
        report: called with lines worth a person's attention (frozen and trained parts, a head without gradient).

    Returns:
        The run folder. The model is left in evaluation mode.

    Raises:
        UsageError: where data, recipe and model do not fit, there is already a run in `out`, the unfinished stage in it was
            started with other settings, or there is no such tracker.
        Interrupted: after Ctrl-C; the state is saved.
        TPOError: where the loss is no longer finite.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    options = options or TrainingOptions()
    say = report or (lambda line: None)
    untrained = [name for name in model.heads if name not in recipe.heads]
    recipe = recipe.for_heads(tuple(name for name in model.heads if name in recipe.heads))
    stages = recipe.stage(stage)
    checked_trackers(options.trackers)
    out = Path(out)
    state_path = out / STATE
    if not resume and (state_path.exists() or (out / METRICS).exists()):
        raise UsageError("out", expected="a folder without a run", got=str(out), hint="Add --resume to go on, or choose another folder.")
    groups = groups_of(samples, stages)
    data = {entry.name: StageData(groups[entry.name], entry, options.seed) for entry in stages}
    state = _read_state(state_path) if resume and state_path.exists() else None
    torch.manual_seed(options.seed)
    model.add_lora(recipe.lora)
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    counts = counted(samples, groups)
    with accelerator.main_process_first():
        settings = {"recipe": recipe.to_dict(), "stage": stage, "options": asdict(options), "samples": counts}
        run = RunFolder(out, settings)
    finished: list[str] = []
    if state is not None:
        _go_back(model, state, label=str(state_path))
        finished = list(state["finished"])
    for name in untrained:
        say(f"warning: no stage of recipe {recipe.name!r} trains head {name!r}")
    frames = Frames(model.backbone, features=model.feature_files)
    trackers = options.trackers if accelerator.is_main_process else ()
    with stop_on_interrupt() as stopped, tracked(run, trackers, settings):
        for entry in stages:
            if entry.name in finished:
                continue
            loop = StageLoop(model, entry, data[entry.name], frames, run, options, accelerator)
            if state is not None and state["stage"] == entry.name:
                loop.restore(state)
            if resume and accelerator.is_main_process:
                run.keep_until(entry.name, loop.step)
            for line in loop.describe():
                say(line)
            loop.train(stopped, listener, say, finished)
            model.provenance.history.append({"recipe": recipe.name, "stage": entry.name, "steps": loop.total, "seed": options.seed})
            finished.append(entry.name)
            loop.save(finished)
            accelerator.free_memory()
    model.eval()
    if accelerator.is_main_process:
        checkpoint.save(model, out / "checkpoint")
    return run


def _read_state(path: Path) -> dict[str, Any]:
    damaged = TPOError(f"{path}: the state of the run is damaged. Start again in another folder.")
    if not zipfile.is_zipfile(path):
        raise damaged
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise damaged from error
    return state


def _go_back(model: TPOModel, state: Mapping[str, Any], *, label: str) -> None:
    """Give the model the weights of a saved state, and torch its random numbers."""
    model.trained_backbone_parts = set(state["trained_backbone_parts"])
    checkpoint.restore(model, state["model"], label=label)
    model.provenance.history = list(state["history"])
    torch.set_rng_state(state["rng"])
    if torch.cuda.is_available() and state["cuda_rng"] is not None:
        torch.cuda.set_rng_state(state["cuda_rng"])
