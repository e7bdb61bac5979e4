"""Long videos in overlapping windows: what a head with known answers must give, and equality with reading each window alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tpo_lab.errors import UsageError
from tpo_lab.heads import CGDETRHead, CGDETRSettings, ClipInfo, Head, Visual
from tpo_lab.heads.sliding import Sliding, join_answers, mean_inside, plan_windows, slide
from tpo_lab.heads.temporal import SimpleTemporalHead, SimpleTemporalSettings, TemporalPrediction
from tpo_lab.model import clip_visual
from tpo_lab.spans import frame_cells

STEP_SEC, CLIPS = 2.0, 900
SLIDING = Sliding(frames=75, overlap=25)
"""As in QVHighlights: 150 seconds; neighbours share 50 seconds, and windows end every 100."""
WIDTH = 8


@dataclass(frozen=True)
class Seen:
    """What the stub saw: the value of each frame, and the frames' cells."""

    values: Tensor
    times_sec: Tensor
    cells_sec: Tensor


class Reader(Head[Seen, Tensor]):
    """A perfect head: finds each run of frames with a value above 0, as far as its clip shows it, and scores it by that value."""

    name = "temporal"
    variant = "reader"
    needs = frozenset({"frame_features"})

    def predict(self, task_embedding: Tensor, visual: Visual) -> Seen:
        assert visual.frame_features is not None
        cells_sec = frame_cells(visual.times_sec, visual.duration_sec, visual.frame_valid)
        return Seen(visual.frame_features[:, :, 0, 0], visual.times_sec, cells_sec)

    def losses(self, prediction: Seen, target: Tensor) -> dict[str, Tensor]:
        return {}

    def decode(self, prediction: Seen, clips: Any, answer: Tensor) -> list[dict[str, Any]]:
        decoded = []
        for index, clip in enumerate(clips):
            slot = answer.tolist().index(index)
            values, cells = prediction.values[slot].tolist(), prediction.cells_sec[slot]
            assert prediction.times_sec[slot].tolist() == pytest.approx(clip.times_sec)
            runs = [
                (value, [place for place, _ in run]) for value, run in itertools.groupby(enumerate(values), lambda each: each[1]) if value
            ]
            runs.sort(key=lambda each: -each[0])
            decoded.append(
                {
                    "windows_sec": [[float(cells[run[0], 0]), float(cells[run[-1], 1])] for _, run in runs],
                    "scores": [value for value, _ in runs],
                    "saliency": [[time, value] for time, value in zip(clip.times_sec, values, strict=True)],
                    "note": "no one else knows how to join this",
                }
            )
        return decoded


def track(*moments: tuple[int, int, float], clips: int = CLIPS, slots: int = 1) -> tuple[Visual, ClipInfo]:
    """A video of one frame in the middle of every clip, with a value in the frames [first, end) of each moment, and 0 elsewhere."""
    times = tuple(STEP_SEC * place + STEP_SEC / 2 for place in range(clips))
    clip = ClipInfo(width=80, height=60, duration_sec=STEP_SEC * clips, times_sec=times)
    values = torch.zeros(slots, clips, 1, 1)
    for first, end, value in moments:
        values[:, first:end] = value
    return clip_visual([clip] * slots, torch.zeros(slots, dtype=torch.long), torch.device("cpu"), frame_features=values), clip


def found(*moments: tuple[int, int, float], sliding: Sliding = SLIDING, clips: int = CLIPS) -> dict[str, Any]:
    visual, clip = track(*moments, clips=clips)
    return slide(Reader(WIDTH), torch.zeros(1, WIDTH), visual, clip, sliding)


def expected(*moments: tuple[int, int, float]) -> list[tuple[list[float], float]]:
    ranked = sorted(moments, key=lambda moment: -moment[2])
    return [([STEP_SEC * first, STEP_SEC * end], pytest.approx(value)) for first, end, value in ranked]


