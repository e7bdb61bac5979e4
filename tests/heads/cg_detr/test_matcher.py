"""The matching against trying every assignment."""

from __future__ import annotations

import itertools

import torch

from tpo_lab.heads.cg_detr.matcher import match_windows

WEIGHTS = {"weight_span": 10.0, "weight_giou": 1.0, "weight_label": 4.0}


def giou(a: tuple[float, float], b: tuple[float, float]) -> float:
    (a0, a1), (b0, b1) = ((c - w / 2, c + w / 2) for c, w in (a, b))
    shared = max(min(a1, b1) - max(a0, b0), 0.0)
    union, hull = (a1 - a0) + (b1 - b0) - shared, max(a1, b1) - min(a0, b0)
    return shared / union - (hull - union) / hull


def cost(span: list[float], prob: float, window: list[float]) -> float:
    distance = sum(abs(x - y) for x, y in zip(span, window, strict=True))
    return 10 * distance - giou(tuple(span), tuple(window)) - 4 * prob


def test_matching_is_the_best_of_all_assignments_in_every_layer_and_slot() -> None:
    layers, slots, queries, windows = 2, 3, 4, 3
    for seed in range(8):
        random = torch.Generator().manual_seed(seed)
        spans = torch.rand(layers, slots, queries, 2, generator=random) * 0.8 + 0.1
        prob = torch.rand(layers, slots, queries, generator=random)
        target = torch.rand(slots, windows, 2, generator=random) * 0.8 + 0.1
        valid = torch.tensor([[True, True, True], [False, True, False], [False] * 3])
        found = match_windows(spans, prob, target, valid, **WEIGHTS)
        pairs = list(zip(*(part.tolist() for part in (found.layer, found.slot, found.query, found.window)), strict=True))
        assert len(pairs) == layers * 4
        for layer, slot in itertools.product(range(layers), range(slots)):
            real = valid[slot].nonzero()[:, 0].tolist()

            table = [
                [
                    cost(spans[layer, slot, query].tolist(), float(prob[layer, slot, query]), target[slot, window].tolist())
                    for window in real
                ]
                for query in range(queries)
            ]
            choices = itertools.permutations(range(queries), len(real))
            best = min((sum(table[query][place] for place, query in enumerate(choice)), choice) for choice in choices)[1]
            assert sorted(p[2:] for p in pairs if p[:2] == (layer, slot)) == sorted(zip(best, real, strict=True))


def test_more_windows_than_queries_leave_the_worst_out() -> None:
    spans = torch.tensor([[[[0.2, 0.1], [0.8, 0.1]]]])
    target = torch.tensor([[[0.5, 0.5], [0.8, 0.1], [0.2, 0.1]]])
    found = match_windows(spans, torch.full((1, 1, 2), 0.5), target, torch.ones(1, 3, dtype=torch.bool), **WEIGHTS)
    assert sorted(zip(found.query.tolist(), found.window.tolist(), strict=True)) == [(0, 2), (1, 1)]


def test_no_window_at_all_matches_nothing() -> None:
    found = match_windows(torch.rand(2, 3, 4, 2), torch.rand(2, 3, 4), torch.zeros(3, 0, 2), torch.zeros(3, 0, dtype=torch.bool), **WEIGHTS)
    assert [len(part) for part in (found.layer, found.slot, found.query, found.window)] == [0] * 4
