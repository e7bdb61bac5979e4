"""The Qwen2.5-VL adapter against transformers' own code, on a tiny model of the real classes read from a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.backbones.reading import QUESTION, clip_of, conversation, inputs_of, most_changed, read_in_steps, row_of
from tpo_lab.backbones import checks, load_backbone
from tpo_lab.backbones.qwen2_5_vl import Qwen2_5VLBackbone, load
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError
from tpo_lab.stages import Lora

SIDE, PATCH = 24, 4
TIMES = (0.5, 1.5, 2.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("qwen2_5_vl", tmp_path_factory.mktemp("qwen2_5_vl"), dtype=torch.float32)


def loaded(folder: Path, **settings: Any) -> Qwen2_5VLBackbone:
    found = load(str(folder), num_frames=len(TIMES), **settings)
    found.model.eval()
    return found


@pytest.fixture
def backbone(folder: Path) -> Qwen2_5VLBackbone:
    return loaded(folder)


def test_loads_from_a_local_folder_by_name(folder: Path, backbone: Qwen2_5VLBackbone) -> None:
    assert isinstance(load_backbone(str(folder)), Qwen2_5VLBackbone)
    assert (backbone.name, backbone.num_frames, backbone.image_size) == (str(folder), 3, SIDE)
    assert (backbone.hidden_size, backbone.vision_size, backbone.cells_per_frame, backbone.frames_per_grid) == (48, 32, 9, 2)
    assert backbone.output_rows is backbone.embedding.weight, "tied"


def pictures(frames: Tensor) -> Tensor:
    """What the family's image processor makes of each frame [frame, patch, colour, 2, rows and columns]; it shows an image twice."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    size = {"shortest_edge": SIDE**2, "longest_edge": SIDE**2}
    processor = Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, size=size)
    shown = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    found = processor(shown, return_tensors="np")
    assert found["image_grid_thw"].tolist() == [[1, 6, 6]] * len(frames)
    return torch.as_tensor(np.asarray(found["pixel_values"])).reshape(len(frames), 36, 3, 2, -1)


def test_patches_are_those_of_the_image_processor(backbone: Qwen2_5VLBackbone) -> None:
    """Of two clips of three frames each: the first of a pair comes before the second, and the odd last one is paired with itself."""
    frames = clip_of(backbone, 3, clips=2)
    single = pictures(frames.flatten(0, 1)).reshape(2, 3, 36, 3, 2, -1)
    pairs = torch.stack([torch.stack([single[:, 0, :, :, 0], single[:, 1, :, :, 1]], 3), single[:, 2]], 1)
    assert (backbone.patches(frames) - pairs.reshape(2 * 2 * 36, -1)).abs().max() <= 1e-6


