"""The training loop: a recipe's stages on a model, resumable, with every loss on its own. Stands on accelerate."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from tpo_lab import checkpoint
from tpo_lab.checkpoints.kept import TRAINED, tidy
from tpo_lab.errors import UsageError
from tpo_lab.frame_files import FrameFiles
from tpo_lab.interrupt import stop_on_interrupt
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.runs import RunFolder
from tpo_lab.sample import Sample
from tpo_lab.trackers import checked_trackers, tracked
from tpo_lab.training.loop import Listener, StageLoop
from tpo_lab.training.options import TrainingOptions
from tpo_lab.training.resume.changes import Change, refuse
from tpo_lab.training.resume.data_prints import DataPrints
from tpo_lab.training.resume.randomness import seed_everything
from tpo_lab.training.resume.state import Asked, Saved, Saver, is_begun, latest_whole
from tpo_lab.training.rows.data import StageData, counted, groups_of
from tpo_lab.training.steps.processes import Processes


def fit(
    model: TPOModel,
    samples: Sequence[Sample] | Mapping[str, Sequence[Sample]],
    recipe: Recipe,
    out: Path | str,
    *,
    stage: str = "all",
    resume: bool = False,
    resume_anyway: bool = False,
    options: TrainingOptions | None = None,
    listener: Listener | None = None,
    report: Callable[[str], None] | None = None,
) -> RunFolder:
    """Train a model through the stages of a recipe.

    Args:
        samples: the training data of every task that the stages name; or by stage, where each has its own.
        recipe: is cut to the heads that the model has.
        out: the run folder; `out/checkpoint` is the trained model, `out/checkpoints` what a stopped run goes on from.
        stage: "1", "2", "2.<head>", "3a", "3b" or "all".
        resume: go on from the latest whole checkpoint in `out`, with the weights there; stages that are finished there are not run again.
        resume_anyway: the same although recipe, options, data or model are not those that the run was started with; the history of the
            model says what changed.
        listener: called after every step.
        report: called with lines worth a person's attention (frozen and trained parts, a head without gradient).

    Returns:
        The run folder. The model is left in evaluation mode; under FSDP in pieces, so that its checkpoint is what one goes on with.

    Raises:
        UsageError: where data, recipe and model do not fit, there is already a run in `out`, what is resumed was started with another
            recipe, other options or other data, or there is no such tracker.
        Interrupted: after Ctrl-C or SIGTERM in any process; a checkpoint is saved.
        TPOError: where the loss is no longer finite, a checkpoint cannot be written, or none of those in `out` is whole.
    """
    options = options or TrainingOptions()
    say = report or (lambda line: None)
    untrained = [name for name in model.heads if name not in recipe.heads]
    recipe = recipe.for_heads(tuple(name for name in model.heads if name in recipe.heads))
    stages = recipe.stage(stage)
    checked_trackers(options.trackers)
    out, resume = Path(out), resume or resume_anyway
    if not resume and is_begun(out):
        raise UsageError("out", expected="a folder without a run", got=str(out), hint="Add --resume to go on, or choose another folder.")
    groups = groups_of(samples, stages)
    data = {entry.name: StageData(groups[entry.name], entry, options.seed) for entry in stages}
    seed_everything(options.seed)
    model.add_lora(recipe.lora)
    processes = Processes(options.shard)
    accelerator = processes.accelerator
    if options.probe_every and processes.in_step:
        hint = "One process measures alone, and has a piece of the weights only."
        raise UsageError("probe_every", expected=f"none under {processes.kind}", got=options.probe_every, hint=hint)
    if processes.rank:
        # the weights that training adds are equal by now, and what it drops may differ
        seed_everything(options.seed + processes.rank)
    counts = counted(samples, groups)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            tidy(out)
        saved = latest_whole(out, say) if resume else None
        settings = {"recipe": recipe.to_dict(), "stage": stage, "options": asdict(options), "samples": counts}
        run = RunFolder(out, settings)
    asked = Asked(recipe, options, processes.count, DataPrints(groups, stages))
    saver = Saver(out, asked, processes)
    changes: list[Change] = []
    if saved is not None:
        changes = _go_back(model, saved, asked, processes, anyway=resume_anyway)
        saver.finished = saved.finished
        if saved.stage in saver.finished:
            saved = None
    for name in untrained:
        say(f"warning: no stage of recipe {recipe.name!r} trains head {name!r}")
    files = None if options.frame_cache is None else FrameFiles(options.frame_cache)
    frames = Frames(model.backbone, features=model.feature_files, on_corrupt=options.on_corrupt, files=files)
    trackers = options.trackers if accelerator.is_main_process else ()
    with stop_on_interrupt(signal.SIGTERM) as stopped, tracked(run, trackers, settings), processes.company():
        for entry in stages:
            if entry.name in saver.finished:
                continue
            loop = StageLoop(model, entry, data[entry.name], frames, run, options, processes)
            if saved is not None and saved.stage == entry.name:
                loop.restore(saved, changed=bool(changes))
                saved = None  # what it holds is as large as what the optimizer remembers
            if resume and accelerator.is_main_process:
                run.keep_until(entry.name, loop.step)
            for line in loop.describe():
                say(line)
            loop.train(stopped, listener, say, saver)
            model.provenance.history.append({"recipe": recipe.name, "stage": entry.name, "steps": loop.total, "seed": options.seed})
            saver.finished.append(entry.name)
            loop.save(saver)
            loop.engine.close()
            accelerator.free_memory()
    model.eval()
    # weights that lie on several processes cannot go through the model in one alone
    outputs = _outputs(model, say) if processes.count == 1 else None
    with processes.all_or_none():
        checkpoint.save(model, out / TRAINED, outputs=outputs, writes=processes.is_main)
    return run


def _outputs(model: TPOModel, say: Callable[[str], None]) -> dict[str, Tensor] | None:
    """What later audits compare with; what was trained is saved whatever a head makes of a row that nobody annotated."""
    try:
        return checkpoint.fixed_outputs(model)
    except Exception as error:
        say(f"warning: no outputs are stored for later audits: {' '.join(str(error).split()) or type(error).__name__}")
        return None


def _go_back(model: TPOModel, saved: Saved, asked: Asked, processes: Processes, *, anyway: bool) -> list[Change]:
    """Put the model and the random numbers where a checkpoint had them; says what changed since.

    Raises:
        UsageError: something changed, and nobody said that it may.
    """
    changes = saved.changes(asked, model)
    if not anyway:
        refuse(saved.stage, changes)
    saved.put_back_model(model)
    if changes:
        entry = {"recipe": asked.recipe.name, "stage": saved.stage, "resumed_at": saved.part.state["step"]}
        model.provenance.history.append({**entry, "changes": [change.to_dict() for change in changes]})
    saved.put_back_random(processes.rank)
    return changes
