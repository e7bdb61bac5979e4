"""The protocol of a head: what it may look at, and what it must answer.

A head never sees token ids: the model hands it the task embedding of each slot. The registry of heads is in the package's `__init__`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from tpo_lab.axes import require_axes
from tpo_lab.errors import TPOError, UsageError, unknown_name
from tpo_lab.precomputed import FeatureFiles

if TYPE_CHECKING:
    from tpo_lab.heads.sliding import Sliding

PredictionT = TypeVar("PredictionT")
TargetT = TypeVar("TargetT")
GATHERED = frozenset({"frames", "frame_features", "frame_states", "query"})


@dataclass(frozen=True)
class ClipInfo:
    """One clip as the annotations of heads describe it.

    Attributes:
        width: pixels of the original frame.
        height: pixels of the original frame.
        duration_sec: seconds of the clip; annotated seconds count from its start.
        times_sec: seconds of the frames that the model saw; for a head with `features`, of the rows of those.
    """

    width: int
    height: int
    duration_sec: float
    times_sec: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Visual:
    """What a head may look at beside the task embedding, one row per slot; masks are True = valid.

    Attributes:
        times_sec: seconds of the frames [slot, frame]; for a head with `features`, the rows of those take the place of frames.
        frame_valid: which frames exist [slot, frame].
        duration_sec: seconds of the clips [slot].
        size_wh: pixels of the original frames, width then height [slot, 2].
        answer: LongTensor [slot]; the slots of one answer share a number 0..n_answers-1.
        frames: uint8 RGB [slot, frame, 3, h, w], or None.
        frame_features: vision features [slot, frame, patch, d_vision], or None; those from files have one patch.
        frame_states: the language model's last hidden states at the clip's visual tokens [slot, frame, cell, d], cells of a square grid in
            row-major order, or None. They know the frames before, not the question.
        query_features: embedded words of the question [slot, token, d], or None.
        query_valid: which of those exist [slot, token], or None.
        prompt_xyxy: the first box that the user pointed at in the question, in [0,1] of the frame [slot, 4]; NaN for a slot without one.
            None: not known. A box lies on the first frame.
        clip: LongTensor [slot]; slots about the same clip share a number, so that what is expensive is done once. None: not known.
    """

    times_sec: Tensor
    frame_valid: Tensor
    duration_sec: Tensor
    size_wh: Tensor
    answer: Tensor
    frames: Tensor | None = None
    frame_features: Tensor | None = None
    frame_states: Tensor | None = None
    query_features: Tensor | None = None
    query_valid: Tensor | None = None
    prompt_xyxy: Tensor | None = None
    clip: Tensor | None = None

    def validate(self, needs: frozenset[str] = frozenset()) -> Visual:
        """Return itself, or raise a `UsageError` that names the field whose axes or type do not fit, or that `needs` misses."""
        slot, frame = require_axes("visual.times_sec", self.times_sec, slot=None, frame=None)
        require_axes("visual.frame_valid", self.frame_valid, slot=slot, frame=frame)
        require_axes("visual.duration_sec", self.duration_sec, slot=slot)
        require_axes("visual.size_wh", self.size_wh, slot=slot, wh=2)
        require_axes("visual.answer", self.answer, slot=slot)
        if self.clip is not None:
            require_axes("visual.clip", self.clip, slot=slot)
        if self.prompt_xyxy is not None:
            require_axes("visual.prompt_xyxy", self.prompt_xyxy, slot=slot, xyxy=4)
        for argument, mask in (("frame_valid", self.frame_valid), ("query_valid", self.query_valid)):
            if mask is not None and mask.dtype != torch.bool:
                raise UsageError(f"visual.{argument}", expected="torch.bool, True = valid", got=mask.dtype)
        if self.frames is not None and self.frames.dtype != torch.uint8:
            raise UsageError("visual.frames", expected="torch.uint8, 0 to 255", got=self.frames.dtype)
        if self.frames is not None:
            require_axes("visual.frames", self.frames, slot=slot, frame=frame, rgb=3, h=None, w=None)
        if self.frame_features is not None:
            require_axes("visual.frame_features", self.frame_features, slot=slot, frame=frame, patch=None, d_vision=None)
        if self.frame_states is not None:
            require_axes("visual.frame_states", self.frame_states, slot=slot, frame=frame, cell=None, d=None)
        if self.query_features is not None and self.query_valid is not None:
            tokens = require_axes("visual.query_features", self.query_features, slot=slot, token=None, d=None)[1]
            require_axes("visual.query_valid", self.query_valid, slot=slot, token=tokens)
        given = {
            "frames": self.frames,
            "frame_features": self.frame_features,
            "frame_states": self.frame_states,
            "query": self.query_features,
        }
        for need in sorted(needs):
            if given[need] is None:
                raise UsageError(f"visual.{need}", expected="a tensor, as the head's `needs` says", got=None)
        return self

    def to(self, device: torch.device | str) -> Visual:
        """The same on another device."""
        return self._each(lambda value: value.to(device))

    def rows(self, chosen: Tensor) -> Visual:
        """The rows of some slots: a mask [slot] or indices; `answer` keeps its numbers."""
        return self._each(lambda value: value[chosen.to(value.device)])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Visual:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})


@dataclass(frozen=True)
class HeadSettings:
    """The settings of a head, all JSON-able. A field `weight_<term>` is the weight of that loss term."""


class TermWeights(dict[str, float]):
    """Weights of loss terms by name; a term that is not named weighs 1."""

    def __missing__(self, term: str) -> float:
        return 1.0


class Head(nn.Module, ABC, Generic[PredictionT, TargetT]):
    """Turns task embeddings, and the visual input where it needs it, into a structured prediction.

    A new head gives `name`, `predict` and `losses`; the other methods have defaults that suit a head whose prediction is one tensor
    [slot, ...] and whose annotation is a number or a list of numbers of fixed length.

    `predict` and `losses` run in fp32 with autocast off, whatever the dtype of the task embedding: in bf16 a coordinate of a
    1024-pixel frame is wrong by up to 2 pixels.

    Args:
        embed_dim: width d of the task embedding.
        settings: an instance of the class's `Settings`; its defaults where None.

    Attributes:
        checkpointing: whether the backward pass is to compute again what the forward pass then need not keep; heads that keep little do
            nothing about it. See `tpo_lab.training.cost.memory.checkpoint_layers`.
    """

    checkpointing: bool = False
    name: ClassVar[str]
    """The marker in the text and the key in a sample's targets."""
    variant: ClassVar[str] = "default"
    """The key among the heads of this name."""
    given: ClassVar[tuple[str, ...]] = ()
    """How the names of parameters begin that the head takes from a pretrained model, which its settings name. A checkpoint holds them only
    where a stage has trained them."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What `Visual` must hold beside times and sizes: a subset of frames, frame_features, frame_states, query."""
    Settings: ClassVar[type[HeadSettings]] = HeadSettings

    def __init__(self, embed_dim: int, settings: HeadSettings | None = None) -> None:
        super().__init__()
        if embed_dim < 1:
            raise UsageError("embed_dim", expected="a width of at least 1", got=embed_dim)
        if settings is not None and not isinstance(settings, self.Settings):
            raise UsageError("settings", expected=f"{self.Settings.__name__}(...)", got=settings)
        self.embed_dim = embed_dim
        self.settings = self.Settings() if settings is None else settings

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put the fp32 guard around the `predict` and `losses` that the subclass defines."""
        super().__init_subclass__(**kwargs)
        unknown = sorted(cls.needs - GATHERED)
        if unknown:
            raise unknown_name(f"{cls.__name__}.needs", unknown[0], GATHERED)
        if "predict" in cls.__dict__:
            cls.predict = _guard_predict(cls.predict)  # type: ignore[method-assign]
        if "losses" in cls.__dict__:
            cls.losses = _guard_losses(cls.losses)  # type: ignore[method-assign]

    @property
    def features(self) -> FeatureFiles | None:
        """The files that `visual.frame_features` and its times come from; None: the backbone's vision tower, and its frames."""
        return None

    @property
    def sliding(self) -> Sliding | None:
        """How a video with more frames than the head was trained with is cut into windows in inference; None: it is read at once."""
        return None

    @abstractmethod
    def predict(self, task_embedding: Tensor, visual: Visual) -> PredictionT:
        """Predict from one embedding per slot [slot, d]."""

    @abstractmethod
    def losses(self, prediction: PredictionT, target: TargetT) -> dict[str, Tensor]:
        """Unreduced values [value] by term; a term may have no value at all."""

    def forward(self, task_embedding: Tensor, visual: Visual) -> PredictionT:
        """Same as `predict`, so that hooks and wrappers of modules see the call."""
        return self.predict(task_embedding, visual)

    def weights(self) -> Mapping[str, float]:
        """The weight of each term: the settings named `weight_<term>`, and 1 for a term without one."""
        named = asdict(self.settings)
        return TermWeights({key.removeprefix("weight_"): value for key, value in named.items() if key.startswith("weight_")})

    def encode_target(self, annotation: Any, clip: ClipInfo) -> Any:
        """Turn one answer's annotation of the sample schema (pixels, seconds) into this head's item: here a float tensor."""
        return torch.as_tensor(annotation, dtype=torch.float32)

    def collate_targets(self, items: Sequence[Any], slots_per_answer: Sequence[int], device: torch.device | str) -> TargetT:
        """Join the items, one per answer, into the target of the batch: here stacked, each repeated for the slots of its answer.

        Raises:
            UsageError: the counts differ, or the items cannot be stacked.
        """
        require_answers(items, slots_per_answer)
        shapes = sorted({tuple(item.shape) for item in items})
        if len(shapes) > 1:
            hint = f"Override {type(self).__name__}.collate_targets for items of several shapes."
            raise UsageError("items", expected="tensors of one shape", got=shapes, hint=hint)
        stacked = torch.stack(list(items)) if items else torch.zeros(0)
        repeated = stacked.repeat_interleave(torch.tensor(slots_per_answer, dtype=torch.long), dim=0)
        return repeated.to(device)  # type: ignore[return-value]

    def decode(self, prediction: PredictionT, clips: Sequence[ClipInfo], answer: Tensor) -> list[dict[str, Any]]:
        """Turn a prediction into one JSON-ready dict per answer, in the units of the sample schema.

        Here `{name: [value of each slot]}`, for a prediction that is one tensor.

        Args:
            prediction: what `predict` returned.
            clips: the clip of each answer.
            answer: LongTensor [slot], the answer of each slot, an index into `clips`.
        """
        if not isinstance(prediction, Tensor):
            hint = f"Override {type(self).__name__}.decode."
            raise UsageError("prediction", expected="one tensor [slot, ...]", got=type(prediction).__name__, hint=hint)
        values = require_finite(self.name, prediction)
        return [{self.name: values[answer.cpu() == index].tolist()} for index in range(len(clips))]

    def diagnostics(self, prediction: PredictionT, target: TargetT) -> dict[str, float]:
        """Numbers worth a curve that are no loss, e.g. the rate of inverted boxes; none here."""
        return {}

    def kept_bytes(self, answers: int, frames: int, *, checkpointing: bool = False) -> int:
        """Bytes that a training step takes beside the weights, by counting; 0 where it is little.

        Args:
            answers: each about a clip of its own.
            frames: of each clip.
            checkpointing: the backward pass computes again what it can.
        """
        return 0

    def spec(self) -> dict[str, Any]:
        """What `build_head` needs to build this head again, JSON-able: name, variant and every setting."""
        return {"name": self.name, "head": self.variant, **asdict(self.settings)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.embed_dim}, {self.settings!r})"


