"""Qwen2.5-VL (window-attention tower, patch merger, Qwen2 language model with positions in time, height and width) behind the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tpo_lab.backbones.base import ChatFormat, VideoFeatures
from tpo_lab.backbones.pixels import normalise
from tpo_lab.backbones.transformers_backbone import QWEN2_CHAT, TransformersBackbone, load_pretrained
from tpo_lab.errors import UsageError

CHAT = replace(QWEN2_CHAT, open="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n", before_question="")
CELLS_PER_SIDE = 12
"""Visual tokens along a side where nothing else is said: 336 pixels with this family's patches, 384 with those of Qwen3-VL."""


class Qwen2_5VLBackbone(TransformersBackbone):
    """A `Qwen2_5_VLForConditionalGeneration` and its tokenizer, built outside and passed in.

    Args:
        image_size: side of the squares that frames become, a multiple of patch and merge size; kept in the vision configuration, from
            which it comes where None.

    Raises:
        UsageError: no frames, an image size that leaves a rest, or an attention implementation that takes no mask of its own.
    """

    prefixes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks."),
        "connector": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
        "llm": ("model.language_model.", "lm_head."),
    }
    mean: ClassVar[Sequence[float]] = (0.48145466, 0.4578275, 0.40821073)
    std: ClassVar[Sequence[float]] = (0.26862954, 0.26130258, 0.27577711)

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, num_frames: int, image_size: int | None = None, chat: ChatFormat = CHAT
    ) -> None:
        vision = model.config.vision_config
        self._merge = int(vision.spatial_merge_size)
        cell = int(vision.patch_size) * self._merge
        size = int(getattr(vision, "image_size", CELLS_PER_SIDE * cell)) if image_size is None else image_size
        if size % cell or size < cell:
            raise UsageError("image_size", expected=f"a multiple of {cell}, a patch times those that are merged", got=size)
        super().__init__(model, tokenizer, name=name, num_frames=num_frames, image_size=size, chat=chat)
        self._side = size // cell
        vision.image_size = size

    @property
    def cells_per_frame(self) -> int:
        """Visual tokens of a pair of frames."""
        return self._side**2

    @property
    def frames_per_grid(self) -> int:
        """Two: a temporal patch."""
        return int(self.model.config.vision_config.temporal_patch_size)

    def video_features(self, frames: Tensor) -> VideoFeatures:
        """Encode uint8 frames [clip, frame, 3, image_size, image_size]; an odd last frame is paired with itself."""
        found = self.model.model.get_video_features(self.patches(frames), self._grids([frames.shape[1]] * len(frames)))
        deeper = getattr(found, "deepstack_features", None)
        return VideoFeatures(
            tokens=torch.stack(list(found.pooler_output)),
            frames=self._by_frame(found.last_hidden_state, *frames.shape[:2]),
            deeper=torch.stack([torch.stack(list(layer)) for layer in deeper], 1) if deeper else None,
        )

    def patches(self, frames: Tensor) -> Tensor:
        """What the tower takes, [patch, value]: patches merged later lie together, each with its colours, pair of frames, rows, columns."""
        vision, pair = self.model.config.vision_config, self.frames_per_grid
        pixels = normalise(frames.to(self.device), self.mean, self.std)
        rest = -frames.shape[1] % pair
        pixels = torch.cat([pixels, pixels[:, -1:].expand(-1, rest, -1, -1, -1)], 1)
        split = (self._side, self._merge, vision.patch_size)
        grid = pixels.reshape(len(frames), -1, pair, 3, *split, *split).permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        return grid.reshape(-1, 3 * pair * vision.patch_size**2)

    def _grids(self, counts: Sequence[int]) -> Tensor:
        """Patches of each clip in time, height and width [clip, 3], from numbers of frames."""
        side = self._side * self._merge
        return torch.tensor([(self.grids(count), side, side) for count in counts], device=self.device)

    def _by_frame(self, states: Tensor, clips: int, count: int) -> Tensor:
        """States of patches in the tower's order to [clip, frame, patch, d] in row-major order; frames of a pair share theirs."""
        back = self._cell_order().argsort().to(states.device)
        within = (self._merge, self._merge, self.vision_size)
        cells = states.reshape(clips, self.grids(count), self.cells_per_frame, *within)[:, :, back]
        rows = cells.reshape(clips, -1, self._side, self._side, *within).transpose(3, 4).flatten(2, 5)
        return rows.repeat_interleave(self.frames_per_grid, 1)[:, :count]

    def _cell_order(self) -> Tensor:
        """The cells of a grid as the tower reads them: window by window, in each row by row."""
        vision = self.model.config.vision_config
        window = torch.arange(self._side) // int(vision.window_size // self._merge // vision.patch_size)
        return (window[:, None] * self._side + window).flatten().argsort(stable=True)

    def video_placeholder(self, times_sec: Sequence[float]) -> list[int]:
        """Token ids that stand for a clip; positions tell this family the times."""
        visual = [self.video_token] * (self.grids(len(times_sec)) * self.cells_per_frame)
        return [*self.words("<|vision_start|>"), *visual, *self.words("<|vision_end|>")]

    def positions(self, ids: Tensor, places: Tensor, times_sec: Sequence[Sequence[float]]) -> Tensor:
        """Position ids in time, height and width [3, row, token]: the family's rule up to the end of the clip, then one place a token."""
        rows = [self._row_positions(ids[row].cpu(), places[row].cpu(), times) for row, times in enumerate(times_sec)]
        return torch.stack(rows, 1).to(ids.device)

    def _row_positions(self, ids: Tensor, places: Tensor, times_sec: Sequence[float]) -> Tensor:
        end = int((ids == self.video_token).nonzero()[-1]) + 1
        # a word more, since the rule itself says where words go on after a clip
        known = torch.cat([ids[:end], ids.new_zeros(1)])[None]
        is_video = 2 * (known == self.video_token).int()
        found, _ = self.model.model.get_rope_index(
            known, mm_token_type_ids=is_video, video_grid_thw=self._grids([len(times_sec)]).cpu(), **self._timing(times_sec)
        )
        after = places[end:] - end + found[:, 0, -1:]
        return torch.cat([found[:, 0, :-1], after], 1)

    def _timing(self, times_sec: Sequence[float]) -> dict[str, Tensor]:
        """Seconds from one pair of frames to the next, as the rule takes them."""
        gap = (times_sec[-1] - times_sec[0]) / (len(times_sec) - 1) if len(times_sec) > 1 else 1.0
        return {"second_per_grid_ts": torch.tensor([self.frames_per_grid * gap])}

    def text_positions(self, positions: Tensor) -> Tensor:
        """Positions of words, the same in time, height and width [3, row, token]."""
        return positions.expand(3, *positions.shape)


def load(path: str, *, num_frames: int, dtype: torch.dtype | None = None, image_size: int | None = None) -> Qwen2_5VLBackbone:
    """Load a Qwen2.5-VL checkpoint from the hub or from a local folder; `image_size` as in `Qwen2_5VLBackbone`.

    Raises:
        UsageError: where neither has such a checkpoint.
    """
    from transformers import Qwen2_5_VLForConditionalGeneration

    model, tokenizer = load_pretrained(path, "Qwen2.5-VL", Qwen2_5_VLForConditionalGeneration, dtype=dtype)
    return Qwen2_5VLBackbone(model, tokenizer, name=path, num_frames=num_frames, image_size=image_size)
