"""Whether a backbone is seen rightly through its adapter: hook, slots, routes, LoRA targets, frames.

Tests run these on tiny weights of each family, `tpo-lab doctor --backbone` on real ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tpo_lab.answer import Answerer
from tpo_lab.backbones.base import Backbone
from tpo_lab.batch import Batch, Row
from tpo_lab.heads import build_head
from tpo_lab.heads.base import ClipInfo
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora

QUESTION, ANSWER = "Where is it?", "It is here: <region>, and then?"
_BOX = {"region": [{"time_sec": 0.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]}


@dataclass(frozen=True)
class Check:
    """One thing that must hold of a backbone.

    Attributes:
        name: what is checked, in a few words.
        passed: whether it holds.
        found: the figure or names that decide it.
    """

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Bench:
    """A model with a region head on a backbone, and rows to try it on.

    Attributes:
        model: in evaluation mode, without LoRA.
        row: a clip with one question and its answer, which asks the region head.
        other: the same clip with a question of plain text.
        tolerance: how far apart, as a share of the largest value, what should be equal may lie.
    """

    model: TPOModel
    row: Row
    other: Row
    tolerance: float

    @classmethod
    def of(cls, backbone: Backbone, *, seed: int = 0) -> Bench:
        """On random frames, as many as the backbone is shown."""
        chance = torch.Generator().manual_seed(seed)
        shape = (backbone.num_frames, 3, backbone.image_size, backbone.image_size)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=chance)
        clip = ClipInfo(100, 60, float(backbone.num_frames), tuple(place + 0.5 for place in range(backbone.num_frames)))
        turns = ((QUESTION, ANSWER), ("How many are there?", "Three of them."))
        rows = [Row(frames, clip, (_sample(*pair),), "checks") for pair in turns]
        weights = next(backbone.model.parameters()).dtype
        model = TPOModel(backbone, [build_head("region", backbone.hidden_size)]).eval()
        return cls(model.to(backbone.device), rows[0], rows[1], 1e-4 if weights == torch.float32 else 6e-2)

    def batch(self, *rows: Row) -> Batch:
        """Rows as a batch on the backbone's device."""
        return self.model.collate(rows).to(self.model.backbone.device)


def _sample(question: str, answer: str) -> Sample:
    turns = [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]
    targets = _BOX if "<region>" in answer else {}
    return Sample.model_validate({"id": "checks", "media": {"path": "x.mp4"}, "conversation": turns, "targets": targets})


class _Following(Answerer):
    """Writes a given answer word by word, and keeps the logits of each."""

    def __init__(self, model: TPOModel, answer: list[int]) -> None:
        super().__init__(model, max_tokens=len(answer) + 1)
        self._left, self.logits = list(answer), list[Tensor]()

    def _next(self, logits: Tensor, writings: list[Any]) -> list[int]:
        self.logits.append(logits[0])
        (writing,) = writings
        writing.done = not self._left
        if writing.done:
            return [self.model.encoder.end_id]
        writing.words.append(self._left.pop(0))
        return [writing.words[-1]]


