"""The simple temporal head: targets on frame cells, exact decoding, padding, and clips without or with several windows."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import ClipInfo, SimpleTemporalHead, SimpleTemporalSettings, Visual
from tpo_lab.heads.temporal import TemporalPrediction, embed_time, refine, score_pairs
from tpo_lab.losses import reduce_mean
from tpo_lab.spans import boundary_weights, coverage, frame_cells

DIM = 8
TIMES = [1.0, 3.0, 5.0, 7.0, 9.0]
CLIP = ClipInfo(width=80, height=60, duration_sec=10.0, times_sec=tuple(TIMES))


def visual(rows: list[list[float]], durations: list[float], pad: int = 0, answer: list[int] | None = None) -> Visual:
    frames = max(len(row) for row in rows) + pad
    return Visual(
        times_sec=torch.tensor([row + [-1.0] * (frames - len(row)) for row in rows]),
        frame_valid=torch.tensor([[place < len(row) for place in range(frames)] for row in rows]),
        duration_sec=torch.tensor(durations),
        size_wh=torch.tensor([[80.0, 60.0]]).repeat(len(rows), 1),
        answer=torch.arange(len(rows)) if answer is None else torch.tensor(answer),
    )


def head_of(**settings: Any) -> SimpleTemporalHead:
    torch.manual_seed(0)
    return SimpleTemporalHead(DIM, SimpleTemporalSettings(**settings))


def embedding(slots: int) -> Tensor:
    return torch.randn(slots, DIM, generator=torch.Generator().manual_seed(2))


def perfect(windows: list[list[float]], clip: ClipInfo = CLIP) -> TemporalPrediction:
    """The prediction whose probabilities are the targets, as far as logits can say so."""
    times, valid = torch.tensor([clip.times_sec]), torch.ones(1, len(clip.times_sec), dtype=torch.bool)
    cells = frame_cells(times, torch.tensor([clip.duration_sec]), valid)
    spans, present = torch.tensor([windows]).reshape(1, -1, 2), torch.ones(1, len(windows), dtype=torch.bool)
    start, end = (boundary_weights(times, valid, spans[..., side], present).clamp(min=1e-9).log() for side in (0, 1))
    return TemporalPrediction(start, end, coverage(cells, spans, present).logit(eps=1e-6), times, cells, valid)


def total(head: SimpleTemporalHead, prediction: TemporalPrediction, target: Any) -> Tensor:
    weights = head.weights()
    return sum((weights[term] * reduce_mean(values) for term, values in head.losses(prediction, target).items()), torch.zeros(()))


def test_logits_have_one_row_per_slot_and_one_column_per_frame() -> None:
    prediction = head_of().predict(embedding(2), visual([TIMES, TIMES[:3]], [10.0, 6.0])).validate()
    assert prediction.start_logits.shape == prediction.end_logits.shape == prediction.actionness_logits.shape == (2, 5)
    assert prediction.cells_sec[1, :3].tolist() == [[0, 2], [2, 4], [4, 6]]


def test_the_default_hidden_layer_is_as_wide_as_the_embedding() -> None:
    assert head_of().mlp[0].out_features == DIM
    assert head_of(hidden_dim=3, time_dim=6).mlp[0].weight.shape == (3, DIM + 6)


def test_only_the_share_of_the_duration_counts_and_not_the_seconds() -> None:
    head, doubled = head_of(), [2 * second for second in TIMES]
    short = head.predict(embedding(1), visual([TIMES], [10.0]))
    long = head.predict(embedding(1), visual([doubled], [20.0]))
    torch.testing.assert_close(short.start_logits, long.start_logits)


def test_times_are_embedded_apart_from_each_other() -> None:
    rows = embed_time(torch.linspace(0, 1, 65), 32, 32.0)
    assert rows.shape == (65, 32)
    distance = torch.cdist(rows, rows) + 9 * torch.eye(65)
    assert distance.min() > 0.5


@pytest.mark.parametrize("pad", [1, 4])
def test_padding_changes_no_logit_no_loss_and_no_answer(pad: int) -> None:
    head = head_of()
    rows, durations = [TIMES, TIMES[:3]], [10.0, 6.0]
    items = [head.encode_target({"windows_sec": windows}, CLIP) for windows in ([[2.0, 6.5]], [[0.0, 1.0], [3.0, 5.0]])]
    target = head.collate_targets(items, [1, 1], "cpu")
    plain = head.predict(embedding(2), visual(rows, durations))
    padded = head.predict(embedding(2), visual(rows, durations, pad=pad))
    mask = plain.frame_valid
    for field in ("start_logits", "end_logits", "actionness_logits", "cells_sec"):
        torch.testing.assert_close(getattr(padded, field)[:, :5][mask], getattr(plain, field)[mask], atol=1e-6, rtol=0)
    for term, values in head.losses(plain, target).items():
        torch.testing.assert_close(head.losses(padded, target)[term], values, atol=1e-6, rtol=0)
    answers = head.decode(plain, [CLIP] * 2, torch.arange(2)), head.decode(padded, [CLIP] * 2, torch.arange(2))
    for one, other in zip(*answers, strict=True):
        assert np.array(one["windows_sec"]) == pytest.approx(np.array(other["windows_sec"]), abs=1e-5)
        assert np.array(one["saliency"]) == pytest.approx(np.array(other["saliency"]), abs=1e-5)


def test_a_shorter_clip_in_a_batch_predicts_as_alone() -> None:
    head = head_of()
    together = head.predict(embedding(2), visual([TIMES, TIMES[:3]], [10.0, 6.0]))
    alone = head.predict(embedding(2)[1:], visual([TIMES[:3]], [6.0]))
    torch.testing.assert_close(together.end_logits[1:, :3], alone.end_logits, atol=1e-6, rtol=0)


def test_losses_of_even_logits_are_the_hand_computed_ones() -> None:
    head, zero = head_of(), torch.zeros(1, 5)
    shape = perfect([[2.0, 5.0]])
    prediction = TemporalPrediction(zero, zero, zero, shape.times_sec, shape.cells_sec, shape.frame_valid)
    values = head.losses(prediction, head.collate_targets([torch.tensor([[2.0, 5.0]])], [1], "cpu"))
    assert values["start"].tolist() == pytest.approx([math.log(5)])
    assert values["end"].tolist() == pytest.approx([math.log(5)])
    assert values["actionness"].tolist() == pytest.approx([math.log(2)] * 5)


def test_targets_are_where_the_worked_example_puts_them() -> None:
    # cells [0,2] [2,4] [4,6] [6,8] [8,10]; start 2.5 lies a quarter of the way from 1 over 3, end 5 on a frame
    leaf = perfect([[2.5, 5.0]])
    prediction = TemporalPrediction(
        torch.zeros(1, 5, requires_grad=True),
        torch.zeros(1, 5, requires_grad=True),
        torch.zeros(1, 5, requires_grad=True),
        leaf.times_sec,
        leaf.cells_sec,
        leaf.frame_valid,
    )
    values = head_of().losses(prediction, head_of().collate_targets([torch.tensor([[2.5, 5.0]])], [1], "cpu"))
    logits = (prediction.start_logits, prediction.end_logits, prediction.actionness_logits)
    # the gradient of cross-entropy is probability - target
    gradients = torch.autograd.grad(sum(value.sum() for value in values.values()), logits)
    assert (0.2 - gradients[0])[0].tolist() == pytest.approx([0.25, 0.75, 0, 0, 0], abs=1e-6)
    assert (0.2 - gradients[1])[0].tolist() == pytest.approx([0, 0, 1, 0, 0], abs=1e-6)
    assert (0.5 - gradients[2])[0].tolist() == pytest.approx([0, 0.75, 0.5, 0, 0], abs=1e-6)


def test_the_prediction_equal_to_the_targets_is_the_minimum() -> None:
    head, windows = head_of(), [[2.5, 5.0]]
    best, target = perfect(windows), head.collate_targets([torch.tensor(windows)], [1], "cpu")
    least, generator = total(head, best, target), torch.Generator().manual_seed(0)
    for _ in range(20):
        noise = torch.randn(3, 1, 5, generator=generator)
        other = TemporalPrediction(
            best.start_logits + noise[0],
            best.end_logits + noise[1],
            best.actionness_logits + noise[2],
            best.times_sec,
            best.cells_sec,
            best.frame_valid,
        )
        assert total(head, other, target) > least


def test_weights_are_the_settings_of_their_terms() -> None:
    assert head_of(weight_end=0.5).weights() == {"start": 1.0, "end": 0.5, "actionness": 1.0}


def test_a_clip_without_windows_teaches_only_that_nothing_happens() -> None:
    head = head_of()
    items = [head.encode_target({"windows_sec": []}, CLIP), head.encode_target({"windows_sec": [[2.0, 6.0]]}, CLIP)]
    prediction = head.predict(embedding(2), visual([TIMES, TIMES], [10.0, 10.0]))
    values = head.losses(prediction, head.collate_targets(items, [1, 1], "cpu"))
    assert {term: len(each) for term, each in values.items()} == {"start": 1, "end": 1, "actionness": 10}
    torch.testing.assert_close(values["actionness"][:5], torch.nn.functional.softplus(prediction.actionness_logits[0]))


def test_a_batch_without_any_window_has_a_finite_gradient() -> None:
    head = head_of()
    prediction = head.predict(embedding(1), visual([TIMES], [10.0]))
    value = total(head, prediction, head.collate_targets([head.encode_target({"windows_sec": []}, CLIP)], [1], "cpu"))
    value.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())
    assert head.mlp[2].weight.grad[:2].abs().sum() == 0
    assert head.mlp[2].weight.grad[2].abs().sum() > 0


def test_every_slot_of_an_answer_learns_all_of_its_windows() -> None:
    target = head_of().collate_targets([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])], [2, 1], "cpu").validate()
    assert target.windows_sec.tolist() == [[[1, 2], [0, 0]], [[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert target.window_valid.tolist() == [[True, False], [True, False], [True, True]]


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 10), st.floats(0, 10))
def test_a_window_over_several_cells_comes_back_exactly(one: float, other: float) -> None:
    window = sorted([one, other])
    assume(any(window[0] < edge < window[1] for edge in (2, 4, 6, 8)) and window[1] - window[0] > 0.01)
    answer = head_of().decode(perfect([window]), [CLIP], torch.tensor([0]))[0]
    assert answer["windows_sec"][0] == pytest.approx(window, abs=1e-3)
    json.dumps(answer)


def test_a_window_inside_one_cell_keeps_its_length_and_its_cell() -> None:
    start, end = head_of().decode(perfect([[4.2, 4.8]]), [CLIP], torch.tensor([0]))[0]["windows_sec"][0]
    assert end - start == pytest.approx(0.6, abs=1e-3)
    assert 4 <= start < end <= 6


def test_two_windows_are_both_found_and_ranked() -> None:
    long = ClipInfo(80, 60, 20.0, tuple(np.arange(0.5, 20).tolist()))
    answer = head_of().decode(perfect([[2.0, 6.0], [12.0, 17.0]], long), [long], torch.tensor([0]))[0]
    assert sorted(answer["windows_sec"][:2]) == [pytest.approx([2, 6], abs=0.01), pytest.approx([12, 17], abs=0.01)]
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert all(0 < score <= 1 for score in answer["scores"])


def test_max_windows_and_nms_limit_the_list() -> None:
    prediction = head_of().predict(embedding(1), visual([TIMES], [10.0]))
    assert len(head_of(max_windows=2).decode(prediction, [CLIP], torch.tensor([0]))[0]["windows_sec"]) == 2
    many = head_of(max_windows=99, nms_iou=0.2).decode(prediction, [CLIP], torch.tensor([0]))[0]["windows_sec"]
    overlaps = [
        max(0, min(a[1], b[1]) - max(a[0], b[0])) / (max(a[1], b[1]) - min(a[0], b[0])) for i, a in enumerate(many) for b in many[:i]
    ]
    assert len(many) > 2
    assert max(overlaps) <= 0.2 + 1e-5


def test_pair_scores_equal_a_plain_enumeration() -> None:
    start, end, action = torch.randn(3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    p_start, p_end, inside = start.softmax(0).tolist(), end.softmax(0).tolist(), action.sigmoid().tolist()
    scores = score_pairs(start, end, action)
    for first in range(4):
        for last in range(first, 4):
            likelihood = p_start[first] * p_end[last]
            for place, share in enumerate(inside):
                between, end_of_pair = first < place < last, place in (first, last)
                likelihood *= max(share, 1 - share) if end_of_pair else share if between else 1 - share
            assert scores[first, last].item() == pytest.approx(likelihood ** (1 / 6))


def test_refined_windows_never_leave_the_cells_of_their_pair() -> None:
    cells = torch.tensor([[0.0, 2.0], [2.0, 4.0], [4.0, 9.0]])
    windows = refine(cells, torch.tensor([0.25, 0.5, 1.0]))
    assert windows[0, 2].tolist() == pytest.approx([1.5, 9])
    assert windows[0, 1].tolist() == pytest.approx([1.5, 3])
    assert windows[1, 1].tolist() == pytest.approx([2.5, 3.5])
    assert windows[2, 2].tolist() == pytest.approx([4, 9])


def test_saliency_lists_valid_frames_with_their_actionness() -> None:
    head = head_of()
    prediction = head.predict(embedding(1), visual([TIMES[:3]], [10.0], pad=2))
    saliency = head.decode(prediction, [CLIP], torch.tensor([0]))[0]["saliency"]
    assert [second for second, _ in saliency] == TIMES[:3]
    assert [score for _, score in saliency] == pytest.approx(prediction.actionness_logits[0, :3].sigmoid().tolist())


def test_slots_of_one_answer_pool_their_windows_and_an_answer_without_slots_is_empty() -> None:
    one, two = perfect([[2.0, 4.0]]), perfect([[7.0, 10.0]])
    both = TemporalPrediction(*(torch.cat([getattr(one, field), getattr(two, field)]) for field in vars(one)))
    answers = head_of().decode(both, [CLIP, CLIP], torch.tensor([1, 1]))
    assert answers[0] == {"windows_sec": [], "scores": [], "saliency": []}
    assert sorted(answers[1]["windows_sec"][:2]) == [pytest.approx([2, 4], abs=1e-3), pytest.approx([7, 10], abs=1e-3)]
    assert [round(score, 3) for _, score in answers[1]["saliency"]] == [0, 1, 0, 0.5, 1]


def test_one_frame_and_a_clip_without_duration_are_finite() -> None:
    head, image = head_of(), ClipInfo(80, 60, 0.0, (0.0,))
    prediction = head.predict(embedding(1), visual([[0.0]], [0.0]))
    assert prediction.start_logits.isfinite().all()
    assert head.decode(prediction, [image], torch.tensor([0]))[0]["windows_sec"] == [[0.0, 0.0]]


def test_a_slot_without_a_valid_frame_has_no_window_and_no_loss() -> None:
    head = head_of()
    prediction = head.predict(embedding(2), visual([TIMES, []], [10.0, 10.0]))
    values = head.losses(prediction, head.collate_targets([torch.tensor([[2.0, 4.0]])] * 2, [1, 1], "cpu"))
    assert {term: len(each) for term, each in values.items()} == {"start": 1, "end": 1, "actionness": 5}
    assert head.decode(prediction, [CLIP, CLIP], torch.arange(2))[1] == {"windows_sec": [], "scores": [], "saliency": []}


def test_diagnostics_count_starts_after_ends() -> None:
    head, shape = head_of(), perfect([[2.0, 6.0]])
    crossed = TemporalPrediction(
        shape.end_logits, shape.start_logits, shape.actionness_logits, shape.times_sec, shape.cells_sec, shape.frame_valid
    )
    target = head.collate_targets([torch.tensor([[2.0, 6.0]])], [1], "cpu")
    assert head.diagnostics(shape, target) == {"inverted_rate": 0.0}
    assert head.diagnostics(crossed, target) == {"inverted_rate": 1.0}


def test_a_diverged_prediction_is_no_json_answer() -> None:
    shape = perfect([[2.0, 6.0]])
    broken = TemporalPrediction(
        shape.start_logits * float("nan"), shape.end_logits, shape.actionness_logits, shape.times_sec, shape.cells_sec, shape.frame_valid
    )
    with pytest.raises(TPOError, match="The temporal head predicted 5 of 5 values that are not finite"):
        head_of().decode(broken, [CLIP], torch.tensor([0]))


def test_windows_are_cut_to_the_clip() -> None:
    assert head_of().encode_target({"windows_sec": [[-1.0, 4.0], [8.0, 30.5]]}, CLIP).tolist() == [[0, 4], [8, 10]]


@pytest.mark.parametrize("window", [[6.0, 2.0], [3.0, 3.0], [11.0, 12.0], [float("nan"), 2.0]], ids=str)
def test_a_window_that_holds_no_time_of_the_clip_is_named(window: list[float]) -> None:
    with pytest.raises(UsageError, match=rf"temporal\.windows_sec\[1\]: .*clip of 10 s, got \[{window[0]}"):
        head_of().encode_target({"windows_sec": [[1.0, 2.0], window]}, CLIP)


def test_an_annotation_of_saliency_alone_is_refused() -> None:
    with pytest.raises(UsageError, match=r"temporal\.windows_sec: expected a list .*got \['saliency'\]"):
        head_of().encode_target({"saliency": {"step_sec": 2.0, "scores": [1.0]}}, CLIP)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match=r"time_dim: expected an even width of at least 2, got 7"):
        SimpleTemporalSettings(time_dim=7)
    with pytest.raises(UsageError, match=r"max_windows: expected at least 1, got 0"):
        SimpleTemporalSettings(max_windows=0)
    with pytest.raises(UsageError, match=r"hidden_dim: expected a width of at least 1, got 0"):
        head_of(hidden_dim=0)


def test_two_clips_of_different_length_are_learnt_from_bf16_embeddings() -> None:
    dtype = torch.bfloat16
    head, short = head_of(hidden_dim=32), ClipInfo(80, 60, 6.0, (1.0, 3.0, 5.0))
    windows = [[[2.5, 7.2]], [[0.5, 4.4]]]
    items = [head.encode_target({"windows_sec": each}, clip) for each, clip in zip(windows, (CLIP, short), strict=True)]
    target, seen = head.collate_targets(items, [1, 1], "cpu"), visual([TIMES, TIMES[:3]], [10.0, 6.0])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(150):
        value = total(head, head.predict(embedding(2).to(dtype), seen), target)
        assert value.dtype == torch.float32
        assert value.isfinite()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    answers = head.decode(head.predict(embedding(2).to(dtype), seen), [CLIP, short], torch.arange(2))
    for answer, each in zip(answers, windows, strict=True):
        assert answer["windows_sec"][0] == pytest.approx(each[0], abs=0.2)
