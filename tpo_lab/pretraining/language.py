"""Pretraining of the whole nano model on captions and questions of the synthetic world, by a curriculum over the number of things.

Boxes, masks and windows are never targets here: places are words ("top left"). Questions alone do not bind colour to shape within
180,000 questions; dense captions, and growing the number of things from one, do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tpo_lab.backbones.nano import NanoBackbone
from tpo_lab.batch import Batch
from tpo_lab.datasets.world.samples import PLACES, RELATIONS, samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.runs import RunFolder, save_state
from tpo_lab.sample import Sample
from tpo_lab.schedules import lr_factor

_STAGE = "language"
_LOG_EVERY = 25


@dataclass(frozen=True)
class Phase:
    """A part of a round: clips with so many things, for so large a part of its steps."""

    things: tuple[int, int]
    share: float


@dataclass(frozen=True)
class Round:
    """A learning rate that rises and falls once, over steps of one kind of text.

    Args:
        steps: optimizer steps.
        learning_rate: its peak.
        phases: the number of things, in order.
        places: so many of a clip's questions ask where a thing is at the end, whatever words refer to it.
        relations: so many ask which of two things lies further to a side, which takes places finer than words for them.
        matrices: what steps the weights between hidden states: AdamW as everything else, or Muon, whose steps are orthogonal.
    """

    steps: int
    learning_rate: float
    phases: tuple[Phase, ...]
    places: int = 0
    relations: int = 0
    matrices: Literal["adamw", "muon"] = "adamw"

    def things(self, step: int) -> tuple[int, int]:
        """How many things the clips of a step of the round have."""
        reached = 0.0
        for phase in self.phases:
            reached += phase.share
            if step < reached * self.steps:
                return phase.things
        return self.phases[-1].things


GROWING = (Phase((1, 1), 0.06), Phase((1, 2), 0.12), Phase((1, 3), 0.2), Phase((1, 5), 0.62))
"""One thing at first: questions about several do not teach which word means which thing."""


@dataclass(frozen=True)
class LanguagePretraining:
    """Settings of the pretraining on words.

    Args:
        rounds: one after the other; from the second on they ask often where things are, which questions drawn evenly over all kinds
            ask too rarely.
        batch_size: clips per step; each carries a caption and `questions` - 1 questions, which share the video.
        frozen_tower: part of the steps in which the vision tower stays as it is.
        tower_rate: learning rate of the tower afterwards, relative to the rest.
    """

    rounds: tuple[Round, ...] = (
        Round(2400, 1.2e-3, GROWING),
        Round(1800, 1.0e-3, (Phase((1, 5), 1.0),), places=6),
        Round(2000, 1.5e-3, (Phase((2, 4), 0.5), Phase((1, 5), 0.5)), places=8, matrices="muon"),
        Round(2000, 1.5e-3, (Phase((2, 5), 1.0),), places=4, relations=3, matrices="muon"),
    )
    batch_size: int = 16
    questions: int = 12
    weight_decay: float = 0.05
    warmup_ratio: float = 0.02
    min_lr_ratio: float = 0.05
    frozen_tower: float = 1.0
    tower_rate: float = 0.3
    level: str = "standard"
    seed: int = 0
    checkpoint_every: int = 100

    @property
    def steps(self) -> int:
        """Steps of all rounds."""
        return sum(entry.steps for entry in self.rounds)

    def shortened(self, steps: int) -> LanguagePretraining:
        """The same rounds in proportion, so many steps in all."""
        ends = [round(steps * sum(entry.steps for entry in self.rounds[: number + 1]) / self.steps) for number in range(len(self.rounds))]
        lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        return replace(self, rounds=tuple(replace(entry, steps=length) for entry, length in zip(self.rounds, lengths, strict=True)))

    def at(self, step: int) -> tuple[Round, int]:
        """The round that a step belongs to, and the step's number in it."""
        for entry in self.rounds:
            if step < entry.steps:
                return entry, step
            step -= entry.steps
        raise IndexError("past the last round")

    def learning_rate(self, step: int) -> float:
        """Warm-up and cosine of the step's round."""
        entry, step = self.at(step)
        return entry.learning_rate * lr_factor(step, entry.steps, self.warmup_ratio, self.min_lr_ratio)


