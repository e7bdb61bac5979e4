"""Tracks objects through a video with SAM2's modules, so that a loss on any frame reaches the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.axes import require_axes
from tpo_lab.errors import UsageError
from tpo_lab.sam2.pyramid import feature_maps

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
ABSENT = -1024.0
"""Logit of every pixel of an object that is not in the frame."""
POSITIVE, NEGATIVE, TOP_LEFT, BOTTOM_RIGHT = 1, 0, 2, 3
"""What the points of a prompt are, as SAM2 numbers them."""


RowsT = TypeVar("RowsT", bound="_Rows")


@dataclass(frozen=True)
class _Rows:
    """Tensors whose first axis is the same."""

    def rows(self: RowsT, chosen: Tensor | slice) -> RowsT:
        """The same with the rows of a mask, of indices or of a slice."""
        return type(self)(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @classmethod
    def joined(cls: type[RowsT], parts: Sequence[RowsT]) -> RowsT:
        """The rows of several, one after the other."""
        return cls(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(cls)))


@dataclass(frozen=True)
class FrameFeatures(_Rows):
    """What the image encoder sees in frames, one row per frame, or per object once they are handed to the objects.

    Attributes:
        fine: [frame, c / 8, 4g, 4g] for a grid of g x g cells.
        middle: [frame, c / 4, 2g, 2g].
        coarse: without memory [frame, c, g, g].
    """

    fine: Tensor
    middle: Tensor
    coarse: Tensor

    def for_objects(self, count: int) -> FrameFeatures:
        """One frame's features, for each of `count` objects; no copy."""
        return FrameFeatures(*(getattr(self, each.name).expand(count, -1, -1, -1) for each in fields(self)))


@dataclass(frozen=True)
class Prompt(_Rows):
    """What says which object is meant, embedded.

    Attributes:
        sparse: tokens [object, token, c].
        dense: added to the image's features [object, c, g, g].
        points: how many points the user gave per object, 2 for a box: with one alone, SAM2 proposes three masks and takes the best.
    """

    sparse: Tensor
    dense: Tensor
    points: Tensor


@dataclass(frozen=True)
class Masks(_Rows):
    """Masks of one frame.

    Attributes:
        logits: of the chosen mask, at a quarter of the image's side, whether or not the object is there [object, 4g, 4g].
        iou: what the decoder expects the mask's IoU with the truth to be, about 0 to 1 [object].
        object_logit: of the object's being in the frame [object].
        pointer: the object as the decoder saw it [object, c].
        candidates: logits of all masks proposed [object, mask, 4g, 4g]; the chosen one is among them.
        candidate_iou: of those [object, mask].
    """

    logits: Tensor
    iou: Tensor
    object_logit: Tensor
    pointer: Tensor
    candidates: Tensor
    candidate_iou: Tensor

    @property
    def shown(self) -> Tensor:
        """Logits [object, 4g, 4g], `ABSENT` throughout where the object is not in the frame."""
        return torch.where(self.object_logit[:, None, None] > 0, self.logits, ABSENT)


@dataclass(frozen=True)
class Memory(_Rows):
    """One frame as it is remembered.

    Attributes:
        features: [object, c_memory, g, g].
        pointer: [object, c].
    """

    features: Tensor
    pointer: Tensor


@dataclass
class MemoryBank:
    """What is remembered of a video: frames with a prompt for good, of the others those that may still be asked for.

    Attributes:
        recent: most frames without a prompt whose features are looked at.
        pointers: most frames whose pointers are looked at.
        prompted: memories by number of the frame.
        followed: memories by number of the frame.
    """

    recent: int
    pointers: int
    prompted: dict[int, Memory] = field(default_factory=dict)
    followed: dict[int, Memory] = field(default_factory=dict)

    def spatial(self, frame: int, step: int) -> list[tuple[int, Memory]]:
        """Memories whose features count for a frame, as pairs of age (0: prompted) and memory; step 1 forward in time, -1 backward."""
        ages = range(self.recent, 0, -1)
        found = [(age, self.followed.get(frame - step * age)) for age in ages]
        return [(0, memory) for memory in self.prompted.values()] + [(age, memory) for age, memory in found if memory is not None]

    def pointing(self, frame: int, step: int) -> list[tuple[int, Memory]]:
        """Memories whose pointers count for a frame, as pairs of age in frames and memory; prompts yet to come do not."""
        past = [((frame - number) * step, memory) for number, memory in self.prompted.items() if (frame - number) * step >= 0]
        found = [(age, self.followed.get(frame - step * age)) for age in range(1, self.pointers)]
        return past + [(age, memory) for age, memory in found if memory is not None]

    def keep(self, frame: int, memory: Memory, *, prompted: bool) -> None:
        """Remember a frame, and forget those without prompt that no frame will ask for: far from here, and from every prompt."""
        (self.prompted if prompted else self.followed)[frame] = memory
        reach = max(self.recent + 1, self.pointers)
        near = [frame, *self.prompted]
        for number in [number for number in self.followed if all(abs(number - other) > reach for other in near)]:
            del self.followed[number]


