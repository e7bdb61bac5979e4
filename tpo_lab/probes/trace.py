"""The step record: what one step of training, and one answer, made of a few samples. Plain data, from which views and tests draw.

Not here: how it is measured (`probing`), and what its numbers say about faults (`symptoms`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from tpo_lab.records import Record
    from tpo_lab.sample import Sample

SCHEMA = "tpo_lab.trace/1"
NONE = "none"
"""In the place of a route, for every beginning of an answer that is no route."""


@dataclass(frozen=True)
class Token:
    """One token of a sample, as the language model reads it.

    Attributes:
        index: its place in the row, the video's tokens included.
        text: as the tokenizer writes it.
        kind: "VIDEO" (a patch of a frame), "CONTEXT", "PROMPT" (what the user points at), "TEXT", "ROUTE" or "SLOT".
        learned: whether the model learns to write it.
        head: of a route or a slot.
        frame: of a patch: which of the sample's frames; None for a patch of no frame, and for words.
        cell: of a patch: its place in the frame's square grid, row-major.
    """

    index: int
    text: str
    kind: str
    learned: bool
    head: str | None = None
    frame: int | None = None
    cell: int | None = None


@dataclass(frozen=True)
class RouteDue:
    """A place where the true answer has a route token.

    Attributes:
        head: whose route is due.
        token: the route token's place in the row.
        predicted_from: the place of the token whose state predicts it.
        probability: of every head's route, and of "none" of them; in sum 1.
    """

    head: str
    token: int
    predicted_from: int
    probability: Mapping[str, float]


@dataclass(frozen=True)
class Routes:
    """Which heads the model asks, and which it should.

    Attributes:
        expected, emitted: routes of the true last answer, and of the one that the model writes by itself, in order.
        text: what it writes.
        first: the probability that its answer begins with each head's route, or with "none".
        due: every route of all true answers, with the words before it given.
    """

    expected: tuple[str, ...]
    emitted: tuple[str, ...]
    text: str
    first: Mapping[str, float]
    due: tuple[RouteDue, ...]


@dataclass(frozen=True)
class Match:
    """A true object and what was predicted for it.

    Attributes:
        target: its place in the sample's target.
        predicted: the place of its partner in the head's answer; None where it has none.
        iou: of boxes, of windows, or the mean over frames of masks or of a track's boxes, in [0, 1].
    """

    target: int
    predicted: int | None
    iou: float


@dataclass(frozen=True)
class Slot:
    """One task token of a sample, and what its head is given.

    Attributes:
        head: which head reads it.
        token: its place in the row.
        reads: the place of the token whose last hidden state is nearest to the task embedding that the head is given.
        cosine: between that task embedding and the last hidden state at the slot itself; 1 where the head reads its own slot.
    """

    head: str
    token: int
    reads: int
    cosine: float


@dataclass(frozen=True)
class HeadTrace:
    """What one head made of one sample.

    Attributes:
        routed: its answer where the model asks it by itself; None where it does not.
        forced: its answer where the true route is given; None where none is due.
        target: the sample's targets that it answers, by their names.
        matches: by "routed" and "forced", one per true object.
        readings: mean IoU of the forced boxes as the head gives them, before they are ordered and cut to the frame, if their four numbers
            are read as "xyxy", "cxcywh", "xywh" or "yxyx"; empty for heads without boxes.
    """

    routed: Mapping[str, Any] | None
    forced: Mapping[str, Any] | None
    target: Mapping[str, Any]
    matches: Mapping[str, tuple[Match, ...]]
    readings: Mapping[str, float]


@dataclass(frozen=True)
class TermLoss:
    """One term of Eq. 1: its mean, its weight, and their product."""

    value: float
    weight: float

    @property
    def weighted(self) -> float:
        """What it adds to the loss."""
        return self.value * self.weight


@dataclass(frozen=True)
class SampleTrace:
    """One sample in the step, measured in a batch of its own.

    Attributes:
        sample: as it was given.
        record: what `tpo_lab.evaluate` makes of it.
        size_wh: pixels of the original frame.
        duration_sec: of the clip.
        times_sec: of the frames that the model sees.
        tokens: the row, in order.
        routes: asked and due.
        slots: its task tokens, in order.
        heads: those that are due, or that the model asks.
        losses: by term ("mlm", "assign", "region/l1", ...); terms that nothing in the sample teaches are left out.
    """

    sample: Sample
    record: Record
    size_wh: tuple[int, int]
    duration_sec: float
    times_sec: tuple[float, ...]
    tokens: tuple[Token, ...]
    routes: Routes
    slots: tuple[Slot, ...]
    heads: Mapping[str, HeadTrace]
    losses: Mapping[str, TermLoss]

    @property
    def id(self) -> str:
        """The sample's."""
        return self.sample.id

    @property
    def question(self) -> str:
        """The last one."""
        return self.record.question

    @property
    def answer(self) -> str:
        """The true one; "" where there is none."""
        return self.record.expected_text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        plain = {name: _plain(getattr(self, name)) for name in ("size_wh", "duration_sec", "times_sec", "tokens", "routes", "slots")}
        sample = self.sample.model_dump(mode="json")
        return {
            **{"id": self.id, "question": self.question, "answer": self.answer},
            **{name: sample[name] for name in ("media", "prompts", "targets")},
            **plain,
            "heads": _plain(dict(self.heads)),
            "losses": _losses(self.losses),
            "record": asdict(self.record),
        }


