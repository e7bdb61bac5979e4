"""What of a run is saved so that it goes on exactly, how it is found again, and whether what is asked for is still the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tpo_lab import checkpoint
from tpo_lab.checkpoints.atomic import sync
from tpo_lab.checkpoints.config import identity
from tpo_lab.checkpoints.kept import TRAINED, checkpoints, folder_of, order_of, prune
from tpo_lab.checkpoints.layout import check
from tpo_lab.checkpoints.loading import read_checked
from tpo_lab.checkpoints.resumable import TrainingPart, read_training
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.runs import METRICS, PROBES
from tpo_lab.training.resume import optimizer_state
from tpo_lab.training.resume.changes import Change, changes_of, option_changes, recipe_changes
from tpo_lab.training.resume.data_prints import DataPrint, DataPrints
from tpo_lab.training.resume.randomness import RandomState
from tpo_lab.training.rows.dropped import DROPPED
from tpo_lab.training.steps.processes import Processes

if TYPE_CHECKING:
    from tpo_lab.training.loop import StageLoop
    from tpo_lab.training.options import TrainingOptions

EARLIER_STATE = "state.pt"
"""What earlier versions went on from."""


@dataclass(frozen=True)
class Asked:
    """What a run is asked to do.

    Attributes:
        recipe: cut to the heads of the model.
        options: all of them.
        processes: how many train together.
        prints: of the data of every stage that is asked for.
    """

    recipe: Recipe
    options: TrainingOptions
    processes: int
    prints: DataPrints


class Saver:
    """Writes the resumable checkpoints of a run, and keeps the last few.

    Args:
        out: the run folder.
        asked: is written into every checkpoint.

    Attributes:
        finished: names of the stages that are done.
    """

    def __init__(self, out: Path, asked: Asked, processes: Processes) -> None:
        self.out, self.asked, self.processes = out, asked, processes
        self.finished: list[str] = []
        self._written = max(map(order_of, checkpoints(out)), default=0)

    def save(self, loop: StageLoop) -> Path:
        """Write where a stage is; every process calls it, the main one writes.

        Raises:
            TPOError: the folder cannot be written; the checkpoints before it stay.
        """
        self._written += 1
        folder, main = folder_of(self.out, loop.stage.name, loop.step), self.processes.is_main
        random = self.processes.everyone(RandomState.now())
        training = TrainingPart(self._state(loop, random), self._tensors(loop, random, wanted=main))
        with self.processes.all_or_none():
            if main:
                self._sync_logs()
            checkpoint.save(loop.model, folder, training=training, writes=main)
            if main:
                prune(self.out, self.asked.options.keep)
        return folder

    def _state(self, loop: StageLoop, random: Sequence[RandomState]) -> dict[str, Any]:
        stage, step = loop.stage.name, loop.step
        return {
            "stage": stage,
            "step": step,
            "total": loop.total,
            "order": self._written,
            "finished": list(self.finished),
            "recipe": self.asked.recipe.to_dict(),
            "options": asdict(self.asked.options),
            "processes": self.asked.processes,
            "data": self.asked.prints.summary(),
            "sampler": {"seed": self.asked.options.seed, "step": step, "rows": loop.data.sizes},
            "optimizer": optimizer_state.groups_of(loop.optimizer),
            "schedule": loop.schedule.state_dict(),
            "random": [state.plain for state in random],
            "without_gradient": dict(loop.watch.quiet),
        }

    def _tensors(self, loop: StageLoop, random: Sequence[RandomState], *, wanted: bool) -> dict[str, Mapping[str, Tensor]]:
        return {
            "optimizer": optimizer_state.tensors_of(loop.engine, wanted=wanted),
            "random": {f"{rank}.{name}": value for rank, state in enumerate(random) for name, value in state.tensors.items()},
            "data": self.asked.prints.of(loop.stage.name).to_tensors(),
        }

    def _sync_logs(self) -> None:
        """No checkpoint is on the disk before the lines of its steps."""
        for name in (METRICS, PROBES, DROPPED):
            if (self.out / name).exists():
                sync(self.out / name)


@dataclass(frozen=True)
class Saved:
    """A checkpoint from which a run can go on.

    Attributes:
        folder: of the checkpoint.
        part: what a run needs beside the model.
    """

    folder: Path
    part: TrainingPart

    @property
    def stage(self) -> str:
        """The stage in which it was made."""
        return str(self.part.state["stage"])

    @property
    def finished(self) -> list[str]:
        """Names of the stages that were done."""
        return list(self.part.state["finished"])

    def changes(self, asked: Asked, model: TPOModel) -> list[Change]:
        """What is asked for now and was not when the run was started; stages that are done are not asked about."""
        state = self.part.state
        return [
            *changes_of("model", self._model_before(model), _plain(identity(model))),
            *recipe_changes(state["recipe"], _plain(asked.recipe.to_dict()), self.finished),
            *option_changes(state["options"], _plain(asdict(asked.options))),
            *changes_of("number of", {"processes": state["processes"]}, {"processes": asked.processes}),
            *self._data_changes(asked),
        ]

    def put_back_model(self, model: TPOModel) -> None:
        """Give the model the weights and the history of the checkpoint."""
        config = checkpoint.read_config(self.folder)
        model.trained_backbone_parts = set(config["trained_backbone_parts"])
        checkpoint.restore(model, read_checked(self.folder, config), label=str(self.folder))
        model.provenance.history = list(config["history"])

    def put_back_random(self, rank: int) -> None:
        """Give a process the random numbers that it had; where there were fewer processes, it keeps its own."""
        prefix, tensors = f"{rank}.", self.part.tensors["random"]
        mine = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if mine:
            RandomState(mine, self.part.state["random"][rank]).put_back()

    def put_back_loop(self, loop: StageLoop, *, changed: bool) -> None:
        """Give a stage its optimizer, schedule, step and random numbers; the weights are there already.

        Args:
            changed: settings are no longer those of the checkpoint: the new ones count, and what the optimizer remembers is kept.
        """
        state = self.part.state
        loop.step = int(state["step"])
        optimizer_state.put_back_tensors(loop.engine, self.part.tensors["optimizer"])
        if changed:
            optimizer_state.forward_to(loop.schedule, loop.step)
        else:
            optimizer_state.put_back_groups(loop.optimizer, state["optimizer"])
            loop.schedule.load_state_dict(dict(state["schedule"]))
        loop.watch.quiet.update({name: count for name, count in state["without_gradient"].items() if name in loop.watch.quiet})
        self.put_back_random(loop.processes.rank)

    def _model_before(self, model: TPOModel) -> dict[str, Any]:
        config = checkpoint.read_config(self.folder)
        return {name: config[name] for name in identity(model)}

    def _data_changes(self, asked: Asked) -> list[Change]:
        state, found = self.part.state, []
        for stage, now in asked.prints.summary().items():
            before = state["data"].get(stage)
            if before is None or before == now or stage in self.finished:
                continue
            what = f"{now['samples']} samples"
            if stage == self.stage:
                difference = asked.prints.of(stage).since(DataPrint.from_tensors(self.part.tensors["data"]))
                what = f"{what} ({difference})"
            found.append(Change(f"data of stage {stage}", f"{before['samples']} samples", what))
        return found


def is_begun(out: Path) -> bool:
    """Whether a folder has a run in it."""
    return any((out / name).exists() for name in (METRICS, EARLIER_STATE)) or bool(checkpoints(out))


def latest_whole(out: Path, say: Callable[[str], None]) -> Saved | None:
    """The latest checkpoint of a run that is whole; those that are not are said and passed over. None where a run has none yet.

    Raises:
        UsageError: the run is done but its checkpoints were removed, or an earlier version wrote it.
        TPOError: there are checkpoints, and none of them is whole.
    """
    folders = checkpoints(out)
    problems = []
    for folder in folders:
        try:
            check(folder)
            return Saved(folder, read_training(folder))
        except UsageError as error:
            problems.append(str(error))
            say(f"warning: {folder.name} cannot be used: {error}")
    if problems:
        raise TPOError(f"{out}: none of its {len(folders)} checkpoints is whole. {problems[0]}")
    for name in (EARLIER_STATE, TRAINED):
        if (out / name).exists():
            hint = "Start again in another folder; its checkpoint/ can be given as --checkpoint."
            raise UsageError("resume", expected=f"checkpoints/ in {out}", got=name, hint=hint)
    return None


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))