def test_frames_of_another_size_are_resized_as_the_image_processor_does(backbone: Qwen2_5VLBackbone) -> None:
    """For squares, which the family resizes to the same size as we do."""
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 7, 7) * 255, size=(57, 57), mode="bilinear").to(torch.uint8)
    ours = backbone.patches(backbone.resize(smooth)[:, None]).reshape(2, 36, 3, 2, -1)
    assert (ours - pictures(smooth)).abs().max() <= 1.01 / 255 / min(backbone.std), "bytes may be rounded to neighbouring ones"


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_placeholder_is_the_text_of_the_processor(backbone: Qwen2_5VLBackbone, count: int) -> None:
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

    processor = SimpleNamespace(video_token="<|video_pad|>", video_processor=SimpleNamespace(merge_size=2))
    grid = np.array([[(count + 1) // 2, 6, 6]])
    video = Qwen2_5_VLProcessor.replace_video_token(processor, {"video_grid_thw": grid}, 0)  # type: ignore[arg-type]
    opening = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    text = f"{opening}<|vision_start|>{video}<|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    times = tuple(float(place) for place in range(count))
    assert conversation(backbone, times) == text
    assert row_of(backbone, times)[0].tolist() == backbone.tokenizer.encode(text), "split at the same places"
    with torch.no_grad():
        features = backbone.video_features(clip_of(backbone, count))
    assert backbone.video_placeholder(times).count(backbone.video_token) == features.tokens.shape[1] == (count + 1) // 2 * 9
    assert features.frames.shape == (1, count, 36, 32)


def rule(backbone: Qwen2_5VLBackbone, ids: Tensor, times_sec: Sequence[float]) -> Tensor:
    """Positions of a whole row as transformers has them, from what the processor says of a clip of 40 frames a second."""
    from transformers.video_utils import VideoMetadata

    gap = times_sec[1] - times_sec[0] if len(times_sec) > 1 else 1.0
    metadata = VideoMetadata(total_num_frames=round(40 * gap * len(times_sec)), fps=40, frames_indices=list(range(len(times_sec))))
    side = backbone.image_size // PATCH
    found, _ = backbone.model.model.get_rope_index(
        ids,
        mm_token_type_ids=2 * (ids == backbone.video_token).int(),
        video_grid_thw=torch.tensor([[-(-len(times_sec) // 2), side, side]]),
        second_per_grid_ts=torch.tensor([2 / metadata.sampled_fps]),
    )
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("gap", [0.1, 0.4, 1.0, 7.3])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("size", [8, 24, 40])
def test_positions_are_those_of_get_rope_index(folder: Path, size: int, count: int, gap: float) -> None:
    backbone = loaded(folder, image_size=size)
    times = tuple(0.5 * gap + gap * place for place in range(count))
    ids = row_of(backbone, times)
    found = backbone.positions(ids, torch.arange(ids.shape[1])[None], [times])
    assert torch.equal(found, rule(backbone, ids, times))


def test_positions_by_hand(backbone: Qwen2_5VLBackbone) -> None:
    """Two grids of 3 x 3 that lie two seconds, four positions, apart; the words go on three positions after the clip's first one."""
    ids = row_of(backbone, TIMES)
    first = ids[0].tolist().index(backbone.video_token)
    found = backbone.positions(ids, torch.arange(ids.shape[1])[None], [TIMES])[:, 0]
    assert found[:, :first].tolist() == [list(range(first))] * 3
    clip = found[:, first : first + 18] - first
    assert clip[0].tolist() == [0] * 9 + [4] * 9
    assert clip[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 2
    assert clip[2].tolist() == [0, 1, 2] * 6
    words = ids.shape[1] - first - 18
    assert found[:, first + 18 :].tolist() == [list(range(first + 3, first + 3 + words))] * 3


def test_questions_that_share_a_clip_start_at_the_same_position_and_slots_have_the_next_ones(backbone: Qwen2_5VLBackbone) -> None:
    bench = checks.Bench.of(backbone)
    shared = replace(bench.row, samples=bench.row.samples + bench.other.samples)
    batch = bench.batch(shared, bench.other)
    found = backbone.positions(batch.ids, batch.positions, [row.clip.times_sec for row in batch.rows])
    second = int((batch.segment[0] == 2).nonzero()[0])
    prefix = int((batch.segment[0] == 0).sum())
    assert torch.equal(found[:, 0, second], found[:, 0, prefix])
    alone = batch.segment[1] >= 0
    assert torch.equal(found[:, 1, alone][:, prefix:], found[:, 0, batch.segment[0] == 2]), "as in a row of its own"
    slots = batch.is_slot[0].nonzero()[:, 0]
    assert len(slots) == 1 and torch.equal(found[:, 0, slots], found[:, 0, slots + 1])


def test_answers_about_long_clips_are_read_as_in_training(backbone: Qwen2_5VLBackbone) -> None:
    """A clip of minutes: its last frames lie further on in time than the words that follow."""
    bench = checks.Bench.of(backbone)
    clip = replace(bench.row.clip, times_sec=(0.0, 60.0, 120.0), duration_sec=180.0)
    bench = replace(bench, row=replace(bench.row, clip=clip))
    batch = bench.batch(bench.row)
    positions = backbone.positions(batch.ids, batch.positions, [clip.times_sec])
    assert positions[0, 0].max() > positions[0, 0, -1]
    assert [check(bench).found for check in (checks.task_embedding, checks.cache) if not check(bench).passed] == []


@pytest.mark.parametrize("size", [8, 16, 24, 56])
@pytest.mark.parametrize("window", [8, 16, 24, 64])
def test_cells_are_read_in_the_order_of_the_windows(folder: Path, size: int, window: int) -> None:
    from transformers.vision_utils import get_vision_window_index

    backbone = loaded(folder, image_size=size)
    backbone.model.config.vision_config.window_size = window
    grid = torch.tensor([[1, size // PATCH, size // PATCH]])
    expected, _ = get_vision_window_index(grid, spatial_merge_size=2, window_size=window, patch_size=PATCH)
    assert backbone._cell_order().tolist() == expected.tolist()


@pytest.mark.parametrize(("frame", "row", "column"), [(0, 0, 5), (1, 5, 1), (2, 3, 4), (3, 4, 0)])
def test_patches_and_tokens_lie_in_row_major_order(backbone: Qwen2_5VLBackbone, frame: int, row: int, column: int) -> None:
    patch, token = most_changed(backbone, frame, 4, PATCH, row, column)
    pair = frame // 2
    assert patch.tolist() == [2 * pair, row * 6 + column], "the first frame of the pair has the same as the second"
    assert int(token) == pair * 9 + row // 2 * 3 + column // 2


def test_frame_features_are_the_states_before_the_merger(backbone: Qwen2_5VLBackbone) -> None:
    with torch.no_grad():
        found = backbone.video_features(clip_of(backbone, 4))
        grids = found.frames[0, ::2].reshape(2, 3, 2, 3, 2, 32).transpose(2, 3).reshape(-1, 32)
        assert torch.allclose(backbone.model.model.visual.merger(grids), found.tokens[0], atol=1e-6)
    assert torch.equal(found.frames[:, 0], found.frames[:, 1]) and not torch.equal(found.frames[:, 1], found.frames[:, 2])


def test_an_odd_last_frame_is_paired_with_itself(backbone: Qwen2_5VLBackbone) -> None:
    frames = clip_of(backbone, 3)
    with torch.no_grad():
        odd = backbone.video_features(frames)
        even = backbone.video_features(torch.cat([frames, frames[:, -1:]], 1))
    assert torch.equal(odd.tokens, even.tokens) and torch.equal(odd.frames, even.frames[:, :3])


def test_cached_reading_equals_reading_at_once(backbone: Qwen2_5VLBackbone) -> None:
    inputs = inputs_of(backbone, TIMES)
    with torch.no_grad():
        whole, _ = backbone.language_model(inputs, mask=None)
    assert torch.allclose(read_in_steps(backbone, inputs, last=5), whole, atol=1e-5)


def test_words_that_follow_have_one_position_on_all_axes(backbone: Qwen2_5VLBackbone) -> None:
    positions = torch.tensor([[7, 8], [3, 4]])
    written = backbone.written(torch.tensor([[40, 41], [42, 43]]), positions)
    assert written.positions.tolist() == [positions.tolist()] * 3


def test_lora_leaves_the_tower_alone_whose_layers_have_the_same_names(backbone: Qwen2_5VLBackbone) -> None:
    pattern = backbone.lora_targets(Lora().targets)
    linear = [name for name, module in backbone.model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert {name for name in linear if re.fullmatch(pattern, name)} == {name for name in linear if name.startswith("model.language_model.")}
    overlapping = {name for name in linear if name.startswith("model.visual.") and name.endswith(Lora().targets)}
    assert overlapping == {f"model.visual.blocks.{block}.mlp.{name}_proj" for block in range(3) for name in ("gate", "up", "down")}


def test_the_merger_is_the_connector(backbone: Qwen2_5VLBackbone) -> None:
    named = [name for name, _ in backbone.model.named_parameters()]
    connector = {name for name in named if name.startswith(backbone.parts()["connector"])}
    assert connector == {name for name in named if name.startswith("model.visual.merger.")} and len(connector) == 5


def test_frames_are_twelve_cells_wide_where_nothing_is_said(backbone: Qwen2_5VLBackbone) -> None:
    del backbone.model.config.vision_config.image_size
    assert Qwen2_5VLBackbone(backbone.model, backbone.tokenizer, name="x", num_frames=2).image_size == 12 * 2 * PATCH
    backbone.model.config.vision_config.patch_size = 14
    del backbone.model.config.vision_config.image_size
    assert Qwen2_5VLBackbone(backbone.model, backbone.tokenizer, name="x", num_frames=2).image_size == 336


def test_the_image_size_is_saved(folder: Path, tmp_path: Path) -> None:
    loaded(folder, image_size=40).save(tmp_path / "a")
    again = loaded(tmp_path / "a")
    assert (again.image_size, again.cells_per_frame) == (40, 25)
    assert again.output_rows is again.embedding.weight, "still tied"


@pytest.mark.parametrize("size", [0, -8, 20, 25])
def test_sizes_that_leave_a_rest_are_refused(folder: Path, size: int) -> None:
    with pytest.raises(UsageError, match=f"image_size: expected a multiple of 8, .*got {size}"):
        loaded(folder, image_size=size)


@pytest.mark.parametrize(
    ("config", "hint"),
    [(None, ""), ({"model_type": "qwen2"}, r"That is a qwen2 model\."), ({"model_type": "unheard-of"}, "unheard-of")],
)
def test_other_folders_are_refused_in_one_sentence(tmp_path: Path, config: dict[str, str] | None, hint: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=rf"^backbone: expected a folder or hub id of Qwen2\.5-VL, got '{tmp_path}'.*{hint}") as caught:
        load(str(tmp_path), num_frames=2)
    assert "\n" not in str(caught.value)