@dataclass(frozen=True)
class Gradients:
    """What each owner of loss terms ("mlm", "assign", each head) does to each module; its terms are weighted as in the objective.

    Attributes:
        owners: in the order of the objective.
        products: inner products of the owners' gradients in each module, float64 [owner, owner].
        parameters: how many numbers of each module can learn.
    """

    owners: tuple[str, ...]
    products: Mapping[str, Tensor]
    parameters: Mapping[str, int]

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that can learn, in the model's order."""
        return tuple(self.products)

    def norm(self, owner: str, module: str) -> float:
        """The norm of an owner's gradient in a module; 0 where it does not reach it.

        Raises:
            UsageError: an unknown owner or module.
        """
        place = self._place(owner)
        return math.sqrt(float(self._products(module)[place, place]))

    def cosine(self, one: str, other: str, module: str) -> float | None:
        """Between two owners' gradients in a module: below 0 they pull against each other; None where one does not reach it."""
        length = self.norm(one, module) * self.norm(other, module)
        if not length:
            return None
        found = float(self._products(module)[self._place(one), self._place(other)]) / length
        return max(-1.0, min(1.0, found))

    def share(self, owner: str, module: str) -> float | None:
        """How much of the step in a module is an owner's; the shares of all owners are 1 in sum.

        It is the owner's gradient along the sum of all, as a part of that sum's length. Below 0 it works against the others; None where the
        sum is zero.
        """
        products = self._products(module)
        total = float(products.sum())
        return float(products[self._place(owner)].sum()) / total if total > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: by module, norms and shares by owner, and cosines by "one|other"."""
        pairs = [(one, other) for place, one in enumerate(self.owners) for other in self.owners[place + 1 :]]
        return {
            "owners": list(self.owners),
            "modules": {
                module: {
                    "parameters": self.parameters[module],
                    "norms": {owner: self.norm(owner, module) for owner in self.owners},
                    "shares": {owner: self.share(owner, module) for owner in self.owners},
                    "cosines": {f"{one}|{other}": self.cosine(one, other, module) for one, other in pairs},
                }
                for module in self.modules
            },
        }

    def _place(self, owner: str) -> int:
        if owner not in self.owners:
            raise unknown_name("owner of a loss", owner, self.owners)
        return self.owners.index(owner)

    def _products(self, module: str) -> Tensor:
        if module not in self.products:
            raise unknown_name("module that learns", module, self.products)
        return self.products[module]


@dataclass(frozen=True)
class Attention:
    """Where one token looks, in a sample measured in a batch of its own.

    Attributes:
        sample: its place in the trace.
        head: whose slot looks, or whose route is about to be written.
        kind: "SLOT", or "ROUTE" for the token that the route is predicted from.
        token: who looks.
        weights: mean over the attention heads [layer, token], in sum 1 for each layer.
        hidden: the largest share, over the layers, on tokens that it must not see: later ones, and other slots.
    """

    sample: int
    head: str
    kind: str
    token: int
    weights: Tensor
    hidden: float


@dataclass(frozen=True)
class Activations:
    """The task tokens inside the language model.

    Attributes:
        slots: (place of the sample in the trace, head, token) of each.
        states: of each slot, before the first layer, after each, and after the final norm [slot, layer + 2, d].
        layers: which layers `attention` holds.
        attention: of every slot and of every token that a route is predicted from; empty where it was not asked for.
    """

    slots: tuple[tuple[int, str, int], ...]
    states: Tensor
    layers: tuple[int, ...] = ()
    attention: tuple[Attention, ...] = ()

    def cosines(self) -> Tensor:
        """Between all slots at each depth [layer + 2, slot, slot]."""
        unit = self.states / self.states.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        found: Tensor = unit.transpose(0, 1) @ unit.permute(1, 2, 0)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: cosines in place of the states."""
        return {
            "slots": [{"sample": sample, "head": head, "token": token} for sample, head, token in self.slots],
            "cosines": self.cosines().tolist(),
            "layers": list(self.layers),
            "attention": [_plain(each) for each in self.attention],
        }


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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": self.schema,
            "stage": self.stage,
            "heads": list(self.heads),
            "loss": self.loss,
            "losses": _losses(self.losses),
            "gradients": None if self.gradients is None else self.gradients.to_dict(),
            "activations": self.activations.to_dict(),
            "parts": [_plain(part) for part in self.parts],
            "added": [_plain(token) for token in self.added],
            "samples": [sample.to_dict() for sample in self.samples],
        }


def _losses(terms: Mapping[str, TermLoss]) -> dict[str, dict[str, float]]:
    return {name: {"value": term.value, "weight": term.weight, "weighted": term.weighted} for name, term in terms.items()}


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and tensors as dicts and lists."""
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value
