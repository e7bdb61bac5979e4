"""What a model gives for one row that is always the same: two models with equal weights give equal numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tpo_lab.batch import Row
from tpo_lab.heads.base import ClipInfo
from tpo_lab.precomputed import ClipFeatures, FeatureFiles
from tpo_lab.sample import Media, Sample, Turn

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel

_STEPS = 4


@torch.no_grad()
def fixed_outputs(model: TPOModel) -> dict[str, Tensor]:
    """Logits, task embeddings and predictions for a row that asks each head once; the model and all random numbers stay as they are."""
    from tpo_lab.probes.untouched import untouched

    with untouched(model):
        batch = model.collate([fixed_row(model)]).to(model.backbone.device)
        forward = model(batch)
    given = {"logits": forward.logits, "embeddings": forward.task_embeddings, "predictions": forward.predictions}
    return {name: value.detach().float().cpu().clone() for name, value in _tensors("", given)}


def fixed_row(model: TPOModel) -> Row:
    """A clip of a pattern, and one question for each head with a box in it; no annotation."""
    count, side = model.backbone.num_frames, model.backbone.image_size
    pattern = (torch.arange(count * 3 * side * side) * 37 // 5) % 251
    clip = ClipInfo(side, side, float(count), tuple(frame + 0.5 for frame in range(count)))
    features = {head: _features(files, float(count)) for head, files in model.feature_files.items()}
    return Row(pattern.to(torch.uint8).reshape(count, 3, side, side), clip, (_sample(model, side),), "fixed", features)


def largest_difference(here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> float:
    """Between tensors of one name; infinite where names or shapes differ, or a number of one is not finite and the other's is."""
    if here.keys() != there.keys() or any(here[name].shape != there[name].shape for name in here):
        return math.inf
    return max((_difference(here[name], there[name]) for name in here), default=0.0)


def _difference(here: Tensor, there: Tensor) -> float:
    if torch.equal(here, there) or not here.numel():
        return 0.0
    # equal infinities and equal NaN are no difference
    same = (here == there) | (here.isnan() & there.isnan())
    found = (here.double() - there.double()).abs().masked_fill(same, 0.0)
    return float(found.nan_to_num(nan=math.inf, posinf=math.inf).max())


def _sample(model: TPOModel, side: int) -> Sample:
    """A question for each head, whose answers lack the targets that a sample must have: what other people's heads want is not known."""
    box = {"type": "box", "xyxy": (side * 0.25, side * 0.25, side * 0.75, side * 0.625)}
    plain = _turns("What about <prompt:0>?", "It is here.")
    made = Sample.model_validate({"id": "fixed", "media": Media(path="fixed.mp4"), "conversation": plain, "prompts": [box]})
    asked = [turn for head in model.heads for turn in _turns(f"What about <prompt:0>, the {head}?", f"It is <{head}>")]
    return made.model_copy(update={"conversation": (*made.conversation, *asked)})


def _turns(question: str, answer: str) -> tuple[Turn, Turn]:
    return Turn(role="user", text=question), Turn(role="assistant", text=answer)


def _features(files: FeatureFiles, duration_sec: float) -> ClipFeatures:
    width = sum(files.widths)
    values = ((torch.arange(_STEPS * width) * 13) % 29).float().reshape(_STEPS, width) / 29
    return ClipFeatures(values, tuple((step + 0.5) * duration_sec / _STEPS for step in range(_STEPS)))


def _tensors(prefix: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in dataclasses, mappings and sequences, by its path."""
    if isinstance(value, Tensor):
        yield prefix, value
        return
    if is_dataclass(value) and not isinstance(value, type):
        inside: Any = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, Mapping):
        inside = list(value.items())
    elif isinstance(value, (list, tuple)):
        inside = list(enumerate(value))
    else:
        return
    for name, part in inside:
        yield from _tensors(f"{prefix}.{name}" if prefix else str(name), part)
