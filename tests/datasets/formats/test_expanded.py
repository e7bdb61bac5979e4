"""Images as still videos: the clip that a model sees, the track, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tpo_lab.datasets.formats.expanded import as_video
from tpo_lab.errors import UsageError
from tpo_lab.heads.mask.targets import encode_item
from tpo_lab.media import Frames
from tpo_lab.sample import Sample


@pytest.fixture
def image(tmp_path: Path) -> Sample:
    """An image of 20 x 12 pixels of many colours, and where its dog is."""
    from PIL import Image

    Image.linear_gradient("L").resize((20, 12)).convert("RGB").save(tmp_path / "a.png")
    return asked("a.png", [(2, 3, 10, 9)]).at(tmp_path)


def asked(path: str, boxes: list[tuple[float, ...]]) -> Sample:
    turns = [{"role": "user", "text": "Where is the dog?"}, {"role": "assistant", "text": " ".join(["Here", *["<region>"] * len(boxes)])}]
    target = {"region": [{"xyxy": box} for box in boxes]}
    fields = {"id": "as-v2-3", "source": "as-v2", "split": "train", "media": {"path": path}, "conversation": turns, "targets": target}
    return Sample.model_validate({**fields, "meta": {"task": "region", "size": [20, 12], "raw": {"id": 3}}})


@pytest.mark.parametrize(("count", "step_sec"), [(1, 1.0), (4, 1.0), (8, 0.5), (49, 1.0), (75, 0.7), (3, 1 / 3)])
def test_the_clip_has_as_many_equal_frames(image, count, step_sec):
    sample = as_video(image, count, step_sec)
    backbone = SimpleNamespace(num_frames=count, image_size=64, resize=lambda frames: frames)
    row = Frames(backbone).row([sample])
    assert row.frames.shape == (count, 3, 12, 20) and (row.clip.width, row.clip.height) == (20, 12)
    assert all(torch.equal(row.frames[0], frame) for frame in row.frames) and row.frames.unique().numel() > 5
    assert row.clip.duration_sec == count * step_sec == sample.media.end_sec
    seen = encode_item(sample.targets.track.model_dump(), row.clip, 8)
    assert seen.visible.all() and torch.allclose(seen.boxes_xyxy, torch.tensor([0.1, 0.25, 0.5, 0.75])), "every frame has the box"
    assert len(sample.targets.track.times_sec) == count and sample.targets.track.times_sec[-1] == (count - 1) * step_sec


def test_the_box_becomes_prompt_and_track(image, same_from_file):
    sample = as_video(image, 3)
    assert (sample.id, sample.source, sample.split) == ("as-v2-3-video", "as-v2", "train")
    assert sample.media.fps == pytest.approx(1 / 3) and sample.media.end_sec == 3
    assert sample.targets.names == ("track",)
    assert sample.targets.track.times_sec == (0, 1, 2) and sample.targets.track.xyxy == ((2, 3, 10, 9),) * 3
    assert [(each.type, each.time_sec, each.xyxy) for each in sample.prompts] == [("box", 0, (2, 3, 10, 9))]
    assert "<prompt:0>" in sample.conversation[0].text and sample.conversation[1].text == "<track>"
    assert sample.meta == {"task": "mask", "size": [20, 12], "raw": {"id": 3}}
    assert sample.media_path == image.media_path
    same_from_file([image, sample])


def test_an_image_of_a_format_becomes_one(take, tiny):
    samples = take("as-v2", tiny / "as-v2" / "as_v2.json")[0]
    made = as_video(samples[3], 2, 0.5)
    assert made.id == "as-v2-1 #2-turn0-video" and made.targets.track.xyxy[1] == samples[3].targets.region[0].xyxy


@pytest.mark.parametrize(
    ("path", "boxes", "message"),
    [
        ("a.mp4", [(0, 0, 1, 1)], r"sample as-v2-3, media\.path: expected an image file, got 'a\.mp4'"),
        ("a/*.jpg", [(0, 0, 1, 1)], r"got 'a/\*\.jpg'"),
        ("world://a.jpg", [(0, 0, 1, 1)], "got 'world://a.jpg'"),
        ("a.jpg", [], r"sample as-v2-3, targets\.region: expected exactly one box, got 0"),
        ("a.jpg", [(0, 0, 1, 1), (1, 1, 2, 2)], "expected exactly one box, got 2"),
    ],
)
def test_what_is_no_image_with_one_box_is_refused(path, boxes, message):
    with pytest.raises(UsageError, match=message):
        as_video(asked(path, boxes), 4)


@pytest.mark.parametrize(
    ("count", "step_sec", "message"),
    [
        (0, 1.0, "count: expected a whole number from 1 on, got 0"),
        (2.5, 1.0, r"count: .* got 2\.5"),
        (3, 0.0, r"step_sec: expected seconds above 0, got 0\.0"),
        (3, float("nan"), "step_sec: .* got nan"),
    ],
)
def test_a_clip_of_no_length_is_refused(image, count, step_sec, message):
    with pytest.raises(UsageError, match=message):
        as_video(image, count, step_sec)
