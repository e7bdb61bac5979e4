"""Frames on disk: what was put is found again, by no other key, and never half or damaged."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.loading.small_films import SIDE, small_backbone
from tpo_lab.clips import ClipLoader
from tpo_lab.errors import UsageError
from tpo_lab.frame_files import FrameFiles
from tpo_lab.heads.base import ClipInfo
from tpo_lab.media import Frames
from tpo_lab.sample import Sample

CLIP = ClipInfo(48, 36, 2.7, (0.1, 1 / 3, 2.0))


def pixels(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 5, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def only(folder: Path) -> Path:
    (found,) = [path for path in folder.rglob("*") if path.is_file()]
    return found


def test_what_was_put_is_found_bit_by_bit_and_by_its_key_alone(tmp_path: Path) -> None:
    files = FrameFiles(tmp_path / "cache")
    files.put("a|1", pixels(), CLIP)
    frames, clip = FrameFiles(tmp_path / "cache").get("a|1")
    assert torch.equal(frames, pixels()) and frames.dtype == torch.uint8 and clip == CLIP
    assert files.get("a|2") is None


def test_frames_that_are_a_view_are_written_as_they_look(tmp_path: Path) -> None:
    files, view = FrameFiles(tmp_path), pixels().transpose(2, 3)[1:]
    files.put("k", view, CLIP)
    assert torch.equal(files.get("k")[0], view)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.99])
def test_a_cut_file_counts_as_missing_and_is_written_again(tmp_path: Path, share: float) -> None:
    files = FrameFiles(tmp_path)
    files.put("k", pixels(), CLIP)
    path = only(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert files.get("k") is None
    files.put("k", pixels(), CLIP)
    assert path.read_bytes() == whole


def test_a_file_with_any_flipped_byte_counts_as_missing_or_says_the_same(tmp_path: Path) -> None:
    files = FrameFiles(tmp_path)
    files.put("k", pixels(), CLIP)
    path = only(tmp_path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        found = files.get("k")
        assert found is None or torch.equal(found[0], pixels())
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert files.get("k") is None


def test_the_file_of_another_clip_under_this_name_counts_as_missing(tmp_path: Path) -> None:
    files = FrameFiles(tmp_path)
    files.put("other", pixels(), CLIP)
    path = only(tmp_path)
    files.put("k", pixels(1), CLIP)
    mine = next(found for found in tmp_path.rglob("*.safetensors") if found != path)
    shutil.copy(path, mine)
    assert files.get("k") is None


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match=r"frame_cache: expected a folder, new or of earlier frames, got '.*f, a file'"):
        FrameFiles(tmp_path / "f")


def test_where_writing_fails_it_warns_once_and_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FrameFiles(tmp_path)
    files.put("k", pixels(), CLIP)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tpo_lab.frame_files.save_file", full)
    with pytest.warns(UserWarning, match="no more frames are written there .*No space left on device"):
        files.put("m", pixels(), CLIP)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.put("n", pixels(), CLIP)
    assert files.get("k") is not None and files.get("m") is None
    assert only(tmp_path).suffix == ".safetensors"


def write_often(folder: str, seed: int) -> None:
    files = FrameFiles(folder)
    for _ in range(60):
        files.put("k", pixels(seed), CLIP)


def test_processes_that_write_one_clip_never_show_half_of_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    files = FrameFiles(tmp_path)
    files.put("k", pixels(0), CLIP)
    writers = [context.Process(target=write_often, args=(str(tmp_path), seed)) for seed in range(2)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers) or not reads:
        found = files.get("k")
        assert found is not None and any(torch.equal(found[0], pixels(seed)) for seed in range(2))
        reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert only(tmp_path).suffix == ".safetensors"


class TestInALoader:
    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        import tpo_lab.video

        real, made = tpo_lab.video.read_clip, []

        def counted(path: Any, **settings: Any) -> Any:
            made.append(path)
            return real(path, **settings)

        monkeypatch.setattr("tpo_lab.video.read_clip", counted)
        return made

    def test_a_clip_is_decoded_once_and_its_row_stays_the_same(self, films: list[Sample], tmp_path: Path, reads: list[Any]) -> None:
        rows = [Frames(small_backbone(), files=FrameFiles(tmp_path)).row(films[:1]) for _ in range(3)]
        plain = Frames(small_backbone()).row(films[:1])
        assert len(reads) == 2
        assert all(torch.equal(row.frames, plain.frames) and (row.clip, row.key) == (plain.clip, plain.key) for row in rows)

    def test_another_state_sampling_part_or_resize_is_another_clip(self, films: list[Sample], tmp_path: Path, reads: list[Any]) -> None:
        name = films[0].media.path
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(films[0].media_path, tmp_path / name)
        sample, files = films[0].at(tmp_path), FrameFiles(tmp_path / "cache")
        ClipLoader(small_backbone(), files=files).clip(sample)
        part = sample.model_copy(update={"media": sample.media.model_copy(update={"start_sec": 1.0})}).at(tmp_path)
        ClipLoader(small_backbone(), files=files).clip(part)
        more = small_backbone()
        more.num_frames = 4
        ClipLoader(more, files=files).clip(sample)
        other = small_backbone()
        other.resize = lambda frames: frames[..., :SIDE, -SIDE:]
        ClipLoader(other, files=files).clip(sample)
        os.utime(tmp_path / name, ns=(1, 1))
        ClipLoader(small_backbone(), files=files).clip(sample)
        assert len(reads) == 5
        ClipLoader(small_backbone(), files=files).clip(sample)
        assert len(reads) == 5

    def test_a_changed_image_of_a_pattern_is_seen(self, tmp_path: Path, reads: list[Any]) -> None:
        for place in range(3):
            Image.new("RGB", (24, 22), (place * 60, 0, 0)).save(tmp_path / f"{place}.png")
        turns = [{"role": "user", "text": "?"}]
        sample = Sample.model_validate({"id": "one", "media": {"path": "*.png"}, "conversation": turns}).at(tmp_path)
        files = FrameFiles(tmp_path / "cache")
        first = ClipLoader(small_backbone(), files=files).clip(sample)
        assert ClipLoader(small_backbone(), files=files).clip(sample).frames.equal(first.frames) and len(reads) == 1
        Image.new("RGB", (24, 22), (7, 0, 0)).save(tmp_path / "1.png")
        assert ClipLoader(small_backbone(), files=files).clip(sample).frames[1, 0, 0, 0] == 7 and len(reads) == 2

    def test_repaired_clips_are_not_kept(self, films: list[Sample], tmp_path: Path) -> None:
        """A later run that refuses damaged frames must not find what a lenient one made of them."""
        path = tmp_path / "cut.mp4"
        whole = films[0].media_path.read_bytes()
        path.write_bytes(whole)
        sample = films[0].model_copy(update={"media": films[0].media.model_copy(update={"path": "cut.mp4"})}).at(tmp_path)
        # bytes of the last pictures
        begin = whole.find(b"mdat") + (len(whole) - whole.find(b"mdat")) * 4 // 5
        places = range(begin, begin + 60)
        path.write_bytes(bytes(byte ^ 0x5A if place in places else byte for place, byte in enumerate(whole)))
        files = FrameFiles(tmp_path / "cache")
        lenient, strict = (ClipLoader(small_backbone(), files=files, on_corrupt=policy) for policy in ("drop", "raise"))
        with pytest.raises(UsageError):
            strict.clip(sample)
        lenient.clip(sample)
        assert not list((tmp_path / "cache").rglob("*.safetensors"))
        with pytest.raises(UsageError):
            strict.clip(sample)