@pytest.mark.parametrize(
    "moments",
    [
        [(10, 20, 0.5)],  # inside the first window only
        [(55, 60, 0.5)],  # inside two windows
        [(70, 80, 0.5)],  # across the end of the first window
        [(45, 55, 0.5)],  # across the start of the second
        [(0, 7, 0.5)],  # at the beginning
        [(890, 900, 0.5)],  # at the end, where the windows overlap more
        [(0, 1, 0.4), (899, 900, 0.6)],  # at both ends
        [(70, 80, 0.9), (72 + 50, 90 + 50, 0.3)],  # two, both across borders
        [(60, 65, 0.2), (66, 71, 0.8)],  # two, seen by the same two windows
        [(50, 75, 0.5)],  # exactly the overlap
        [],
    ],
)
def test_moments_of_half_an_hour_are_found_once_and_whole(moments: list[tuple[int, int, float]]) -> None:
    answer = found(*moments)
    assert list(zip(answer["windows_sec"], answer["scores"], strict=True)) == expected(*moments)
    values = [0.0] * CLIPS
    for first, end, value in moments:
        values[first:end] = [value] * (end - first)
    assert [time for time, _ in answer["saliency"]] == [STEP_SEC * place + 1 for place in range(CLIPS)]
    assert [value for _, value in answer["saliency"]] == pytest.approx(values)
    assert answer.keys() == {"windows_sec", "scores", "saliency"}


lengths = st.tuples(st.integers(1, 40), st.integers(0, 39)).filter(lambda each: each[1] < each[0])


@given(count=st.integers(0, 200), window=lengths)
@settings(deadline=None)
def test_plan_covers_every_frame_with_windows_of_one_length_and_the_overlap_asked_for(count: int, window: tuple[int, int]) -> None:
    frames, overlap = window
    plan = plan_windows(count, frames, overlap)
    assert {place for each in plan for place in each} == set(range(count))
    if count <= frames:
        assert plan == [range(count)]
        return
    assert {len(each) for each in plan} == {frames}
    shared = [one.stop - other.start for one, other in itertools.pairwise(plan)]
    assert set(shared[:-1]) <= {overlap} and shared[-1] >= overlap
    assert all(one.start < other.start for one, other in itertools.pairwise(plan))


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_every_moment_up_to_the_overlap_is_found_once_and_nothing_leaves_the_video(data: st.DataObject) -> None:
    frames = data.draw(st.integers(2, 12), label="frames")
    overlap = data.draw(st.integers(1, frames - 1), label="overlap")
    clips = data.draw(st.integers(1, 60), label="clips")
    moments: list[tuple[int, int, float]] = []
    place = 0
    # apart by a frame at least, and told apart by their values
    while place < clips and len(moments) < 6:
        first = place + data.draw(st.integers(0, 15))
        end = first + data.draw(st.integers(1, overlap))
        if end > clips:
            break
        moments.append((first, end, 0.1 + 0.1 * len(moments)))
        place = end + 1
    moments = [(first, end, data.draw(st.sampled_from([value, 0.9]))) for first, end, value in moments]
    answer = found(*moments, sliding=Sliding(frames=frames, overlap=overlap), clips=clips)
    assert sorted(answer["windows_sec"]) == [[STEP_SEC * first, STEP_SEC * end] for first, end, _ in moments]
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert sorted(answer["scores"]) == pytest.approx(sorted(value for *_, value in moments))
    assert all(0 <= start < end <= STEP_SEC * clips for start, end in answer["windows_sec"])
    assert len(answer["saliency"]) == clips


def small_cg_detr() -> CGDETRHead:
    chosen = {"vision_dim": 3, "dim": 16, "heads": 2, "feedforward_dim": 20, "dummies": 6, "queries": 4, "prototypes": 3}
    return CGDETRHead(WIDTH, CGDETRSettings(**chosen)).eval()


def full_track(clips: int, slots: int) -> tuple[Visual, ClipInfo]:
    """A video with everything that a head may look at."""
    visual, clip = track(clips=clips, slots=slots)
    features = torch.randn(1, clips, 2, 3).repeat(slots, 1, 1, 1)
    query = {"query_features": torch.randn(slots, 5, WIDTH), "query_valid": torch.ones(slots, 5, dtype=torch.bool)}
    return clip_visual([clip] * slots, visual.answer, torch.device("cpu"), frame_features=features, **query), clip


@pytest.mark.parametrize("head", [SimpleTemporalHead(WIDTH), small_cg_detr(), Reader(WIDTH)], ids=["simple", "cg-detr", "reader"])
@pytest.mark.parametrize("clips", [1, 6, 7])
def test_a_video_no_longer_than_a_window_gets_exactly_the_head_s_own_answer(head: Head[Any, Any], clips: int) -> None:
    visual, clip = full_track(clips, slots=2)
    embedding = torch.randn(2, WIDTH)
    own = head.decode(head.predict(embedding, visual), [clip], torch.zeros(2, dtype=torch.long))[0]
    assert slide(head, embedding, visual, clip, Sliding(frames=7, overlap=3)) == own