def _apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value; infinite where shapes differ."""
    if found.shape != expected.shape or not expected.numel():
        return float("inf")
    found, expected = found.detach().float(), expected.detach().float()
    both = found.isfinite() & expected.isfinite()
    scale = expected[both].abs().max().clamp(min=1e-12)
    return float((found[both] - expected[both]).abs().max() / scale)


def _close(name: str, bench: Bench, apart: float) -> Check:
    return Check(name, apart <= bench.tolerance, f"{apart:.2g} apart, allowed {bench.tolerance:.2g}")


@torch.no_grad()
def placeholders(bench: Bench) -> Check:
    """A clip stands in the sequence with as many places as it has visual tokens, whatever its number of frames."""
    backbone, row = bench.model.backbone, bench.row
    counts = {}
    for count in sorted({1, 2, 3, backbone.num_frames} & set(range(1, backbone.num_frames + 1))):
        tokens = backbone.video_features(row.frames[None, :count]).tokens.shape[1]
        counts[count] = (tokens, backbone.video_placeholder(row.clip.times_sec[:count]).count(backbone.video_token))
    wrong = {count: pair for count, pair in counts.items() if pair[0] != pair[1]}
    return Check("visual tokens of a clip", not wrong, f"{wrong or counts[max(counts)][0]}")


@torch.no_grad()
def frames(bench: Bench) -> Check:
    """Frames keep their order and their number: features have an axis of frames, and each frame changes its own the most."""
    backbone, shown = bench.model.backbone, bench.row.frames[None]
    before = backbone.video_features(shown).frames
    changed, last = shown.clone(), shown.shape[1] - 1
    changed[:, last] = 255 - changed[:, last]
    moved = (backbone.video_features(changed).frames - before).float().abs().mean((0, 2, 3))
    right = before.shape[1] == shown.shape[1] and int(moved.argmax()) // backbone.frames_per_grid == last // backbone.frames_per_grid
    return Check("frames", right, f"{before.shape[1]} frames of {before.shape[2]} patches, width {before.shape[3]}")


def preprocessing(bench: Bench) -> Check:
    """Frames of any size become bytes of the size that the vision side takes, and those of that size stay as they are."""
    backbone = bench.model.backbone
    wide = torch.arange(2 * 3 * 41 * 77).remainder(256).to(torch.uint8).reshape(2, 3, 41, 77)
    made = backbone.resize(wide)
    size = (2, 3, backbone.image_size, backbone.image_size)
    right = made.dtype == torch.uint8 and tuple(made.shape) == size and torch.equal(backbone.resize(made), made)
    return Check("preprocessing", right, f"{made.dtype}, {tuple(made.shape)}")


@torch.no_grad()
def hook(bench: Bench) -> Check:
    """Words without an added token are embedded as if there were no token table."""
    backbone = bench.model.backbone
    ids = torch.tensor([backbone.tokenizer.encode(QUESTION, add_special_tokens=False)], device=backbone.device)
    weight: Tensor = backbone.embedding.weight  # type: ignore[assignment]
    plain = nn.functional.embedding(ids, weight)
    return Check("hook", torch.equal(backbone.embed(ids, None), plain), f"{_apart(backbone.embed(ids, None), plain):.2g} apart, allowed 0")


@torch.no_grad()
def task_embedding(bench: Bench) -> Check:
    """The head is given the same task embedding in training, by the mask, and in inference, by the cache."""
    batch = bench.batch(bench.row)
    forward = bench.model(batch)
    answer = _written(bench, batch)[0]
    return _close("task embedding", bench, _apart(answer.task_embeddings["region"], forward.task_embeddings["region"]))


@torch.no_grad()
def cache(bench: Bench) -> Check:
    """Words have the same logits written one by one, with a cache, as read all at once."""
    batch = bench.batch(bench.row)
    return _close("cache", bench, _apart(torch.stack(_written(bench, batch)[1]), bench.model(batch).logits))


def _written(bench: Bench, batch: Batch) -> tuple[Any, list[Tensor]]:
    sample = bench.row.samples[0]
    asked = replace(bench.row, samples=(sample.model_copy(update={"conversation": sample.conversation[:1]}),))
    following = _Following(bench.model, batch.target[:-1].tolist())
    (answer,) = following.answer([asked])
    return answer, following.logits


@torch.no_grad()
def shared_clip(bench: Bench) -> Check:
    """Questions that share a clip's row are answered as if each had a row of its own."""
    together = bench.model(bench.batch(replace(bench.row, samples=bench.row.samples + bench.other.samples)))
    alone = [bench.model(bench.batch(row)).logits for row in (bench.row, bench.other)]
    return _close("shared clip", bench, _apart(together.logits, torch.cat(alone)))