class _Optimizer:
    """AdamW on everything; in a round of Muon, Muon on the matrices between hidden states and AdamW on the rest."""

    def __init__(self, named: Mapping[str, nn.Parameter], settings: LanguagePretraining) -> None:
        self.settings = settings
        self.tower = [parameter for name, parameter in named.items() if name.startswith("vision.")]
        rest = {name: parameter for name, parameter in named.items() if name.startswith(("connector.", "llm."))}
        matrices = [p for n, p in rest.items() if p.ndim > 1 and "embed" not in n]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": settings.weight_decay, "scale": 1.0},
            {"params": [p for n, p in rest.items() if p.ndim <= 1 or "embed" in n], "weight_decay": 0.0, "scale": 1.0},
            {"params": self.tower, "weight_decay": 0.0, "scale": settings.tower_rate},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=settings.learning_rate(0), betas=(0.9, 0.98))
        self.muon = torch.optim.Muon(matrices, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
        self._uses_muon = False

    def prepare(self, step: int) -> None:
        """Set the rates of a step, and what trains in it."""
        rate = self.settings.learning_rate(step)
        self._uses_muon = self.settings.at(step)[0].matrices == "muon"
        for parameter in self.tower:
            parameter.requires_grad_(step >= self.settings.frozen_tower * self.settings.steps)
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["scale"]
        if self._uses_muon:
            self.adamw.param_groups[0]["lr"] = 0.0
        self.muon.param_groups[0]["lr"] = rate
        self.adamw.zero_grad()

    def step(self) -> None:
        """Clip and step."""
        nn.utils.clip_grad_norm_([p for group in self.adamw.param_groups for p in group["params"] if p.grad is not None], 1.0)
        self.adamw.step()
        if self._uses_muon:
            self.muon.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of both."""
        self.adamw.load_state_dict(state["adamw"])
        self.muon.load_state_dict(state["muon"])


class Stream(torch.utils.data.IterableDataset[Batch]):
    """Batches number start, start + 1, ... drawn from (seed, step) alone, so that a resumed run goes on exactly."""

    def __init__(self, model: TPOModel, settings: LanguagePretraining, start: int) -> None:
        self.model, self.settings, self.start = model, settings, start

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        frames = Frames(self.model.backbone, keep=False)
        for step in range(self.start + first, self.settings.steps, stride):
            yield self.model.collate([frames.row(self._texts(step, place)) for place in range(self.settings.batch_size)])

    def _texts(self, step: int, place: int) -> list[Sample]:
        settings = self.settings
        entry, local = settings.at(step)
        index = step * settings.batch_size + place
        scene = sample_scene(index, seed=settings.seed + 1, level=settings.level, things=entry.things(local))
        rng = random.Random(f"{settings.seed}/{index}")
        counts = {PLACES: entry.places, RELATIONS: entry.relations}
        more = [sample for kind, count in counts.items() if count for sample in samples_of(scene, (kind,), rng=rng, questions=count)]
        return [*samples_of(scene, ("conversation",), rng=rng, questions=settings.questions - len(more)), *more]


def pretrain_language(backbone: NanoBackbone, settings: LanguagePretraining, *, out: Path, workers: int = 1) -> None:
    """Train the backbone in place; `out` becomes a run folder with a resumable language.pt."""
    torch.manual_seed(settings.seed)
    run = RunFolder(out, asdict(settings))
    model = TPOModel(backbone)
    named = model.named_parts()
    optimizer = _Optimizer(named, settings)
    checkpoint, start = out / "language.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        backbone.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    run.keep_until(_STAGE, start)
    loader = torch.utils.data.DataLoader(
        Stream(model, settings, start), batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
    )
    began, recent = time.monotonic(), []
    model.train()
    for step, batch in enumerate(loader, start):
        optimizer.prepare(step)
        report = model.losses(batch, model(batch))
        report.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        recent.append(float(report.terms["mlm"].detach()))
        if (step + 1) % _LOG_EVERY == 0:
            entry, local = settings.at(step)
            seconds = round(time.monotonic() - began, 1)
            run.log(stage=_STAGE, step=step + 1, seconds=seconds, things=entry.things(local)[1], mlm=sum(recent) / len(recent))
            recent = []
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            save_state(checkpoint, {"model": backbone.model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
    model.eval()
    model.tokens.detach_hooks()
