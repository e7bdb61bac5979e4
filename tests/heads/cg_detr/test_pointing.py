"""CG-DETR that points: it looks at the thing, reads its changes, and pays no heed to padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.errors import UsageError
from tpo_lab.heads import PointingCGDETRHead, Visual
from tpo_lab.heads.cg_detr.glance import likeliest_windows, soft_iou
from tpo_lab.heads.cg_detr.matcher import WindowMatches
from tpo_lab.heads.cg_detr.pointing import SIGNS, PointingCGDETRSettings, signs_of
from tpo_lab.spans import cw_to_sec, sec_to_cw, span_iou

PATCHES, CELLS = 16, 4
WINDOWS = [[[2.0, 6.0]], [[0.0, 3.0], [8.0, 13.0]], [[5.0, 14.0]]]


def pointing(bench: Any, **settings: Any) -> PointingCGDETRHead:
    torch.manual_seed(0)
    return PointingCGDETRHead(bench.DIM, PointingCGDETRSettings(**{"vision_dim": bench.VISION, **bench.TINY, **settings})).eval()


def seen(bench: Any, slots: int, seed: int = 0) -> Visual:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(slots, bench.FRAMES, PATCHES, bench.VISION, generator=random)
    states = torch.randn(slots, bench.FRAMES, CELLS, bench.DIM, generator=random)
    return replace(bench.visual(slots), frame_features=features, frame_states=states)


def test_every_parameter_gets_gradient(bench: Any) -> None:
    head = pointing(bench)
    torch.nn.init.normal_(head.network.decoder.refine[-1].weight, std=0.1)
    embedding = bench.embedding(3).requires_grad_()
    bench.total(head, head.losses(head.predict(embedding, seen(bench, 3)), bench.target(head, *WINDOWS))).backward()
    silent = [name for name, weight in head.named_parameters() if weight.grad is None or not weight.grad.abs().max() > 1e-12]
    assert silent == []
    assert (embedding.grad.abs().sum(1) > 0).all()


def point_by_first_channel(head: PointingCGDETRHead, part: nn.Linear) -> None:
    """Whatever the task embedding, the patch counts that has most in the first channel of what `part` is compared with."""
    with torch.no_grad():
        for each in (head.where, head.what):
            each.weight.zero_()
            each.bias.zero_()
        part.bias[0] = 1e4


def test_a_frame_is_what_the_task_embedding_points_at(bench: Any) -> None:
    head, visual = pointing(bench), seen(bench, 2)
    assert visual.frame_features is not None
    features = visual.frame_features.clone()
    features[..., 0] = 0
    target = torch.tensor([[3, 3, 3, 7, 7, 7, 7], [0, 1, 2, 3, 4, 5, 6]])
    features[torch.arange(2)[:, None], torch.arange(7), target, 0] = 1
    point_by_first_channel(head, head.where)
    pooled = head.pooled(bench.embedding(2), replace(visual, frame_features=features))
    torch.testing.assert_close(pooled.vectors, features[torch.arange(2)[:, None], torch.arange(7), target])


def test_states_point_at_all_patches_of_their_cell(bench: Any) -> None:
    head, visual = pointing(bench), seen(bench, 1)
    assert visual.frame_features is not None and visual.frame_states is not None
    states = torch.zeros_like(visual.frame_states)
    states[:, :, 1, 0] = 1
    point_by_first_channel(head, head.what)
    pooled = head.pooled(bench.embedding(1), replace(visual, frame_states=states))
    # the second of 2 x 2 cells holds columns 2 and 3 of rows 0 and 1 of 4 x 4 patches
    torch.testing.assert_close(pooled.vectors, visual.frame_features[:, :, [2, 3, 6, 7]].mean(2))


def clip(frames: int = 6) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """A thing that looks otherwise in frames 2 and 3, fits nowhere in frame 5, and moves to the right from frame 3 to frame 4."""
    vectors = torch.tensor([[1.0, 0.0, 0.0]]).repeat(frames, 1)
    vectors[2:4] = torch.tensor([0.0, 1.0, 0.0])
    places = torch.full((frames, 2), 0.25)
    places[4:, 0] = 0.75
    logits = torch.zeros(frames, 4)
    logits[:, 0] = 5.0
    logits[5, 0] = 0.0
    return vectors[None], places[None], (logits[None],) * 3, torch.ones(1, frames, dtype=torch.bool)


def test_signs_show_when_a_thing_changes_moves_and_fits_nowhere() -> None:
    found = signs_of(*clip())
    assert found.shape == (1, 6, 3 + SIGNS)
    change, signs = found[..., :3], found[0, :, 3:]
    fits, best = signs[:, :6].T[:2]
    from_before, to_after, distance, like_first, moved_from, moves_to, from_start, from_end, x, y = signs[:, 6:].T
    assert fits.argmin() == best.argmin() == 5
    assert from_before.topk(2).indices.sort().values.tolist() == [2, 4]
    assert to_after.topk(2).indices.sort().values.tolist() == [1, 3]
    assert set(distance.topk(2).indices.tolist()) == {2, 3} and set((-like_first).topk(2).indices.tolist()) == {2, 3}
    torch.testing.assert_close(change.sum(1), torch.zeros(1, 3), atol=1e-5, rtol=0)
    assert moved_from.argmax() == 4 and moves_to.argmax() == 3
    assert (from_start[4:] > 1).all() and (from_start[:4] < 0.01).all() and (from_end[:4] > 1).all() and (from_end[4:] < 0.01).all()
    assert x.tolist() == [-0.75] * 4 + [0.75] * 2 and y.tolist() == [-0.75] * 6


def test_signs_do_not_depend_on_the_size_of_vectors_or_on_what_all_frames_share() -> None:
    vectors, places, logits, valid = clip()
    torch.testing.assert_close(signs_of(3 * vectors, places, tuple(each + 2 for each in logits), valid), signs_of(*clip()))


def test_the_glance_learns_the_frames_of_the_moment_alone(bench: Any) -> None:
    head = pointing(bench, weight_glance=3.0)
    prediction = head.predict(bench.embedding(3), seen(bench, 3))
    values = head.losses(prediction, bench.target(head, WINDOWS[0], [], WINDOWS[2]))
    assert prediction.glance_logits is not None and values["glance"].shape == (21,)
    wanted = torch.tensor([[0, 1, 1, 0, 0, 0, 0], [0] * 7, [0, 0, 1, 1, 1, 1, 1]]).bool()
    # half of the third frame's cell lies in the last moment
    surprise = torch.where(wanted, -prediction.glance_logits, prediction.glance_logits)
    torch.testing.assert_close(values["glance"], torch.nn.functional.softplus(surprise).flatten())
    assert head.weights()["glance"] == 3.0


def evenly(frames: int) -> Tensor:
    edges = torch.linspace(0, 1, frames + 1)
    return torch.stack([edges[:-1], edges[1:]], -1)[None]


def test_the_likeliest_window_is_the_moment_itself_where_all_is_sure() -> None:
    inside = torch.tensor([[0, 0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0.9], [1] * 7])
    windows = likeliest_windows(20 * inside - 10, evenly(7).repeat(3, 1, 1), torch.ones(3, 7, dtype=torch.bool), 2, 0.5)
    torch.testing.assert_close(windows[:, 0], torch.tensor([[0.5, 3 / 7], [1 / 14, 1 / 7], [0.5, 1.0]]))
    torch.testing.assert_close(windows[1, 1], torch.tensor([13 / 14, 1 / 7]))
    sooner = likeliest_windows(torch.ones(1, 7), evenly(7), torch.arange(7)[None] < 2, 1, 0.5)
    torch.testing.assert_close(sooner, torch.tensor([[[1 / 7, 2 / 7]]]))


def test_the_likeliest_windows_are_the_likeliest_of_all_without_near_doubles() -> None:
    random = torch.Generator().manual_seed(0)
    edges = torch.arange(0, 9) / 8
    cells = torch.stack([edges[:-1], edges[1:]], -1).expand(20, 8, 2)
    logits, valid = torch.randn(20, 8, generator=random), torch.arange(8)[None] < torch.randint(1, 9, (20, 1), generator=random)
    found = cw_to_sec(likeliest_windows(logits, cells, valid, 4, 0.6), 1.0)
    for row in range(20):
        last = int(valid[row].sum())
        places = [(a, b) for a in range(last) for b in range(a, last)]
        # the probability that these frames belong to the moment and no others
        sure = functional.logsigmoid(logits[row, :last])
        unsure = functional.logsigmoid(-logits[row, :last])
        chance = torch.stack([unsure[:a].sum() + sure[a : b + 1].sum() + unsure[b + 1 :].sum() for a, b in places])
        windows = torch.stack([torch.stack([cells[row, a, 0], cells[row, b, 1]]) for a, b in places])
        kept: list[Tensor] = []
        for window in windows[chance.argsort(descending=True)]:
            if all(span_iou(window, other) <= 0.6 for other in kept):
                kept.append(window)
        wanted = (kept + [kept[0]] * 4)[:4]
        torch.testing.assert_close(found[row], torch.stack(wanted))


def test_long_frames_count_by_their_length() -> None:
    cells = torch.tensor([[[0.0, 0.1], [0.1, 0.2], [0.2, 1.0]]])
    found = likeliest_windows(torch.tensor([[1.0, -3.0, 0.5]]), cells, torch.ones(1, 3, dtype=torch.bool), 2, 0.5)
    torch.testing.assert_close(found, torch.tensor([[[0.6, 0.8], [0.05, 0.1]]]))


def test_proposals_start_from_the_likeliest_windows(bench: Any) -> None:
    head = pointing(bench)
    # refinements are zero before training
    prediction = head.predict(bench.embedding(2), seen(bench, 2))
    assert prediction.glance_logits is not None and prediction.first_cw is not None
    cells = prediction.cells_sec / prediction.duration_sec[:, None, None]
    settings = head.settings
    wanted = likeliest_windows(prediction.glance_logits, cells, prediction.frame_valid, settings.queries, settings.nms_iou)
    torch.testing.assert_close(prediction.first_cw, wanted)
    for spans in prediction.spans_cw:
        torch.testing.assert_close(spans, wanted, atol=2e-3, rtol=0)  # windows keep a thousandth from the clip's ends


def test_every_proposal_that_starts_near_a_moment_learns_its_place(bench: Any) -> None:
    head = pointing(bench, near_iou=0.5)
    prediction = head.predict(bench.embedding(3), seen(bench, 3))
    starts = torch.tensor([[[0.0, 4.0], [3.0, 6.0], [9.0, 13.0], [9.0, 10.0]]]).repeat(3, 1, 1)
    clips = prediction.duration_sec[:, None]
    prediction = replace(prediction, first_cw=sec_to_cw(starts, clips))
    target = bench.target(head, WINDOWS[0], [], WINDOWS[1])
    matches = head.match(prediction, target)
    placed = head.placed(prediction, target, matches)
    answering = {(layer, slot, query): window for layer, slot, query, window in zip(*map(Tensor.tolist, fields_of(matches)), strict=True)}
    # IoU with 2 to 6 s: 2/6 and 3/4; with 0 to 3 s: 3/4 and 0; with 8 to 13 s: 4/5 and 1/5
    layers = len(prediction.spans_cw)
    near = {(layer, *pair): window for layer in range(layers) for pair, window in {(0, 1): 0, (2, 0): 0, (2, 2): 1}.items()}
    found = {(layer, slot, query): window for layer, slot, query, window in zip(*map(Tensor.tolist, fields_of(placed)), strict=True)}
    assert found == answering | near
    assert head.losses(prediction, target)["span"].shape == (sum(layer == layers - 1 for layer, _, _ in found),)


def fields_of(matches: WindowMatches) -> tuple[Tensor, ...]:
    return matches.layer, matches.slot, matches.query, matches.window


@pytest.mark.parametrize("iou", [0.0, -0.1, 1.5])
def test_an_iou_that_is_none_is_refused(bench: Any, iou: float) -> None:
    with pytest.raises(UsageError, match="near_iou"):
        pointing(bench, near_iou=iou)


def test_soft_iou_is_the_iou_where_all_is_sure() -> None:
    edges = torch.linspace(0, 1, 8)
    cells = torch.stack([edges[:-1], edges[1:]], -1)[None]
    inside = torch.tensor([[0, 0, 1, 1, 1, 0, 0]], dtype=torch.float32)
    windows = torch.tensor([[[2, 5], [3, 6], [0, 7], [5, 7], [2.5, 4]]]) / 7
    found = soft_iou(windows, inside, cells, torch.ones(1, 7, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor([[1, 2 / 4, 3 / 7, 0, 1.5 / 3]]))
    layers = soft_iou(windows[None].repeat(2, 1, 1, 1), inside, cells, torch.ones(1, 7, dtype=torch.bool))
    torch.testing.assert_close(layers, found[None].repeat(2, 1, 1))


def test_proposals_that_agree_with_the_glance_are_worth_more(bench: Any) -> None:
    head, visual, embedding = pointing(bench), seen(bench, 2), bench.embedding(2)
    plain = head.predict(embedding, visual)
    with torch.no_grad():
        head.trust += 10.0
    trusting = head.predict(embedding, visual)
    assert plain.glance_logits is not None
    ends = plain.cells_sec / plain.duration_sec[:, None, None]
    agreement = soft_iou(cw_to_sec(plain.spans_cw, 1.0), plain.glance_logits.sigmoid(), ends, plain.frame_valid)
    torch.testing.assert_close(trusting.class_logits[..., 0] - plain.class_logits[..., 0], 10 * agreement, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(trusting.class_logits[..., 1], plain.class_logits[..., 1])


@pytest.mark.parametrize("frames", [1, 7])
def test_padding_changes_nothing(bench: Any, frames: int) -> None:
    head = pointing(bench).double()
    visual = seen(bench, 2)
    assert visual.frame_features is not None and visual.frame_states is not None
    cut = {name: getattr(visual, name)[:, :frames] for name in ("times_sec", "frame_valid", "frame_features", "frame_states")}
    short = replace(visual, **cut)

    def grown(tensor: Tensor, value: float) -> Tensor:
        return torch.cat([tensor, torch.full((len(tensor), 3, *tensor.shape[2:]), value, dtype=tensor.dtype)], 1)

    values = {"times_sec": -1.0, "frame_valid": False, "frame_features": 7.0, "frame_states": 7.0}
    padded = replace(short, **{name: grown(part, values[name]) for name, part in cut.items()})
    embedding = bench.embedding(2).double()
    plain, more = head.predict(embedding, short), head.predict(embedding, padded)
    torch.testing.assert_close(more.spans_cw, plain.spans_cw, atol=1e-6, rtol=0)
    torch.testing.assert_close(more.saliency_logits[:, :frames], plain.saliency_logits, atol=1e-6, rtol=0)


def test_a_slot_in_a_batch_predicts_as_alone(bench: Any) -> None:
    head, visual, embedding = pointing(bench), seen(bench, 2), bench.embedding(2)
    tensors = {name: value[1:] for name, value in vars(visual).items() if isinstance(value, Tensor)}
    together, alone = head.predict(embedding, visual), head.predict(embedding[1:], Visual(**tensors))
    torch.testing.assert_close(together.saliency_logits[1:], alone.saliency_logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.spans_cw[:, 1:], alone.spans_cw, atol=1e-5, rtol=1e-4)
