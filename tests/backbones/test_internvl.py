"""The InternVL adapter against transformers' own code, on a tiny model of the real classes read from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.backbones.reading import QUESTION, clip_of, conversation, inputs_of, most_changed, read_in_steps, row_of
from tpo_lab.backbones import load_backbone
from tpo_lab.backbones.internvl import InternVLBackbone, load
from tpo_lab.backbones.pixels import normalise
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError

SIDE, PATCH, TIMES = 32, 4, (0.5, 1.5, 2.5)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("internvl", tmp_path_factory.mktemp("internvl"), dtype=torch.float32)


@pytest.fixture
def backbone(folder: Path) -> InternVLBackbone:
    loaded = load(str(folder), num_frames=len(TIMES))
    loaded.model.eval()
    return loaded


def test_loads_from_a_local_folder_by_name(folder: Path, backbone: InternVLBackbone) -> None:
    assert isinstance(load_backbone(str(folder)), InternVLBackbone)
    assert (backbone.name, backbone.num_frames, backbone.image_size, backbone.cells_per_frame) == (str(folder), 3, SIDE, 16)
    assert (backbone.hidden_size, backbone.vision_size) == (48, 32)
    assert backbone.output_rows is backbone.embedding.weight, "tied"


def test_pixels_are_those_of_the_image_processor(backbone: InternVLBackbone) -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    processor = GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=list(MEAN), image_std=list(STD))
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 7, 6) * 255, size=(60, 44), mode="bilinear").to(torch.uint8)
    for frame in (*smooth, clip_of(backbone, 1)[0, 0]):
        ours = normalise(backbone.resize(frame[None]), MEAN, STD)[0]
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
        theirs = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"]))[0]
        # resizing rounds to bytes, and the two ways may round to neighbouring ones
        tolerance = 1e-6 if frame.shape[-1] == SIDE else 1.01 / 255 / min(STD)
        assert (ours - theirs).abs().max() <= tolerance


@pytest.mark.parametrize("count", [1, 3, 12])
def test_placeholder_is_the_text_of_the_processor(backbone: InternVLBackbone, count: int) -> None:
    from transformers.models.internvl.processing_internvl import InternVLProcessor

    tokens = {"start_image_token": "<img>", "image_token": "<IMG_CONTEXT>", "end_image_token": "</img>"}
    processor = SimpleNamespace(**tokens, image_seq_length=16)
    video = InternVLProcessor.replace_video_token(processor, {"pixel_values_videos": [torch.zeros(count, 3, 2, 2)]}, 0)  # type: ignore[arg-type]
    times = tuple(float(place) for place in range(count))
    text = f"<|im_start|>user\n{video}\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert conversation(backbone, times) == text
    assert row_of(backbone, times)[0].tolist() == backbone.tokenizer.encode(text), "split at the same places"
    with torch.no_grad():
        features = backbone.video_features(clip_of(backbone, count))
    assert backbone.video_placeholder(times).count(backbone.video_token) == features.tokens.shape[1] == count * 16


def test_tokens_are_the_patches_shuffled_and_projected(backbone: InternVLBackbone) -> None:
    """Each visual token comes from the four patches of its square, side by side as `pixel_shuffle` puts them."""
    with torch.no_grad():
        found = backbone.video_features(clip_of(backbone, 2))
        grid = found.frames.reshape(2, 8, 8, 32)
        squares = torch.stack([grid[:, y::2, x::2] for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))], 3).flatten(1, 2).flatten(2)
        assert torch.equal(backbone.model.model.multi_modal_projector(squares).flatten(0, 1), found.tokens[0])


def test_features_of_another_layer_are_those_the_tokens_come_from(backbone: InternVLBackbone) -> None:
    frames = clip_of(backbone, 1)
    with torch.no_grad():
        last = backbone.video_features(frames)
        backbone.model.config.vision_feature_layer = 1
        other = backbone.video_features(frames)
        hidden = backbone.model.model.vision_tower(normalise(frames[0], MEAN, STD), output_hidden_states=True).hidden_states
    assert torch.equal(other.frames[0], hidden[1][:, 1:]), "the class token comes first and is no patch"
    assert not torch.equal(last.tokens, other.tokens)


@pytest.mark.parametrize(("frame", "row", "column"), [(0, 0, 5), (1, 6, 1), (2, 3, 4)])
def test_patches_and_tokens_lie_in_row_major_order(backbone: InternVLBackbone, frame: int, row: int, column: int) -> None:
    patch, token = most_changed(backbone, frame, 3, PATCH, row, column)
    assert patch.tolist() == [frame, row * 8 + column]
    assert int(token) == frame * 16 + row // 2 * 4 + column // 2


def test_cached_reading_equals_reading_at_once(backbone: InternVLBackbone) -> None:
    inputs = inputs_of(backbone, TIMES)
    assert inputs.positions.tolist() == [list(range(inputs.embeds.shape[1]))]
    with torch.no_grad():
        whole, _ = backbone.language_model(inputs, mask=None)
    assert torch.allclose(read_in_steps(backbone, inputs, last=5), whole, atol=1e-5)


def test_patches_that_cannot_be_grouped_are_refused(backbone: InternVLBackbone) -> None:
    backbone.model.config.vision_config.image_size = (28, 28)
    with pytest.raises(UsageError, match="patches per side: expected a multiple of 2, got 7"):
        InternVLBackbone(backbone.model, backbone.tokenizer, name="x", num_frames=2)


@pytest.mark.parametrize(
    ("config", "hint"),
    [(None, ""), ({"model_type": "qwen2"}, r"That is a qwen2 model\."), ({"model_type": "internvl_chat"}, "internvl_chat")],
)
def test_other_folders_are_refused_in_one_sentence(tmp_path: Path, config: dict[str, str] | None, hint: str) -> None:
    """`internvl_chat` is the layout of the original release, whose code comes with the weights."""
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=rf"^backbone: expected a folder or hub id of InternVL, got '{tmp_path}'.*{hint}") as caught:
        load(str(tmp_path), num_frames=2)
    assert "\n" not in str(caught.value)
