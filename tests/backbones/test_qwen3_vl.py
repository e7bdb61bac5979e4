"""The Qwen3-VL adapter against transformers' own code, on a tiny model of the real classes read from a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.backbones.reading import QUESTION, clip_of, conversation, inputs_of, most_changed, read_in_steps, row_of
from tpo_lab.backbones import checks, load_backbone
from tpo_lab.backbones.qwen3_vl import Qwen3VLBackbone, load
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError

SIDE, PATCH = 24, 4
TIMES = (0.5, 1.5, 2.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("qwen3_vl", tmp_path_factory.mktemp("qwen3_vl"), dtype=torch.float32)


def loaded(folder: Path, **settings: Any) -> Qwen3VLBackbone:
    found = load(str(folder), num_frames=len(TIMES), **settings)
    found.model.eval()
    return found


@pytest.fixture
def backbone(folder: Path) -> Qwen3VLBackbone:
    return loaded(folder)


def test_loads_from_a_local_folder_by_name(folder: Path, backbone: Qwen3VLBackbone) -> None:
    assert isinstance(load_backbone(str(folder)), Qwen3VLBackbone)
    assert (backbone.name, backbone.num_frames, backbone.image_size) == (str(folder), 3, SIDE)
    assert (backbone.hidden_size, backbone.vision_size, backbone.cells_per_frame, backbone.frames_per_grid) == (48, 32, 9, 2)
    assert backbone.output_rows is backbone.embedding.weight, "tied"


def test_patches_are_those_of_the_image_processor(backbone: Qwen3VLBackbone) -> None:
    """The family's images have Qwen2-VL's processor with another mean and deviation; it shows an image twice, as an odd last frame is."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    half, size = [0.5] * 3, {"shortest_edge": SIDE**2, "longest_edge": SIDE**2}
    processor = Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, size=size, image_mean=half, image_std=half)
    frames = clip_of(backbone, 1, clips=2)
    shown = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames[:, 0]]
    expected = torch.as_tensor(np.asarray(processor(shown, return_tensors="np")["pixel_values"]))
    assert (backbone.patches(frames) - expected).abs().max() <= 1e-6