@pytest.mark.parametrize("head", [SimpleTemporalHead(WIDTH), small_cg_detr()], ids=["simple", "cg-detr"])
def test_a_long_video_is_read_as_its_windows_are_read_alone(head: Head[Any, Any]) -> None:
    visual, clip = full_track(17, slots=2)
    embedding = torch.randn(2, WIDTH)
    sliding = Sliding(frames=7, overlap=3)
    answer = slide(head, embedding, visual, clip, sliding)
    seen: list[list[float]] = [[] for _ in range(17)]
    alone_sec: list[list[float]] = []
    for window in plan_windows(17, 7, 3):
        begin = STEP_SEC * window.start
        part = ClipInfo(80, 60, STEP_SEC * 7, tuple(time - begin for time in clip.times_sec[window.start : window.stop]))
        assert visual.frame_features is not None and visual.query_features is not None and visual.query_valid is not None
        given_part = clip_visual(
            [part] * 2,
            visual.answer,
            torch.device("cpu"),
            frame_features=visual.frame_features[:, window.start : window.stop],
            query_features=visual.query_features,
            query_valid=visual.query_valid,
        )
        own = head.decode(head.predict(embedding, given_part), [part], torch.zeros(2, dtype=torch.long))[0]
        alone_sec += [[start + begin, end + begin] for start, end in own["windows_sec"]]
        for place, (_, value) in zip(window, own["saliency"], strict=True):
            seen[place].append(value)
    assert [value for _, value in answer["saliency"]] == pytest.approx([sum(each) / len(each) for each in seen], abs=1e-5)
    assert [time for time, _ in answer["saliency"]] == list(clip.times_sec)
    assert answer["windows_sec"]
    distance = torch.cdist(torch.tensor(answer["windows_sec"]), torch.tensor(alone_sec)).amin(1)
    assert float(distance.max()) < 1e-3
    one_by_one = slide(head, embedding, visual, clip, Sliding(frames=7, overlap=3, at_once=1))
    assert torch.allclose(torch.tensor(one_by_one["windows_sec"]), torch.tensor(answer["windows_sec"]), atol=1e-3)
    assert ("attention" in answer) == isinstance(head, CGDETRHead)


class Told(SimpleTemporalHead):
    """The simple head with logits that are read from the features: start, end and actionness of each frame."""

    variant = "told"
    needs = frozenset({"frame_features"})

    def predict(self, task_embedding: Tensor, visual: Visual) -> TemporalPrediction:
        assert visual.frame_features is not None
        start, end, actionness = visual.frame_features[:, :, 0].unbind(-1)
        cells_sec = frame_cells(visual.times_sec, visual.duration_sec, visual.frame_valid)
        return TemporalPrediction(start, end, actionness, visual.times_sec, cells_sec, visual.frame_valid)


def test_scores_of_the_simple_head_are_weighted_since_it_is_as_sure_where_nothing_happens() -> None:
    _, clip = track(clips=60)
    logits = torch.zeros(1, 60, 1, 3)
    logits[..., 2] = -4.0
    # something happens in the first window; in the last one start and end are sure of a frame that no actionness speaks for
    logits[0, 5:12, 0, 2], logits[0, 5, 0, 0], logits[0, 11, 0, 1] = 1.0, 3.0, 3.0
    logits[0, 50, 0, :2] = 9.0
    visual = clip_visual([clip], torch.zeros(1, dtype=torch.long), torch.device("cpu"), frame_features=logits)
    head, sure = Told(WIDTH, SimpleTemporalSettings(max_windows=1)), 2 * 50 + 1
    raw = slide(head, torch.zeros(1, WIDTH), visual, clip, Sliding(frames=20, overlap=10, scores="head"))
    assert raw["windows_sec"][0][0] <= sure <= raw["windows_sec"][0][1]
    weighted = slide(head, torch.zeros(1, WIDTH), visual, clip, Sliding(frames=20, overlap=10))
    assert weighted["windows_sec"][0] == pytest.approx([10.0, 24.0], abs=2.0)
    assert weighted["scores"][0] > 5 * weighted["scores"][1]