def require_answers(items: Sequence[Any], slots_per_answer: Sequence[int]) -> None:
    """Raise a `UsageError` unless there is one item per answer."""
    if len(items) != len(slots_per_answer):
        raise UsageError("items", expected=f"one per answer, {len(slots_per_answer)}", got=len(items))


def require_finite(head: str, values: Tensor) -> Tensor:
    """Return `values` detached on the CPU, or raise a `TPOError`: NaN and infinity have no place in a JSON answer."""
    values = values.detach().cpu()
    if not values.isfinite().all():
        broken = int((~values.isfinite()).sum())
        raise TPOError(f"The {head} head predicted {broken} of {values.numel()} values that are not finite; its training diverged.")
    return values


def _guard_predict(predict: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(predict)
    def guarded(self: Head[Any, Any], task_embedding: Tensor, visual: Visual) -> Any:
        slots = require_axes("task_embedding", task_embedding, slot=None, d=self.embed_dim)[0]
        require_axes("visual.answer", visual.validate(self.needs).answer, slot=slots)
        _require_fp32_weights(self)
        with torch.autocast(task_embedding.device.type, enabled=False):
            return predict(self, task_embedding.to(torch.promote_types(task_embedding.dtype, torch.float32)), visual)

    return guarded


def _guard_losses(losses: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(losses)
    def guarded(self: Head[Any, Any], prediction: Any, target: Any) -> Any:
        device = next((parameter.device.type for parameter in self.parameters()), "cpu")
        with torch.autocast(device, enabled=False):
            return losses(self, prediction, target)

    return guarded


def _require_fp32_weights(head: Head[Any, Any]) -> None:
    # Frozen parts (a pretrained image encoder) may be narrower; what the head learns may not.
    for name, parameter in head.named_parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            hint = "Cast the backbone, not the whole model; heads keep fp32 under autocast too."
            raise UsageError(f"{head.name} head, parameter {name}", expected="torch.float32", got=parameter.dtype, hint=hint)
