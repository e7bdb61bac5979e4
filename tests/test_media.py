from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tpo_lab.datasets.world.render import render
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.datasets.world.synth import synthesise
from tpo_lab.errors import UsageError
from tpo_lab.media import Frames, media_key
from tpo_lab.sample import Sample, read


def backbone(num_frames: int = 8, image_size: int = 64) -> SimpleNamespace:
    """The part of a backbone that looks at frames; counts how often it is asked to resize."""
    asked = []

    def resize(frames: torch.Tensor) -> torch.Tensor:
        asked.append(frames.shape)
        return frames[..., :image_size, :image_size]

    return SimpleNamespace(num_frames=num_frames, image_size=image_size, resize=resize, asked=asked)


def sample_about(path: str, start: float = 0.0, end: float | None = 4.0) -> Sample:
    turns = [{"role": "user", "text": "What is it?"}, {"role": "assistant", "text": "A ball."}]
    return Sample.model_validate({"id": "one", "media": {"path": path, "start_sec": start, "end_sec": end}, "conversation": turns})


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> list[Sample]:
    return read(synthesise(tmp_path_factory.mktemp("world"), samples=12, split="val", tasks=("conversation",)))


@pytest.mark.parametrize("num_frames", [1, 3, 4, 8, 16, 20])
def test_a_reference_and_its_file_give_the_same_row(num_frames, on_disk):
    for sample in {sample.media.path: sample for sample in on_disk}.values():
        drawn = Frames(backbone(num_frames)).row([sample_about(sample.meta["scene"])])
        decoded = Frames(backbone(num_frames)).row([sample])
        assert drawn.clip == decoded.clip
        assert len(drawn.clip.times_sec) == num_frames and drawn.clip.duration_sec == 4.0
        error = ((drawn.frames.double() - decoded.frames.double()) ** 2).mean()
        assert 10 * torch.log10(255**2 / error) > 26


@pytest.mark.parametrize(("start", "end"), [(1.0, 3.0), (0.5, None), (2.25, 2.75)])
def test_a_part_of_a_reference_is_that_part_of_its_file(start, end, on_disk):
    part = (
        on_disk[0]
        .model_copy(update={"media": on_disk[0].media.model_copy(update={"start_sec": start, "end_sec": end})})
        .at(on_disk[0].root)
    )
    drawn = Frames(backbone(4)).row([sample_about(on_disk[0].meta["scene"], start, end)])
    decoded = Frames(backbone(4)).row([part])
    assert drawn.clip == decoded.clip and drawn.clip.duration_sec == (end or 4.0) - start


def test_frames_are_those_at_the_centres_of_equal_parts():
    scene = sample_scene(3, split="test")
    row = Frames(backbone(8)).row([sample_about(scene.reference)])
    assert row.clip.times_sec == (0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75)
    assert row.frames.dtype == torch.uint8 and row.frames.shape == (8, 3, 64, 64)
    assert (row.frames.permute(0, 2, 3, 1).numpy() == render(scene, range(1, 16, 2))).all()
    assert (row.clip.width, row.clip.height) == (64, 64)


def test_times_are_those_of_the_frames_and_not_those_asked_for():
    row = Frames(backbone(16)).row([sample_about(sample_scene(0).reference)])
    assert row.clip.times_sec == tuple(frame / 4 for frame in range(16))
    assert Frames(backbone(3)).row([sample_about(sample_scene(0).reference)]).clip.times_sec == (0.5, 2.0, 3.25)


def test_the_clip_keeps_the_size_of_the_original_and_the_row_that_of_the_backbone():
    row = Frames(backbone(image_size=48)).row([sample_about(sample_scene(0).reference)])
    assert row.frames.shape[-2:] == (48, 48) and (row.clip.width, row.clip.height) == (64, 64)


