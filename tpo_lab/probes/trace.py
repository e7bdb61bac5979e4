"""The step record: what one step of training, and one answer, made of a few samples. Plain data, from which views and tests draw.

Not here: how it is measured (`probing`), and what its numbers say about faults (`symptoms`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tpo_lab.errors import unknown_name
from tpo_lab.probes.plain import plain
from tpo_lab.probes.sample_trace import (
    NONE,
    HeadTrace,
    Match,
    RouteDue,
    Routes,
    SampleTrace,
    Slot,
    TermLoss,
    Token,
    WordMap,
    owner_of,
    plain_losses,
)
from tpo_lab.probes.step_trace import Activations, Attention, Gradients

__all__ = [
    "NONE",
    "SCHEMA",
    "Activations",
    "AddedToken",
    "Attention",
    "Gradients",
    "HeadTrace",
    "Match",
    "Part",
    "RouteDue",
    "Routes",
    "SampleTrace",
    "Slot",
    "TermLoss",
    "Token",
    "Trace",
    "WordMap",
]

SCHEMA = "tpo_lab.trace/1"


@dataclass(frozen=True)
class AddedToken:
    """The rows of a token that the library added to the vocabulary.

    Attributes:
        text: of the token.
        head: whose it is; None for the prompt's.
        kind: "ROUTE", "SLOT" or "PROMPT".
        input_moved, output_moved: how far each row is from where it started, the mean of the vocabulary's, as a share of that one's norm.
    """

    text: str
    head: str | None
    kind: str
    input_moved: float
    output_moved: float


@dataclass(frozen=True)
class Part:
    """One module of the model.

    Attributes:
        name: as in `Gradients.modules`.
        parameters: how many numbers it holds.
        open: how many of them have `requires_grad`, as the model was found.
        trained: how many of them the given stage trains; None without a stage.
        norm: of all of them together.
        at_start: whether its values are those before any training; None where the model alone does not tell (see `compare`).
    """

    name: str
    parameters: int
    open: int
    trained: int | None
    norm: float
    at_start: bool | None


@dataclass(frozen=True)
class Trace:
    """What `tpo_lab.probe` measured.

    Attributes:
        samples: in the order in which they were given.
        losses: of the step, all samples in one batch; by term.
        gradients: of that step; None where they were not asked for.
        activations: of the task tokens.
        parts: of the model.
        added: the library's tokens.
        heads: names of the model's heads.
        stage: the name of the stage whose plan and weights held; None: the model's own `requires_grad`, and every weight 1.
    """

    samples: tuple[SampleTrace, ...]
    losses: Mapping[str, TermLoss]
    gradients: Gradients | None
    activations: Activations
    parts: tuple[Part, ...]
    added: tuple[AddedToken, ...]
    heads: tuple[str, ...]
    stage: str | None = None
    schema: str = field(default=SCHEMA, init=False)

    @property
    def loss(self) -> float:
        """The objective."""
        return sum(term.weighted for term in self.losses.values())

    def part(self, name: str) -> Part:
        """A part by name.

        Raises:
            UsageError: an unknown one.
        """
        found = {part.name: part for part in self.parts}
        if name not in found:
            raise unknown_name("part", name, found)
        return found[name]

    def route_probability(self, head: str) -> float | None:
        """The mean probability of a head's route where it is due; None where it is not due anywhere."""
        found = [due.probability[head] for sample in self.samples for due in sample.routes.due if due.head == head]
        return sum(found) / len(found) if found else None

    def iou(self, head: str, how: str = "forced") -> float | None:
        """The mean IoU over the true objects of all samples; None where a head has none.

        Args:
            how: "routed" or "forced".
        """
        found = [match.iou for sample in self.samples if head in sample.heads for match in sample.heads[head].matches.get(how, ())]
        return sum(found) / len(found) if found else None

    def samples_of(self, one: str, other: str) -> tuple[int, ...]:
        """The samples behind what two owners of loss terms do to each other, by their places in `samples`.

        First those that teach both owners, then those that teach one, each part by what the two add to the sample's loss, the greatest
        first. Samples that teach neither are left out.

        Raises:
            UsageError: an owner that is neither "mlm", "assign" nor a head.
        """
        for owner in (one, other):
            if owner not in ("mlm", "assign", *self.heads):
                raise unknown_name("owner of a loss", owner, ("mlm", "assign", *self.heads))
        owners = {one, other}
        taught = [len(owners & {owner_of(term) for term in sample.losses}) for sample in self.samples]
        losses = [sample.loss_of(owners) for sample in self.samples]
        places = [place for place, count in enumerate(taught) if count]
        return tuple(sorted(places, key=lambda place: (-taught[place], -losses[place])))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": self.schema,
            "stage": self.stage,
            "heads": list(self.heads),
            "loss": self.loss,
            "losses": plain_losses(self.losses),
            "gradients": None if self.gradients is None else self.gradients.to_dict(),
            "activations": self.activations.to_dict(),
            "parts": [plain(part) for part in self.parts],
            "added": [plain(token) for token in self.added],
            "samples": [sample.to_dict() for sample in self.samples],
        }