class Tracker:
    """Masks of objects in all frames from prompts on some of them.

    Objects are a batch: each has features, prompt and memories as a row. The image encoder runs once per frame, whatever their number.

    What comes out is what the published predictor gives, unless the tracker is `soft`, for training. Then nothing stands in the gradient's
    way: masks and pointers are not replaced where the object score says that nothing is there, remembered masks are soft on prompted
    frames too, memories keep their precision, and a single mask is never exchanged for a "more stable" one.

    Source: SAM2 (arXiv 2408.00714), as `transformers.Sam2VideoModel` has its parts.
    Differs in, beside that: objects are a batch (published: one after the other).

    Args:
        sam: the model; its parts are used, its inference session is not. Whether it is in training mode decides on its dropout alone.
        soft: see above.
    """

    def __init__(self, sam: Sam2VideoModel, *, soft: bool = False) -> None:
        self.sam, self.soft = sam, soft
        self.config = sam.config
        size = sam.prompt_encoder.input_image_size
        # a list where a configuration says height and width; the model takes squares alone
        self.image_size = size if isinstance(size, int) else int(size[0])
        self.grid = int(sam.backbone_feature_sizes[-1][0])

    def encode(self, frames: Tensor, *, bf16: bool = False) -> FrameFeatures:
        """The features of frames, uint8 [frame, 3, h, w] of any size; they are resized to the square that the model sees.

        Args:
            bf16: compute in half the precision; the features have that of the model all the same.
        """
        require_axes("frames", frames, frame=None, rgb=3, h=None, w=None)
        pixels = self.prepare(frames).to(self.sam.no_memory_embedding.dtype)
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=bf16):
            maps = feature_maps(self.sam.vision_encoder, pixels)
        fine, middle, coarse = (level.to(pixels.dtype) for level in maps)
        return FrameFeatures(self.sam.mask_decoder.conv_s0(fine), self.sam.mask_decoder.conv_s1(middle), coarse)

    def prepare(self, frames: Tensor) -> Tensor:
        """Resize uint8 frames [frame, 3, h, w] to the model's square and normalise them as ImageNet's."""
        pixels = frames.float()
        if frames.shape[-2:] != (self.image_size, self.image_size):
            pixels = functional.interpolate(pixels, (self.image_size,) * 2, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
        return (pixels / 255 - mean) / std

    def prompt_points(self, points: Tensor, labels: Tensor) -> Prompt:
        """Points (x, y) in pixels of the model's square [object, point, 2], each `POSITIVE`, `NEGATIVE` or a corner [object, point]."""
        objects, count, _ = require_axes("points", points, object=None, point=None, xy=2)
        require_axes("labels", labels, object=objects, point=count)
        sparse, dense = self.sam.prompt_encoder(
            input_points=points[:, None], input_labels=labels[:, None], input_boxes=None, input_masks=None
        )
        return Prompt(sparse[:, 0], dense, torch.full((objects,), count, device=points.device))

    def prompt_boxes(self, boxes: Tensor) -> Prompt:
        """Boxes xyxy in pixels of the model's square [object, 4], as two points each."""
        require_axes("boxes", boxes, object=None, xyxy=4)
        corners = torch.tensor([TOP_LEFT, BOTTOM_RIGHT], device=boxes.device)
        return self.prompt_points(boxes.reshape(-1, 2, 2), corners.expand(len(boxes), 2))

    def prompt_tokens(self, tokens: Tensor) -> Prompt:
        """Tokens [object, token, c] in place of what the prompt encoder makes of a box."""
        require_axes("tokens", tokens, object=None, token=None, c=self.sam.hidden_dim)
        return Prompt(tokens, self._no_mask(len(tokens)), torch.full((len(tokens),), 2, device=tokens.device))

    def _no_mask(self, objects: int) -> Tensor:
        return self.sam.prompt_encoder.no_mask_embed.weight[:, :, None, None].expand(objects, -1, self.grid, self.grid)

    def _no_prompt(self, objects: int) -> Prompt:
        nothing = self.sam.prompt_encoder.not_a_point_embed.weight
        return Prompt(nothing.expand(objects, 2, -1), self._no_mask(objects), torch.zeros(objects, dtype=torch.long, device=nothing.device))

    def segment(self, frame: FrameFeatures, prompt: Prompt) -> Masks:
        """Masks of the frame, one row per object, from the prompt alone."""
        return self._decode(frame, frame.coarse + self.sam.no_memory_embedding[0, 0, :, None, None], prompt, first=True)

    def follow(self, frame: FrameFeatures, bank: MemoryBank, number: int, *, backward: bool = False) -> Masks:
        """Masks of frame `number`, one row per object, from what the bank remembers."""
        step = -1 if backward else 1
        objects = len(frame.coarse)
        memories, places, pointers = self._remembered(bank, number, step)
        fused = self.sam.memory_attention(
            current_vision_features=frame.coarse.flatten(2).permute(2, 0, 1),
            current_vision_position_embeddings=self._image_position,
            memory=memories,
            memory_posision_embeddings=places,
            num_object_pointer_tokens=pointers,
        )
        fused = fused.reshape(objects, self.grid * self.grid, -1).transpose(1, 2).reshape(objects, -1, self.grid, self.grid)
        return self._decode(frame, fused, self._no_prompt(objects), first=False)

    def remember(self, frame: FrameFeatures, masks: Masks, *, prompted: bool, present: Tensor | None = None) -> Memory:
        """What is kept of a frame and its masks.

        Args:
            frame: one row per object.
            masks: of the frame.
            prompted: whether they came from a prompt; published, their remembered masks are hard.
            present: whether each object is in the frame [object]; None: as the object score says, or, if soft, yes.
        """
        if present is None:
            present = torch.ones_like(masks.object_logit, dtype=torch.bool) if self.soft else masks.object_logit > 0
        logits = torch.where(present[:, None, None], masks.logits, ABSENT)[:, None]
        side = 4 * int(self.sam.prompt_encoder.mask_input_size[0])
        large = functional.interpolate(logits, (self.image_size,) * 2, mode="bilinear", align_corners=False)
        if side != self.image_size:
            large = functional.interpolate(large, (side,) * 2, mode="bilinear", align_corners=False, antialias=True)
        inside = (large > 0).to(large.dtype) if prompted and not self.soft else large.sigmoid()
        scaled = inside * self.config.sigmoid_scale_for_mem_enc + self.config.sigmoid_bias_for_mem_enc
        features = self.sam.memory_encoder(frame.coarse, scaled)[0]
        gone = self.sam.occlusion_spatial_embedding_parameter
        if gone is not None:
            features = features + (~present)[:, None, None, None] * gone[..., None, None]
        if not self.soft:
            features = features.bfloat16().to(features.dtype)
        pointer = torch.where(present[:, None], masks.pointer, self.sam.no_object_pointer)
        return Memory(features, pointer)

    def bank(self, frames: int | None = None) -> MemoryBank:
        """An empty memory bank for a video of so many frames; None: of any number, read as a stream."""
        most = int(self.config.max_object_pointers_in_encoder)
        return MemoryBank(int(self.config.num_maskmem) - 1, most if frames is None else min(frames, most))

    def track(
        self,
        frames: Iterable[tuple[int, FrameFeatures]],
        bank: MemoryBank,
        *,
        backward: bool = False,
        present: Callable[[int], Tensor] | None = None,
    ) -> Iterator[tuple[int, Masks]]:
        """Masks frame by frame, in the order given, after `start` has put the prompted frame into the bank.

        Args:
            frames: numbers and features, each of one row.
            bank: grows by what is tracked, and forgets what is no longer needed.
            backward: whether the frames come in descending order.
            present: whether each object is in the frame of a number [object], where that is known; see `remember`.
        """
        objects = len(next(iter(bank.prompted.values())).pointer)
        for number, frame in frames:
            each = frame.for_objects(objects)
            masks = self.follow(each, bank, number, backward=backward)
            known = None if present is None else present(number)
            bank.keep(number, self.remember(each, masks, prompted=False, present=known), prompted=False)
            yield number, masks

    def start(self, number: int, frame: FrameFeatures, prompt: Prompt, bank: MemoryBank, *, present: Tensor | None = None) -> Masks:
        """Masks of the prompted frame, which the bank then remembers; the frame has one row."""
        each = frame.for_objects(len(prompt.sparse))
        masks = self.segment(each, prompt)
        bank.keep(number, self.remember(each, masks, prompted=True, present=present), prompted=True)
        return masks

    def _remembered(self, bank: MemoryBank, number: int, step: int) -> tuple[Tensor, Tensor, int]:
        """Memory tokens [token, object, c_memory], their positions alike (one for all objects), and how many last ones are pointers."""
        spatial, pointing = bank.spatial(number, step), bank.pointing(number, step)
        if not spatial:
            raise UsageError("bank", expected="a prompted frame", got="none")
        ages = self.sam.memory_temporal_positional_encoding
        tokens = [memory.features.flatten(2).permute(2, 0, 1) for _, memory in spatial]
        places = [self._memory_position + ages[age - 1] for age, _ in spatial]
        width = int(self.sam.mem_dim)
        if pointing:
            stacked = torch.stack([memory.pointer for _, memory in pointing])
            parts = stacked.reshape(*stacked.shape[:2], -1, width).transpose(1, 2)
            tokens.append(parts.flatten(0, 1))
            places.append(self._pointer_position([age for age, _ in pointing], bank.pointers, parts.shape[1], stacked))
        return torch.cat(tokens), torch.cat(places), len(tokens[-1]) if pointing else 0

    def _pointer_position(self, ages: Sequence[int], pointers: int, parts: int, like: Tensor) -> Tensor:
        width = int(self.sam.mem_dim)
        if not self.config.enable_temporal_pos_encoding_for_object_pointers:
            return like.new_zeros(len(ages) * parts, 1, width)
        share = torch.tensor(ages, dtype=torch.float32, device=like.device) / max(pointers - 1, 1)
        waves = _sines(share, int(self.sam.hidden_dim)).to(like.dtype)
        projected: Tensor = self.sam.temporal_positional_encoding_projection_layer(waves)
        return projected[:, None].repeat_interleave(parts, 0)

    @property
    def _image_position(self) -> Tensor:
        """Of the coarse cells [cell, 1, c]."""
        return self._positions(self.sam.vision_encoder.neck.position_encoding, int(self.sam.hidden_dim))

    @property
    def _memory_position(self) -> Tensor:
        """Of the cells of a memory [cell, 1, c_memory]."""
        return self._positions(self.sam.memory_encoder.position_encoding, int(self.sam.mem_dim))

    def _positions(self, encoding: Callable[..., Tensor], width: int) -> Tensor:
        like = self.sam.no_memory_embedding
        waves = encoding(torch.Size((1, width, self.grid, self.grid)), like.device, like.dtype)
        return waves.flatten(2).permute(2, 0, 1)

    def _decode(self, frame: FrameFeatures, embedding: Tensor, prompt: Prompt, *, first: bool) -> Masks:
        objects = len(embedding)
        many = self._proposes_many(prompt, first=first)
        position = self.sam.get_image_wide_positional_embeddings().expand(objects, -1, -1, -1)
        with self._one_mask_stays():
            logits, iou, tokens, score = self.sam.mask_decoder(
                image_embeddings=embedding,
                image_positional_embeddings=position,
                sparse_prompt_embeddings=prompt.sparse[:, None],
                dense_prompt_embeddings=prompt.dense,
                multimask_output=many,
                high_resolution_features=[frame.fine, frame.middle],
            )
        logits, iou, tokens, score = logits[:, 0], iou[:, 0], tokens[:, 0], score[:, 0, 0]
        chosen = iou.argmax(-1)
        row = torch.arange(objects, device=chosen.device)
        pointer = self.sam.object_pointer_proj(tokens[row, chosen])
        return Masks(logits[row, chosen], iou[row, chosen], score, pointer, logits, iou)

    def _proposes_many(self, prompt: Prompt, *, first: bool) -> bool:
        """Whether SAM2 proposes several masks: not where a prompt of several points leaves no doubt; the same for all objects."""
        counts = set(prompt.points.tolist())
        few = {self.config.multimask_min_pt_num <= count <= self.config.multimask_max_pt_num for count in counts}
        if len(few) > 1:
            raise UsageError("prompt.points", expected="one point for each object, or several for each", got=sorted(counts))
        return bool(self.config.multimask_output_in_sam and (first or self.config.multimask_output_for_tracking) and few == {True})

    @contextmanager
    def _one_mask_stays(self) -> Iterator[None]:
        decoder = self.sam.mask_decoder
        before = decoder.dynamic_multimask_via_stability
        decoder.dynamic_multimask_via_stability = before and not self.soft
        try:
            yield
        finally:
            decoder.dynamic_multimask_via_stability = before


def _sines(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions [n] at frequencies from 1 to 1/10000: [n, width]."""
    half = width // 2
    place = torch.arange(half, dtype=torch.float32, device=positions.device)
    waves = positions[:, None] / 10000 ** (2 * (place // 2) / half)
    return torch.cat([waves.sin(), waves.cos()], dim=-1)
