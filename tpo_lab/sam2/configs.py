"""Configurations of SAM2: the published sizes at any square image size, and one that a CPU trains in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from tpo_lab.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig, Sam2VideoModel

Version = Literal["2.0", "2.1"]
STRIDE = 16
"""Pixels of the image per cell of the coarsest features, in the published sizes."""
COARSE_GRID = 32
"""Cells per side of a grid that is coarse for positions of SAM2's frequencies: on a smaller one they are lowered in proportion."""
SMALL, SMALL_BLOCK = 0.02, 0.1
"""Deviation of embeddings that are to start small, and the share that a memory's blocks have at first."""


@dataclass(frozen=True)
class HieraSize:
    """The image encoder of a published size.

    Attributes:
        width: of the first stage; each stage doubles it.
        heads: of the first stage; each stage doubles them.
        blocks: per stage.
        global_blocks: numbers of the blocks that look at the whole image.
        windows: cells per side of a window, per stage.
        background: cells per side of the coarse part of the position embedding.
    """

    width: int
    heads: int
    blocks: tuple[int, ...]
    global_blocks: tuple[int, ...]
    windows: tuple[int, ...] = (8, 4, 14, 7)
    background: int = 7


SIZES: Mapping[str, HieraSize] = MappingProxyType(
    {
        "hiera-tiny": HieraSize(96, 1, (1, 2, 7, 2), (5, 7, 9)),
        "hiera-small": HieraSize(96, 1, (1, 2, 11, 2), (7, 10, 13)),
        "hiera-base-plus": HieraSize(112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
        "hiera-large": HieraSize(144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
    }
)
"""The published sizes by name."""


def sam2_config(size: str = "hiera-tiny", *, version: Version = "2.1", image_size: int = 1024) -> Sam2VideoConfig:
    """The configuration of a published SAM2.

    Args:
        size: one of `SIZES`.
        version: "2.0", which TPO was trained with, or "2.1".
        image_size: side of the square that frames are resized to, a multiple of 16.

    Source: the paper of SAM2 (arXiv 2408.00714) and the published configurations.

    Raises:
        UsageError: an unknown size or version, or a side that is no multiple of 16.
    """
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    if version not in get_args(Version):
        raise unknown_name("version", version, get_args(Version))
    if image_size < STRIDE or image_size % STRIDE:
        raise UsageError("image_size", expected=f"a multiple of {STRIDE}", got=image_size)
    hiera = SIZES[size]
    backbone = {
        "hidden_size": hiera.width,
        "num_attention_heads": hiera.heads,
        "blocks_per_stage": list(hiera.blocks),
        "embed_dim_per_stage": [hiera.width * 2**stage for stage in range(4)],
        "num_attention_heads_per_stage": [hiera.heads * 2**stage for stage in range(4)],
        "window_size_per_stage": list(hiera.windows),
        "global_attention_blocks": list(hiera.global_blocks),
        "window_positional_embedding_background_size": [hiera.background] * 2,
    }
    newer = version == "2.1"
    return _config(
        backbone,
        image_size=image_size,
        stride=STRIDE,
        enable_temporal_pos_encoding_for_object_pointers=newer,
        enable_occlusion_spatial_embedding=newer,
    )


def nano_config(image_size: int = 64) -> Sam2VideoConfig:
    """A SAM2 of 0.8 M parameters for frames of 64 x 64 pixels, with the structure of SAM2.1.

    Half the published stride, since things of a 64-pixel frame are a tenth as large as those of a photograph: features of 8 x 8 cells,
    masks of 32 x 32. Memories have 64 channels, as the library's memory attention demands, and so has all else. No dropout, for it has
    footage without end to learn from.

    Args:
        image_size: side of the square that frames are resized to, a multiple of 32.

    Raises:
        UsageError: a side that is no multiple of 32.
    """
    if image_size < 32 or image_size % 32:
        raise UsageError("image_size", expected="a multiple of 32", got=image_size)
    backbone = {
        "hidden_size": 16,
        "num_attention_heads": 1,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
        "patch_kernel_size": [5, 5],
        "patch_stride": [2, 2],
        "patch_padding": [2, 2],
    }
    width = 64
    return _config(
        backbone,
        image_size=image_size,
        stride=8,
        width=width,
        decoder={"mlp_dim": 128, "num_attention_heads": 4, "iou_head_hidden_dim": width},
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        mask_downsampler_embed_dim=width,
        memory_encoder_hidden_size=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=2 * width,
        memory_attention_hidden_size=width,
    )


def untrained(config: Sam2VideoConfig) -> Sam2VideoModel:
    """A model with random weights that can be trained from them.

    Linear layers and convolutions start as torch has them, and what the library starts at zero (ages of memories, pointers of nothing,
    the memories' blocks) starts small. With the library's own start, deviations of 0.02 everywhere, a model of nano's size does not learn
    which of two things its prompt means. On a coarse grid the positions' frequencies are lowered: at the published ones, which are for 64
    cells a side, a cell of nano's would know nothing of the next, and a prompt nothing of what it lies between.
    """
    from torch import nn
    from transformers import Sam2VideoModel

    model = Sam2VideoModel(config)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            module.reset_parameters()
    for name, parameter in model.named_parameters():
        if name.endswith(".scale"):
            nn.init.constant_(parameter, SMALL_BLOCK)
        elif not parameter.any() and parameter.ndim > 1:
            nn.init.normal_(parameter, std=SMALL)
    grid = int(model.backbone_feature_sizes[-1][0])
    model.prompt_encoder.shared_embedding.positional_embedding.mul_(min(1.0, grid / COARSE_GRID))
    model.shared_image_embedding.load_state_dict(model.prompt_encoder.shared_embedding.state_dict())
    return model


def _config(
    backbone: dict[str, Any], *, image_size: int, stride: int, width: int = 256, decoder: Mapping[str, Any] | None = None, **more: Any
) -> Sam2VideoConfig:
    """A configuration with one image size and one width in all places that have them."""
    from transformers import Sam2VideoConfig
    from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig, Sam2VideoPromptEncoderConfig

    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(**backbone),
            backbone_channel_list=backbone["embed_dim_per_stage"][::-1],
            fpn_hidden_size=width,
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(patch_size=stride, hidden_size=width),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(hidden_size=width, **(decoder or {})),
        **more,
    )
    resize(config, image_size)
    return config


def resize(config: Any, image_size: int) -> None:
    """Set the image size in all five places of a configuration that have it.

    Raises:
        UsageError: a side that is no multiple of the stride.
    """
    stride = int(config.prompt_encoder_config.patch_size)
    if image_size < 1 or image_size % stride:
        raise UsageError("image_size", expected=f"a multiple of {stride}", got=image_size)
    cells = image_size // stride
    config.image_size = config.prompt_encoder_config.image_size = image_size
    config.vision_config.backbone_config.image_size = [image_size] * 2
    config.vision_config.backbone_feature_sizes = [[cells * factor] * 2 for factor in (4, 2, 1)]
    config.memory_attention_rope_feat_sizes = [cells] * 2
