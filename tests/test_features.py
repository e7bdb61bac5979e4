"""The feature cache equals the encoder, whatever it is asked for and whatever it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tpo_lab.batch import Row
from tpo_lab.clips import ClipLoader
from tpo_lab.errors import UsageError
from tpo_lab.features import FeatureCache
from tpo_lab.heads import Head
from tpo_lab.heads.base import Visual
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import Media, Sample


class Patches(Head[Tensor, Tensor]):
    """A head that needs the tower's patches."""

    name = "patches"
    needs = frozenset({"frame_features"})

    def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
        return task_embedding

    def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def rows(tiny: TPOModel, world: Callable[..., list[Sample]]) -> list[Row]:
    frames = Frames(tiny.backbone)
    found = [frames.row(world(index, "conversation")[:1]) for index in range(3)]
    return [*found, Row(found[0].frames[:1], replace(found[0].clip, times_sec=(0.0,)), found[0].samples, "image")]


@pytest.fixture
def encoded(tiny: TPOModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the rows that the model encodes, in order."""
    keys: list[str] = []
    encode = tiny.encode_video

    def counted(rows: list[Row]) -> Any:
        keys.extend(row.key for row in rows)
        return encode(rows)

    monkeypatch.setattr(tiny, "encode_video", counted)
    return keys


def test_cached_features_are_the_encoders_to_half_precision(tiny: TPOModel, rows: list[Row]) -> None:
    with torch.no_grad():
        direct = tiny.encode_video(rows)
    for expected, found in zip(direct, FeatureCache(tiny)(rows), strict=True):
        assert found.tokens.dtype == torch.float32
        assert torch.allclose(found.tokens, expected.tokens, rtol=1e-3, atol=1e-5)
        assert found.tokens.shape == expected.tokens.shape


def test_model_gives_the_same_with_cached_features(tiny: TPOModel, rows: list[Row]) -> None:
    batch = tiny.collate(rows)
    with torch.no_grad():
        assert torch.allclose(tiny(batch, FeatureCache(tiny)(rows)).logits, tiny(batch).logits, atol=2e-2)


def test_each_clip_is_encoded_once(tiny: TPOModel, rows: list[Row], encoded: list[str]) -> None:
    cache = FeatureCache(tiny)
    cache([rows[0], rows[1], rows[0]])
    found = cache([rows[3], rows[1]])
    assert encoded == [rows[0].key, rows[1].key, "image"]
    assert [len(features.frames[0]) for features in found] == [1, 4]


def test_features_do_not_depend_on_the_batch_or_on_what_is_held(tiny: TPOModel, rows: list[Row]) -> None:
    full, empty = FeatureCache(tiny), FeatureCache(tiny, limit_bytes=0)
    full(rows[:2])
    for first, second in zip(full(rows), empty(rows[::-1])[::-1], strict=True):
        assert torch.equal(first.tokens, second.tokens)


def test_a_full_cache_encodes_again_and_gives_the_same(tiny: TPOModel, rows: list[Row], encoded: list[str]) -> None:
    (one,) = FeatureCache(tiny)(rows[:1])
    encoded.clear()
    cache = FeatureCache(tiny, limit_bytes=one.tokens.numel() * 2)
    first, second = cache(rows[:2]), cache(rows[:2])
    assert encoded == [rows[0].key, rows[1].key, rows[1].key]
    assert all(torch.equal(before.tokens, after.tokens) for before, after in zip(first, second, strict=True))


def test_patches_are_kept_only_for_a_head_that_needs_them(build_tiny: Callable[..., TPOModel], rows: list[Row]) -> None:
    (without,) = FeatureCache(build_tiny())(rows[:1])
    (kept,) = FeatureCache(build_tiny([Patches(64)]))(rows[:1])
    assert (without.frames.numel(), kept.frames.shape) == (0, (1, 4, 64, 32))
    assert kept.frames.any()


def test_cache_takes_no_gradient_encodes_in_evaluation_mode_and_leaves_the_mode(tiny: TPOModel, rows: list[Row]) -> None:
    tower = tiny.backbone.model.model.vision_tower
    tower.dropout = nn.Dropout(0.9)
    tower.register_forward_hook(
        lambda module, args, output: setattr(output, "hidden_states", tuple(map(tower.dropout, output.hidden_states)))
    )
    tiny.train()
    (found,) = FeatureCache(tiny)(rows[:1])
    assert not found.tokens.requires_grad
    assert tiny.training and tower.dropout.training
    (expected,) = tiny.eval().encode_video(rows[:1])
    assert torch.allclose(found.tokens, expected.tokens, rtol=1e-3, atol=1e-5), "dropout must not be frozen into the features"


def test_frames_are_kept_up_to_the_limit(tiny: TPOModel, world: Callable[..., list[Sample]], monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = ClipLoader.clip
    monkeypatch.setattr(ClipLoader, "clip", lambda self, sample: loads.append(sample.media.path) or load(self, sample))
    clips = [world(index, "conversation")[:1] for index in (0, 1, 0, 1)]
    size = Frames(tiny.backbone).row(clips[0]).frames.nbytes
    for limit, expected in ((2 * size, 2), (size, 3), (0, 4)):
        loads.clear()
        frames = Frames(tiny.backbone, limit_bytes=limit)
        rows = [frames.row(clip) for clip in clips]
        assert len(loads) == expected
        assert torch.equal(rows[0].frames, rows[2].frames) and rows[0].clip == rows[2].clip


def test_a_row_is_about_one_clip(tiny: TPOModel, world: Callable[..., list[Sample]]) -> None:
    with pytest.raises(UsageError, match=r"samples: expected samples about one clip, got \['world://.*/0/.*world://.*/1/"):
        Frames(tiny.backbone).row([*world(0, "conversation")[:1], *world(1, "conversation")[:1]])


def test_frames_of_the_world_are_at_the_centres_of_equal_parts(tiny: TPOModel, world: Callable[..., list[Sample]]) -> None:
    row = Frames(tiny.backbone).row(world(0, "region"))
    assert row.clip.times_sec == (0.5, 1.5, 2.5, 3.5)
    assert (row.frames.dtype, row.frames.shape) == (torch.uint8, (4, 3, 64, 64))
    assert len(row.samples) > 1


@pytest.mark.parametrize("path", ["world://train/standard/0", "world://train/standard/0/0/two-five", "world://train/standard/x/0/1-2"])
def test_a_damaged_reference_to_the_world_is_refused(tiny: TPOModel, world: Callable[..., list[Sample]], path: str) -> None:
    (sample,) = world(0, "conversation")[:1]
    broken = sample.model_copy(update={"media": sample.media.model_copy(update={"path": path})})
    with pytest.raises(UsageError, match=rf"media\.path: expected world://split/level/seed/index/lowest-highest, got '{path}'"):
        Frames(tiny.backbone).row([broken])


class TestDisk:
    def test_another_process_finds_what_one_has_encoded(self, tiny: TPOModel, rows: list[Row], encoded: list[str], tmp_path: Path) -> None:
        first = FeatureCache(tiny, folder=tmp_path / "kept")(rows)
        assert len(encoded) == len(rows)
        encoded.clear()
        second = FeatureCache(tiny, folder=tmp_path / "kept")(rows)
        assert encoded == []
        assert all(torch.equal(one.tokens, two.tokens) for one, two in zip(first, second, strict=True))

    def test_other_weights_of_the_vision_side_are_another_model_and_those_of_a_head_are_not(
        self, tiny: TPOModel, rows: list[Row], encoded: list[str], tmp_path: Path
    ) -> None:
        parts = tiny.named_parts()
        FeatureCache(tiny, folder=tmp_path)(rows[:1])
        for changed, again in (("heads.", 0), ("tokens.", 0), ("llm.base.", 0), ("vision.", 1), ("connector.", 1)):
            encoded.clear()
            with torch.no_grad():
                next(parameter for name, parameter in parts.items() if name.startswith(changed)).add_(1e-4)
            FeatureCache(tiny, folder=tmp_path)(rows[:1])
            assert len(encoded) == again, changed

    def test_another_file_under_the_same_name_is_another_clip(
        self, tiny: TPOModel, world: Callable[..., list[Sample]], encoded: list[str], tmp_path: Path
    ) -> None:
        from tpo_lab.video import write_clip

        def clip(grey: int) -> Row:
            write_clip(tmp_path / "a.mp4", np.full((8, 64, 64, 3), grey, dtype=np.uint8), fps=4)
            media = Media(path="a.mp4")
            return Frames(tiny.backbone).row([world(0, "conversation")[0].model_copy(update={"media": media}).at(tmp_path)])

        (dark,) = FeatureCache(tiny, folder=tmp_path / "kept")([clip(10)])
        (light,) = FeatureCache(tiny, folder=tmp_path / "kept")([clip(240)])
        assert len(encoded) == 2 and not torch.equal(dark.tokens, light.tokens)

    def test_a_damaged_file_is_made_anew(self, tiny: TPOModel, rows: list[Row], encoded: list[str], tmp_path: Path) -> None:
        (expected,) = FeatureCache(tiny, folder=tmp_path)(rows[:1])
        (path,) = tmp_path.rglob("*.safetensors")
        path.write_bytes(path.read_bytes()[:100])
        (found,) = FeatureCache(tiny, folder=tmp_path)(rows[:1])
        assert len(encoded) == 2 and torch.equal(found.tokens, expected.tokens)
        assert len(path.read_bytes()) > 100

    def test_features_without_patches_do_not_serve_a_head_that_needs_them(
        self, build_tiny: Callable[..., TPOModel], rows: list[Row], tmp_path: Path
    ) -> None:
        (without,) = FeatureCache(build_tiny(), folder=tmp_path)(rows[:1])
        (kept,) = FeatureCache(build_tiny([Patches(64)]), folder=tmp_path)(rows[:1])
        (again,) = FeatureCache(build_tiny(), folder=tmp_path)(rows[:1])
        assert (without.frames.numel(), kept.frames.shape, again.frames.numel()) == (0, (1, 4, 64, 32), 0)

    def test_a_file_in_place_of_the_folder(self, tiny: TPOModel, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("text")
        with pytest.raises(UsageError, match=r"feature_cache: expected a folder, new or of earlier features, got .*notes\.txt, a file"):
            FeatureCache(tiny, folder=tmp_path / "notes.txt")