@torch.no_grad()
def side_branch(bench: Bench) -> Check:
    """Another task token changes the task embedding, and no word after it."""
    batch, token = bench.batch(bench.row), bench.model.tokens.task["region"]
    before, kept = bench.model(batch), token.clone()
    token.mul_(-1)
    after = bench.model(batch)
    token.copy_(kept)
    words, embedding = (after.logits - before.logits).abs().max(), _apart(after.task_embeddings["region"], before.task_embeddings["region"])
    return Check("side branch", float(words) == 0 and embedding > 1e-3, f"words {float(words):.2g}, task embedding {embedding:.2g}")


def gradient(bench: Bench) -> Check:
    """The loss of a head reaches its task token; the slot's words, the table's other rows and the end of the answer have none of it."""
    model, batch = bench.model, bench.batch(bench.row)
    model.zero_grad(set_to_none=True)
    forward = model(batch)
    forward.task_embeddings["region"].float().square().sum().backward()
    token, rows = model.tokens.task["region"].grad, model.tokens.rows["output"].grad
    model.zero_grad(set_to_none=True)
    length = 0.0 if token is None else float(token.norm())
    astray = "none" if rows is None else f"{float(rows.norm()):.2g}"
    return Check("gradient", 0 < length < float("inf") and rows is None, f"task token {length:.2g}, output rows {astray}")


@torch.no_grad()
def routes(bench: Bench) -> Check:
    """A route that the output rows favour is written, and its head answers."""
    model, batch = bench.model, bench.batch(bench.row)
    row = model.tokens.ids.all.index(model.tokens.ids.route["region"])
    kept = model.tokens.rows["output"].clone()
    first = model(batch).hidden[0, int(batch.predictor[0, 1])].float()
    # the word most likely so far is outdone by this one alone
    model.tokens.rows["output"][row] = first * 1e3
    sample = bench.row.samples[0]
    asked = replace(bench.row, samples=(sample.model_copy(update={"conversation": sample.conversation[:1]}),))
    (answer,) = Answerer(model, max_tokens=1).answer([asked])
    model.tokens.rows["output"].copy_(kept)
    return Check("route", answer.routes == ("region",) and len(answer.boxes_xyxy) == 1, f"{answer.text!r}, {len(answer.boxes_xyxy)} boxes")


def lora(bench: Bench) -> Check:
    """LoRA goes onto every layer of the language model that the recipes name, as often as there are layers, and nowhere else."""
    backbone = bench.model.backbone
    pattern = re.compile(backbone.lora_targets(Lora().targets))
    linear = [name for name, module in backbone.model.named_modules() if isinstance(module, nn.Linear)]
    hit = [name for name in linear if pattern.fullmatch(name)]
    outside = [name for name in hit if not name.startswith(backbone.parts()["llm"])]
    counts = {target: sum(name.endswith(f".{target}") for name in hit) for target in Lora().targets}
    right = not outside and len(set(counts.values())) == 1 and min(counts.values()) > 0
    return Check("LoRA", right, f"{len(hit)} layers" if right else f"outside {outside[:3]}, counts {counts}")


def parts(bench: Bench) -> Check:
    """Every parameter belongs to exactly one of vision, connector and language model, and each has some."""
    prefixes = bench.model.backbone.parts()
    counts = {part: 0 for part in prefixes}
    astray = []
    for name, _ in bench.model.backbone.model.named_parameters():
        found = [part for part, starts in prefixes.items() if name.startswith(starts)]
        if len(found) != 1:
            astray.append(name)
        for part in found:
            counts[part] += 1
    right = not astray and set(counts) == {"vision", "connector", "llm"} and all(counts.values())
    return Check("parts", right, f"astray {astray[:3]}" if astray else ", ".join(f"{part} {count}" for part, count in counts.items()))


CHECKS: tuple[Callable[[Bench], Check], ...] = (
    preprocessing,
    frames,
    placeholders,
    hook,
    task_embedding,
    cache,
    shared_clip,
    side_branch,
    gradient,
    routes,
    lora,
    parts,
)


def check(backbone: Backbone) -> list[Check]:
    """Try a backbone: every check of `CHECKS`, with a region head of random weights.

    The backbone must carry neither a token table nor LoRA; it carries a token table afterwards.
    """
    bench = Bench.of(backbone)
    return [each(bench) for each in CHECKS]
