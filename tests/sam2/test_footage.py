"""Following through files: the same as in memory, both ways, flat in memory, and honest about what does not decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.sam2 import Prompt, Tracker, nano_config, untrained
from tpo_lab.sam2.footage import FRAMES_AT_ONCE, follow_footage
from tpo_lab.video.pyav import PyAVSource
from tpo_lab.video.writer import write_clip


class Reel:
    """Frames in memory as a source; some may be corrupt."""

    def __init__(self, frames: NDArray[np.uint8], corrupt: Sequence[int] = ()) -> None:
        self.frames, self.corrupt = frames, set(corrupt)
        self.decoded: list[int] = []

    @property
    def times_sec(self) -> NDArray[np.float64]:
        return np.arange(len(self.frames)) / 4

    @property
    def duration_sec(self) -> float:
        return len(self.frames) / 4

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def decode(self, frames: Sequence[int], fit: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Iterator[tuple[int, object]]:
        self.decoded.append(len(frames))
        for frame in sorted(frames):
            yield frame, "is marked corrupt" if frame in self.corrupt else fit(self.frames[frame])


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    torch.manual_seed(0)
    sam = untrained(nano_config()).eval()
    torch.nn.init.constant_(sam.mask_decoder.pred_obj_score_head.proj_out.bias, 5.0)
    return Tracker(sam)


def reel(frames: int, size: tuple[int, int] = (64, 64), corrupt: Sequence[int] = ()) -> Reel:
    return Reel(np.random.default_rng(0).integers(0, 256, (frames, *size, 3), dtype=np.uint8), corrupt)


def boxed(tracker: Tracker) -> Callable[[tuple[int, int]], list[Prompt]]:
    return lambda size: [tracker.prompt_boxes(torch.tensor([[10.0, 10, 40, 40]]))]


def test_it_equals_tracking_in_memory_both_ways(tracker: Tracker) -> None:
    source = reel(12)
    found = {each.frame: each for each in follow_footage(tracker, source, boxed(tracker), at=5)}
    assert list(found) == [*range(5, 12), *range(4, -1, -1)]
    features = tracker.encode(torch.from_numpy(source.frames).permute(0, 3, 1, 2))
    rows = [features.rows(slice(n, n + 1)) for n in range(12)]
    bank = tracker.bank(12)
    with torch.no_grad():
        wanted = {5: tracker.start(5, rows[5], boxed(tracker)((64, 64))[0], bank)}
        wanted |= dict(tracker.track(((n, rows[n]) for n in range(6, 12)), bank))
        wanted |= dict(tracker.track(((n, rows[n]) for n in range(4, -1, -1)), bank, backward=True))
    for number, masks in wanted.items():
        torch.testing.assert_close(found[number].logits, masks.logits, atol=1e-5, rtol=1e-5)
        assert found[number].time_sec == number / 4


def test_masks_have_the_size_of_the_frames_and_none_where_the_object_is_gone(tracker: Tracker) -> None:
    each = next(iter(follow_footage(tracker, reel(3, (48, 80)), boxed(tracker))))
    assert each.size == (48, 80) and each.masks().shape == (1, 48, 80)
    gone = type(each)(each.frame, each.time_sec, torch.full_like(each.logits, 9.0), torch.tensor([-1.0]), each.size)
    there = type(each)(each.frame, each.time_sec, torch.full_like(each.logits, 9.0), torch.tensor([1.0]), each.size)
    assert not gone.masks().any() and there.masks().all()


def test_it_reads_on_as_it_goes(tracker: Tracker) -> None:
    source = reel(3 * FRAMES_AT_ONCE)
    walk = follow_footage(tracker, source, boxed(tracker))
    for _ in range(FRAMES_AT_ONCE):
        next(walk)
    assert source.decoded == [FRAMES_AT_ONCE], "nothing is decoded before it is needed"
    next(walk)
    assert source.decoded == [FRAMES_AT_ONCE] * 2


def test_corrupt_frames_are_told_or_left_out(tracker: Tracker) -> None:
    with pytest.raises(UsageError, match=r"the frame at 0\.500 s is marked corrupt"):
        list(follow_footage(tracker, reel(5, corrupt=[2]), boxed(tracker)))
    found = list(follow_footage(tracker, reel(5, corrupt=[2]), boxed(tracker), on_corrupt="drop"))
    assert [each.frame for each in found] == [0, 1, 3, 4]
    with pytest.raises(UsageError, match="to prompt"):
        list(follow_footage(tracker, reel(5, corrupt=[0]), boxed(tracker), on_corrupt="drop"))


@pytest.mark.parametrize("wrong", [{"at": 5}, {"at": -1}, {"at": 1, "first": 2}, {"last": 9}])
def test_frames_outside_the_video_are_refused(tracker: Tracker, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="5 frames"):
        list(follow_footage(tracker, reel(5), boxed(tracker), **wrong))
    with pytest.raises(UsageError, match="on_corrupt"):
        list(follow_footage(tracker, reel(5), boxed(tracker), on_corrupt="warn"))


def test_objects_prompted_in_several_ways_are_followed_as_each_would_be_alone(tracker: Tracker) -> None:
    def point(size: tuple[int, int]) -> list[Prompt]:
        return [tracker.prompt_points(torch.tensor([[[20.0, 30]]]), torch.tensor([[1]]))]

    def both(size: tuple[int, int]) -> list[Prompt]:
        return boxed(tracker)(size) + point(size)

    together = list(follow_footage(tracker, reel(8), both, at=3))
    alone = [list(follow_footage(tracker, reel(8), each, at=3)) for each in (boxed(tracker), point)]
    for place, found in enumerate(together):
        for row, single in enumerate(each[place] for each in alone):
            torch.testing.assert_close(found.logits[row], single.logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.there[row], single.there[0], atol=1e-4, rtol=1e-4)
    assert not torch.equal(together[0].logits[0], together[0].logits[1])


def test_frames_of_another_size_are_refused(tracker: Tracker) -> None:
    source = reel(5)
    source.frames = [*source.frames[:3], *reel(2, (32, 64)).frames]
    with pytest.raises(UsageError, match=r"one height and width, \(64, 64\) as the first, got \(32, 64\)"):
        list(follow_footage(tracker, source, boxed(tracker)))


def test_a_real_file_is_followed(tracker: Tracker, tmp_path: Path) -> None:
    frames = reel(20).frames
    write_clip(tmp_path / "clip.mp4", frames, 4.0)
    found = list(follow_footage(tracker, PyAVSource(tmp_path / "clip.mp4"), boxed(tracker), at=3, first=1, last=6))
    assert [each.frame for each in found] == [3, 4, 5, 6, 2, 1]
    assert [each.time_sec for each in found] == [0.75, 1.0, 1.25, 1.5, 0.5, 0.25]
