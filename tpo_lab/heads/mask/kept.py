"""Bytes that SAM2 keeps for the backward pass while it follows an object, counted from its configuration; all in single precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig

_FP32 = 4


@dataclass(frozen=True)
class FollowedFrame:
    """What one frame of one object keeps, weights frozen. Numbers behind products were found by measuring hiera-large and nano SAM2.

    Args:
        config: of SAM2.
        cells: of the coarsest features of a frame.
    """

    config: Sam2VideoConfig
    cells: int

    @property
    def _map(self) -> int:
        return _FP32 * self.cells * int(self.config.memory_attention_hidden_size)

    @property
    def features(self) -> int:
        """The image's, as the encoder gives them."""
        return 4 * self._map

    @property
    def decoded(self) -> int:
        """By the mask decoder."""
        return 16 * self._map

    @property
    def remembered(self) -> int:
        """By the memory encoder, which begins with the mask at four times the side of a prompt's grid."""
        return _FP32 * 16 * (16 * int(self.cells**0.5)) ** 2 + 12 * self._map

    def attended(self, memories: int) -> int:
        """By the memory attention, which looks at so many frames."""
        config = self.config
        wide = _FP32 * self.cells * int(config.memory_attention_feed_forward_hidden_size)
        return int(config.memory_attention_num_layers) * (wide + (7 + 4 * memories) * self._map)

    @property
    def carried(self) -> int:
        """Masks and memory, which are there until the last frame."""
        return _FP32 * self.cells * (4 * 16 + int(self.config.memory_encoder_output_channels))

    @property
    def encoding(self) -> int:
        """What the image encoder takes for a moment and keeps nothing of."""
        vision: Any = self.config.vision_config
        width = int(vision.backbone_config.hidden_size)
        return _FP32 * 17 * width * 16 * self.cells


def followed_bytes(frame: FollowedFrame, frames: int, *, checkpointing: bool) -> int:
    """What following one object through so many frames keeps beside their features, the first of them prompted.

    Args:
        checkpointing: of each frame that is followed masks and memory are kept, and one frame at a time is computed again.
    """
    most = int(frame.config.num_maskmem)
    # each frame but the last is remembered for the next one
    steps = [frame.remembered + frame.attended(min(number, most)) + frame.decoded for number in range(1, frames)]
    followed = len(steps) * frame.carried + frame.remembered + max(steps) if checkpointing and steps else sum(steps)
    return frame.decoded + followed