def written_by_the_processor(indices: Sequence[int], fps: float) -> str:
    """The text that stands for a clip whose frames have these numbers in a video of so many frames a second."""
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    processor = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        _calculate_timestamps=partial(Qwen3VLProcessor._calculate_timestamps, None),
        vision_start_token="<|vision_start|>",
        video_token="<|video_pad|>",
        vision_end_token="<|vision_end|>",
    )
    metadata = SimpleNamespace(fps=fps, frames_indices=list(indices))
    grid = np.array([[(len(indices) + 1) // 2, 6, 6]])
    made: Any = Qwen3VLProcessor.replace_video_token
    return str(made(processor, {"video_grid_thw": grid, "video_metadata": [metadata]}, 0))


@pytest.mark.parametrize("step", [5, 12, 250])
@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_placeholder_is_the_text_of_the_processor(backbone: Qwen3VLBackbone, count: int, step: int) -> None:
    indices = [step // 2 + step * place for place in range(count)]
    times = tuple(index / 25 for index in indices)
    text = f"<|im_start|>user\n{written_by_the_processor(indices, 25)}{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    assert conversation(backbone, times) == text
    assert row_of(backbone, times)[0].tolist() == backbone.tokenizer.encode(text), "split at the same places"
    with torch.no_grad():
        features = backbone.video_features(clip_of(backbone, count))
    assert backbone.video_placeholder(times).count(backbone.video_token) == features.tokens.shape[1] == (count + 1) // 2 * 9


def test_times_are_written_by_hand(backbone: Qwen3VLBackbone) -> None:
    words = backbone.tokenizer.decode([token for token in backbone.video_placeholder(TIMES) if token != backbone.video_token])
    assert words == "<1.0 seconds><|vision_start|><|vision_end|><2.5 seconds><|vision_start|><|vision_end|>"


@pytest.mark.parametrize("gap", [0.4, 1.0, 7.3])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("size", [8, 24, 40])
def test_positions_are_those_of_get_rope_index(folder: Path, size: int, count: int, gap: float) -> None:
    backbone = loaded(folder, image_size=size)
    times = tuple(gap * place for place in range(count))
    ids = row_of(backbone, times)
    expected, _ = backbone.model.model.get_rope_index(
        ids,
        mm_token_type_ids=2 * (ids == backbone.video_token).int(),
        video_grid_thw=torch.tensor([[-(-count // 2), size // PATCH, size // PATCH]]),
    )
    assert torch.equal(backbone.positions(ids, torch.arange(ids.shape[1])[None], [times]), expected)


def test_positions_by_hand(backbone: Qwen3VLBackbone) -> None:
    """Every pair of frames starts where the words before it end, on all three axes, and words go on three positions after its first."""
    ids = row_of(backbone, TIMES)
    found = backbone.positions(ids, torch.arange(ids.shape[1])[None], [TIMES])[:, 0]
    first = ids[0].tolist().index(backbone.video_token)
    pair = found[:, first : first + 9] - first
    assert pair.tolist() == [[0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2] * 3]
    between = ids[0, first + 9 :].tolist().index(backbone.video_token)
    assert found[:, first + 9 : first + 9 + between].tolist() == [list(range(first + 3, first + 3 + between))] * 3
    second = found[:, first + 9 + between : first + 18 + between] - (first + 3 + between)
    assert torch.equal(second, pair)
    assert found[:, first + 18 + between].tolist() == [first + 6 + between] * 3


def test_features_of_several_depths_are_those_of_transformers(backbone: Qwen3VLBackbone) -> None:
    frames = clip_of(backbone, 4, clips=2)
    with torch.no_grad():
        found = backbone.video_features(frames)
        reference = backbone.model.get_video_features(backbone.patches(frames), torch.tensor([[2, 6, 6]] * 2))
    assert found.deeper is not None and found.deeper.shape == (2, 2, 18, 48)
    for clip in range(2):
        assert torch.equal(found.tokens[clip], reference.pooler_output[clip])
        for layer in range(2):
            assert torch.equal(found.deeper[clip, layer], reference.deepstack_features[layer][clip])
    assert not torch.equal(found.deeper[:, 0], found.deeper[:, 1])


def test_features_of_several_depths_are_added_at_the_visual_tokens_only(backbone: Qwen3VLBackbone) -> None:
    ids = row_of(backbone, TIMES)
    features = backbone.video_features(clip_of(backbone, 3))
    inputs = backbone.inputs(ids, torch.arange(ids.shape[1])[None], [features], [TIMES])
    at_video = ids[0] == backbone.video_token
    assert inputs.deeper is not None and features.deeper is not None
    assert torch.equal(inputs.deeper[0][:, at_video], features.deeper[0])
    assert not inputs.deeper[0][:, ~at_video].any()


def test_features_of_several_depths_change_what_is_read_and_are_learnt_through(backbone: Qwen3VLBackbone) -> None:
    inputs = inputs_of(backbone, TIMES)
    assert inputs.deeper is not None
    deeper = inputs.deeper.clone().requires_grad_()
    with_them, _ = backbone.language_model(replace(inputs, deeper=deeper), mask=None)
    without, _ = backbone.language_model(replace(inputs, deeper=None), mask=None)
    assert (with_them[0, -1] - without[0, -1]).abs().max() > 1e-3
    with_them[0, -1, 0].backward()
    assert deeper.grad is not None and (deeper.grad.abs().amax((0, 2, 3)) > 1e-6).all(), "of each depth"


def test_rows_of_different_lengths_are_read_as_each_alone(backbone: Qwen3VLBackbone) -> None:
    """Their clips have different numbers of frames, so that visual tokens and times lie at different places."""
    bench = checks.Bench.of(backbone)
    clip = replace(bench.other.clip, times_sec=bench.other.clip.times_sec[:1])
    short = replace(bench.other, frames=bench.other.frames[:1], clip=clip)
    with torch.no_grad():
        together = bench.model(bench.batch(bench.row, short)).logits
        alone = torch.cat([bench.model(bench.batch(row)).logits for row in (bench.row, short)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("frame", "row", "column"), [(0, 0, 5), (1, 5, 1), (2, 3, 4), (3, 4, 0)])
def test_patches_and_tokens_lie_in_row_major_order(backbone: Qwen3VLBackbone, frame: int, row: int, column: int) -> None:
    patch, token = most_changed(backbone, frame, 4, PATCH, row, column)
    pair = frame // 2
    assert patch.tolist() == [2 * pair, row * 6 + column], "the first frame of the pair has the same as the second"
    assert int(token) == pair * 9 + row // 2 * 3 + column // 2


def test_cached_reading_equals_reading_at_once(backbone: Qwen3VLBackbone) -> None:
    """Also where the reading stops among visual tokens, whose features of several depths then come in two portions."""
    inputs = inputs_of(backbone, TIMES)
    with torch.no_grad():
        whole, _ = backbone.language_model(inputs, mask=None)
    for last in (5, inputs.embeds.shape[1] - 14):
        assert torch.allclose(read_in_steps(backbone, inputs, last=last), whole, atol=1e-5)


def test_the_mergers_are_the_connector(backbone: Qwen3VLBackbone) -> None:
    named = [name for name, _ in backbone.model.named_parameters()]
    connector = {name for name in named if name.startswith(backbone.parts()["connector"])}
    assert connector == {name for name in named if "merger" in name} and len(connector) == 3 * 6
    vision = {name.split(".")[2] for name in named if name.startswith(backbone.parts()["vision"])}
    assert vision == {"patch_embed", "pos_embed", "blocks"}


def test_frames_are_twelve_cells_wide_where_nothing_is_said(backbone: Qwen3VLBackbone) -> None:
    backbone.model.config.vision_config.patch_size = 16
    del backbone.model.config.vision_config.image_size
    assert Qwen3VLBackbone(backbone.model, backbone.tokenizer, name="x", num_frames=2).image_size == 384


def test_the_image_size_is_saved(folder: Path, tmp_path: Path) -> None:
    loaded(folder, image_size=40).save(tmp_path / "a")
    again = loaded(tmp_path / "a")
    assert (again.image_size, again.cells_per_frame) == (40, 25)
    assert again.output_rows is again.embedding.weight, "still tied"


@pytest.mark.parametrize(
    ("config", "hint"),
    [(None, ""), ({"model_type": "qwen2"}, r"That is a qwen2 model\."), ({"model_type": "unheard-of"}, "unheard-of")],
)
def test_other_folders_are_refused_in_one_sentence(tmp_path: Path, config: dict[str, str] | None, hint: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=rf"^backbone: expected a folder or hub id of Qwen3-VL, got '{tmp_path}'.*{hint}") as caught:
        load(str(tmp_path), num_frames=2)
    assert "\n" not in str(caught.value)