def two_windows(first: dict[str, Any], second: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Answers about the frames 0 to 3 and 2 to 5 of six frames, 2 seconds each."""
    _, clip = track(clips=6)
    times_sec = torch.tensor(clip.times_sec, dtype=torch.float64)
    cells_sec = torch.stack([times_sec - 1, times_sec + 1], dim=-1)
    return join_answers([first, second], plan_windows(6, 4, 2), times_sec, cells_sec, Sliding(frames=4, overlap=2, **options))


def said(*moments: tuple[float, float, float], saliency: tuple[float, ...] = (0, 0, 0, 0)) -> dict[str, Any]:
    curve = [[2.0 * place + 1, value] for place, value in enumerate(saliency)]
    return {"windows_sec": [[start, end] for start, end, _ in moments], "scores": [score for *_, score in moments], "saliency": curve}


def test_saliency_is_averaged_where_windows_overlap() -> None:
    answer = two_windows(said(saliency=(0.1, 0.2, 0.3, 0.4)), said(saliency=(0.7, 0.8, 0.9, 1.0)))
    assert [value for _, value in answer["saliency"]] == pytest.approx([0.1, 0.2, (0.3 + 0.7) / 2, (0.4 + 0.8) / 2, 0.9, 1.0])
    assert (answer["windows_sec"], answer["scores"]) == ([], [])


def test_what_a_window_saw_of_its_neighbour_s_moment_is_left_out_whatever_its_score() -> None:
    # 5.5 to 9.5 s lie in the second window as a whole; the first saw 5.5 to 8, and was surer
    assert two_windows(said((5.5, 8.0, 0.99)), said((1.5, 5.5, 0.3)))["windows_sec"] == [[5.5, 9.5]]


def test_two_windows_that_do_not_agree_to_the_frame_lose_nothing() -> None:
    # the parts meet at 6 s: the first window puts the middle at 6.1, the second at 5.9
    answer = two_windows(said((5.1, 7.1, 0.5)), said((0.9, 2.9, 0.6)))
    assert answer["windows_sec"] == [[pytest.approx(4.9), pytest.approx(6.9)]]
    assert answer["scores"] == [0.6]


def test_moments_found_twice_go_by_suppression_at_the_iou_asked_for() -> None:
    both = said((5.0, 7.0, 0.5)), said((1.2, 3.2, 0.6))
    assert two_windows(*both, nms_iou=0.5)["scores"] == [0.6]
    assert two_windows(*both, nms_iou=0.9)["scores"] == [0.6, 0.5]
    assert two_windows(*both, nms_iou=0.9, max_windows=1)["scores"] == [0.6]


def test_mean_inside_weighs_frames_by_the_time_they_share_with_the_moment() -> None:
    times_sec = torch.tensor([1.0, 3.0, 5.0])
    cells_sec = torch.stack([times_sec - 1, times_sec + 1], dim=-1)
    moments_sec = torch.tensor([[1.0, 4.0], [2.0, 4.0], [5.0, 5.0], [0.0, 6.0]])
    means = mean_inside(torch.tensor([1.0, 4.0, 7.0]), times_sec, cells_sec, moments_sec)
    assert means.tolist() == pytest.approx([(1 + 2 * 4) / 3, 4, 7, 4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"overlap": 7}, "overlap: expected frames from 0 to 6, fewer than a window has, got 7"),
        ({"overlap": -1}, "overlap"),
        ({"nms_iou": 1.5}, r"nms_iou: expected an IoU in \[0, 1\], got 1.5"),
        ({"scores": "heads"}, "Did you mean 'head'"),
    ],
)
def test_sliding_refuses_what_cannot_be_cut(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sliding(**{"frames": 7, "overlap": 3, **changes})


def test_slide_refuses_rows_about_several_videos_and_none() -> None:
    visual, clip = full_track(9, slots=2)
    visual.times_sec[1, 0] += 0.5
    with pytest.raises(UsageError, match="the same frames in every row"):
        slide(Reader(WIDTH), torch.zeros(2, WIDTH), visual, clip, Sliding(frames=7, overlap=3))
    nothing, _ = full_track(9, slots=1)
    with pytest.raises(UsageError, match=r"visual\.answer: expected \[slot=2\]"):
        slide(Reader(WIDTH), torch.zeros(2, WIDTH), nothing, clip, Sliding(frames=7, overlap=3))


def test_answers_that_cannot_be_joined_are_named() -> None:
    with pytest.raises(UsageError, match="answer 1, windows_sec: expected this key"):
        two_windows(said(), {"saliency": said()["saliency"]})
    with pytest.raises(UsageError, match=r"answer 0, saliency: expected \[time, value\] of each of the 4 frames, got 3"):
        two_windows(said(saliency=(0, 0, 0)), said())
    with pytest.raises(UsageError, match="answer 0, scores: expected one per moment, 1, got 0"):
        two_windows({**said((0.0, 1.0, 0.5)), "scores": []}, said())
    bare = {"windows_sec": [], "scores": []}
    with pytest.raises(UsageError, match="answers, saliency"):
        two_windows(bare, bare, scores="saliency")
