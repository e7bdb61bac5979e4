"""What a step and an answer made of one sample. Plain data.

Not here: how it is measured (`one_sample`, `word_maps`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from tpo_lab.probes.plain import plain

if TYPE_CHECKING:
    from torch import Tensor

    from tpo_lab.records import Record
    from tpo_lab.sample import Sample

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
class WordMap:
    """Where in the clip a word of an answer is seen; see `tpo_lab.probes.word_maps` for how, and for what it does not tell.

    Attributes:
        text: of the token, as the tokenizer writes it.
        answer: "emitted", which the model writes by itself, or "expected", the true last answer.
        number: the token's place among those of that answer, from 0.
        token: its place in the sample's row, as in `SampleTrace.tokens`; None where the model wrote it.
        head: of a route; None for words.
        map: how much each cell of each frame speaks for the word, in logits, 0 or more [frame, cell]; cells as in `Token.cell`.
    """

    text: str
    answer: Literal["emitted", "expected"]
    number: int
    token: int | None
    head: str | None
    map: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a frame's cells."""
        side = math.isqrt(self.map.shape[1])
        return side, side

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the map with 4 decimals."""
        cells = [[round(value, 4) for value in frame] for frame in self.map.tolist()]
        named = {name: getattr(self, name) for name in ("text", "answer", "number", "token", "head")}
        return {**named, "grid": list(self.grid), "map": cells}


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
        words: where the words of its answers are seen; empty where that was not asked for.
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
    words: tuple[WordMap, ...] = ()

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

    def loss_of(self, owners: Collection[str]) -> float:
        """What the terms of these owners ("mlm", "assign", heads) add to the loss."""
        return sum(term.weighted for name, term in self.losses.items() if owner_of(name) in owners)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        measured = {name: plain(getattr(self, name)) for name in ("size_wh", "duration_sec", "times_sec", "tokens", "routes", "slots")}
        sample = self.sample.model_dump(mode="json")
        return {
            **{"id": self.id, "question": self.question, "answer": self.answer},
            **{name: sample[name] for name in ("media", "prompts", "targets")},
            **measured,
            "heads": plain(dict(self.heads)),
            "losses": plain_losses(self.losses),
            "record": asdict(self.record),
            "words": [word.to_dict() for word in self.words],
        }


def owner_of(term: str) -> str:
    """Whose term of the objective it is: "region" of "region/l1"; "mlm" and "assign" own themselves."""
    return term.partition("/")[0]


def plain_losses(terms: Mapping[str, TermLoss]) -> dict[str, dict[str, float]]:
    """Terms as dicts, with their products."""
    return {name: {"value": term.value, "weight": term.weight, "weighted": term.weighted} for name, term in terms.items()}
