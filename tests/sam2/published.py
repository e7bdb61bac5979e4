"""The published SAM2 predictor with random weights, in the published sizes and in nano's: what the tracker is compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam2VideoModel

from tpo_lab.sam2 import nano_config
from tpo_lab.sam2.weights import from_official

pytest.importorskip("sam2", reason="the published code is optional: pip install --no-deps sam2, with hydra-core and iopath")

FILES = {"hiera-tiny": "t", "hiera-small": "s", "hiera-base-plus": "b+", "hiera-large": "l"}
UNCHANGED = {
    # without these the predictor changes masks after the model has made them
    "fill_hole_area": 0,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    "binarize_mask_from_pts_for_mem_enc": True,
}
HIDDEN = 1e-3
"""Parameters that are nowhere larger would hide what they scale."""


def published(size: str, version: str, *, image_size: int = 1024) -> Any:
    """The published predictor with random weights, every zero among them random too."""
    return _random(_built(size, version, {"image_size": image_size}))


def published_nano() -> Any:
    """The published predictor in the size of `nano_config`, with random weights.

    What the published code fixes for its own sizes is built anew: the first layer of the image encoder, the transformer and the IoU head of
    the mask decoder, the inner width of the memory's blocks and a projection of memories that are as wide as the features. And masks are
    brought to the memory encoder's size before it sees them: the published stride of 16 leaves nothing to do there.
    """
    from sam2.modeling.backbones.utils import PatchEmbed
    from sam2.modeling.sam.transformer import TwoWayTransformer
    from sam2.modeling.sam2_utils import MLP

    config = nano_config()
    vision, hiera = config.vision_config, config.vision_config.backbone_config
    decoder = config.mask_decoder_config
    width, grid = vision.fpn_hidden_size, vision.backbone_feature_sizes[-1]
    heads, inner = config.memory_attention_num_attention_heads, config.memory_attention_feed_forward_hidden_size
    attention = {"embedding_dim": width, "num_heads": heads, "feat_sizes": grid}
    sizes = {
        "image_size": config.image_size,
        "backbone_stride": config.prompt_encoder_config.patch_size,
        "image_encoder": {
            "trunk": {
                "embed_dim": hiera.hidden_size,
                "num_heads": hiera.num_attention_heads,
                "stages": hiera.blocks_per_stage,
                "global_att_blocks": hiera.global_attention_blocks,
                "window_spec": hiera.window_size_per_stage,
                "window_pos_embed_bkg_spatial_size": hiera.window_positional_embedding_background_size,
            },
            "neck": {
                "d_model": width,
                "backbone_channel_list": vision.backbone_channel_list,
                "position_encoding": {"num_pos_feats": width},
            },
        },
        "memory_attention": {
            "d_model": width,
            "num_layers": config.memory_attention_num_layers,
            "layer": {"d_model": width, "dim_feedforward": inner, "self_attention": attention, "cross_attention": attention},
        },
        "memory_encoder": {
            "in_dim": width,
            "mask_downsampler": {"embed_dim": config.mask_downsampler_embed_dim},
            "fuser": {"layer": {"dim": config.memory_fuser_embed_dim}},
        },
    }
    model = _built("hiera-tiny", "2.1", sizes)
    model.image_encoder.trunk.patch_embed = PatchEmbed(
        kernel_size=hiera.patch_kernel_size, stride=hiera.patch_stride, padding=hiera.patch_padding, embed_dim=hiera.hidden_size
    )
    model.sam_mask_decoder.transformer = TwoWayTransformer(
        depth=decoder.num_hidden_layers, embedding_dim=width, num_heads=decoder.num_attention_heads, mlp_dim=decoder.mlp_dim
    )
    model.sam_mask_decoder.iou_prediction_head = MLP(
        width, decoder.iou_head_hidden_dim, decoder.num_multimask_outputs + 1, decoder.iou_head_depth, sigmoid_output=True
    )
    for block in model.memory_encoder.fuser.layers:
        block.pwconv1 = nn.Linear(config.memory_fuser_embed_dim, config.memory_fuser_intermediate_dim)
        block.pwconv2 = nn.Linear(config.memory_fuser_intermediate_dim, config.memory_fuser_embed_dim)
    model.memory_encoder.out_proj = nn.Conv2d(width, config.memory_encoder_output_channels, 1)
    remember, side = model._encode_new_memory, grid[0] * config.mask_downsampler_total_stride

    def enlarged(*, pred_masks_high_res: Tensor, **rest: Any) -> Any:
        large = functional.interpolate(pred_masks_high_res, (side, side), mode="bilinear", align_corners=False)
        return remember(pred_masks_high_res=large, **rest)

    model._encode_new_memory = enlarged
    return _random(model)


def nano_from(model: Any) -> Sam2VideoModel:
    """Our nano SAM2 with the weights of `published_nano`."""
    sam = Sam2VideoModel(nano_config())
    sam.load_state_dict(from_official(model.state_dict()), strict=True)
    sam.train(False)
    return sam


def _built(size: str, version: str, sizes: Mapping[str, Any]) -> Any:
    import sam2  # noqa: F401  (registers its configurations)
    from hydra import compose
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    folder = "sam2.1" if version == "2.1" else "sam2"
    config = compose(config_name=f"configs/{folder}/{folder}_hiera_{FILES[size]}.yaml")
    OmegaConf.set_struct(config, False)
    predictor = {"_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor"}
    config = OmegaConf.merge(config, {"model": {**predictor, **UNCHANGED}}, {"model": sizes})
    torch.manual_seed(0)
    return instantiate(config.model, _recursive_=True)


def _random(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() < HIDDEN:
                parameter.normal_(std=0.1)
    return model.eval()


def footage(frames: int, side: int) -> Tensor:
    """Noise [frame, 3, side, side], always the same."""
    return torch.randint(0, 256, (frames, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def started(model: Any, pixels: Tensor, prompts: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """The predictor's state for frames that are in memory already, with a prompt for each object; it reads frames from files only.

    Args:
        model: the published predictor.
        pixels: normalised, of the model's size [frame, 3, h, w].
        prompts: for each object "box", or "points" and "labels"; places in [0, 1].
    """
    side = 4 * model.sam_image_embedding_size
    with tempfile.TemporaryDirectory() as folder, mock.patch("sam2.sam2_video_predictor.load_video_frames") as load:
        load.return_value = (pixels, side, side)
        state: dict[str, Any] = model.init_state(folder)
    for number, prompt in enumerate(prompts):
        model.add_new_points_or_box(state, frame_idx=0, obj_id=number, normalize_coords=False, **prompt)
    return state


def propagated(model: Any, state: dict[str, Any]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Numbers of frames, logits of all objects at a quarter of the side [object, m, m] and of their being there [object]."""
    objects = state["output_dict_per_obj"].values()
    for frame, _, logits in model.propagate_in_video(state):
        outputs = [(each["cond_frame_outputs"] | each["non_cond_frame_outputs"])[frame] for each in objects]
        yield frame, torch.as_tensor(logits)[:, 0], torch.cat([output["object_score_logits"][:, 0] for output in outputs])