def test_samples_about_one_clip_share_a_row():
    made = samples_of(sample_scene(2))
    row = Frames(backbone()).row(iter(made))
    assert row.samples == tuple(made)
    assert row.key == f"{media_key(made[0])}||8|64" != Frames(backbone(4)).row(made).key


def test_clips_are_loaded_once_if_kept():
    samples = samples_of(sample_scene(2))
    keeping, forgetful, full = backbone(), backbone(), backbone()
    frames = Frames(keeping)
    rows = [frames.row(samples[:1]), frames.row(samples[1:])]
    assert len(keeping.asked) == 1 and rows[0].frames is rows[1].frames
    again = Frames(forgetful, keep=False)
    for _ in range(2):
        again.row(samples)
    assert len(forgetful.asked) == 2
    small = Frames(full, limit_bytes=8 * 3 * 64 * 64)
    for index in (2, 5, 2, 5):
        small.row(samples_of(sample_scene(index)))
    assert len(full.asked) == 3  # the second clip does not fit


def test_media_keys_tell_clips_and_their_parts_apart(tmp_path):
    one = sample_about("a.mp4")
    assert media_key(one) == media_key(sample_about("a.mp4"))
    others = [sample_about("b.mp4"), sample_about("a.mp4", 1.0), sample_about("a.mp4", end=3.0), one.at(tmp_path)]
    assert len({media_key(sample) for sample in (one, *others)}) == 5
    reference = sample_scene(0).reference
    assert media_key(sample_about(reference)) == media_key(sample_about(reference).at(tmp_path)) == f"{reference}|0.0|4.0"


def test_samples_about_different_clips_are_refused():
    samples = [sample_about(sample_scene(index).reference) for index in (1, 2)]
    with pytest.raises(
        UsageError, match=r"samples: expected samples about one clip, got \['world://train/standard/0/1/.*, 'world://train/standard/0/2/"
    ):
        Frames(backbone()).row(samples)
    with pytest.raises(UsageError, match=r"samples: expected samples about one clip, got \[\]"):
        Frames(backbone()).row([])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("world://nowhere", "media.path: expected world://split/level/seed/index/lowest-highest, got 'world://nowhere'"),
        ("world://train/standard/0/1/2-x", "got 'world://train/standard/0/1/2-x'"),
        ("world://dev/standard/0/1/2-5", "split: expected one of compositions, test, train, val, got 'dev'"),
        ("world://train/standard/0/1/5-2", r"things: .* got \(5, 2\)"),
    ],
)
def test_bad_references_are_refused(path, message):
    with pytest.raises(UsageError, match=message):
        Frames(backbone()).row([sample_about(path)])


def test_a_part_after_the_end_is_refused():
    with pytest.raises(UsageError, match=r"media.start_sec: expected a time before the end of world://.* at 4 s, got 4.5"):
        Frames(backbone()).row([sample_about(sample_scene(0).reference, 4.5, 5.0)])


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.mp4: expected a video.* got 'no such file'"):
        Frames(backbone()).row([sample_about("gone.mp4").at(Path(tmp_path))])


def test_the_media_say_how_long_an_image_is_shown(tmp_path):
    from PIL import Image

    for place in range(4):
        Image.new("RGB", (6, 4), (place * 60, 0, 0)).save(tmp_path / f"{place:05d}.jpg")
    turns = [{"role": "user", "text": "What is it?"}]
    pattern = {"path": "*.jpg", "fps": 2.0}
    still = {"path": "00003.jpg", "fps": 0.125, "end_sec": 8.0}
    rows = [
        Frames(backbone(4)).row([Sample.model_validate({"id": "one", "media": media, "conversation": turns}).at(tmp_path)])
        for media in (pattern, still)
    ]
    assert [row.clip.duration_sec for row in rows] == [2.0, 8.0]
    assert rows[0].clip.times_sec == (0.0, 0.5, 1.0, 1.5) and torch.equal(rows[1].frames[0], rows[1].frames[3])
    assert len({media_key(row.samples[0]) for row in rows}) == 2
