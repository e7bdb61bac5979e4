"""What a part of a batch weighs, by hand."""

from __future__ import annotations

import pytest
import torch

from tpo_lab.objective import LossReport, combine
from tpo_lab.training.steps.micro_batch import Spread, broken_terms, joined, weighted

WEIGHTS = {"region": {"l1": 5.0, "giou": 2.0}}
OWNERS = {"mlm": 1.0, "region": 0.5}


def report(mlm: list[float], l1: list[float] | None = None, *, leaf: torch.Tensor | None = None) -> LossReport:
    scale = torch.ones(()) if leaf is None else leaf
    terms = {"mlm": {"mlm": scale * torch.tensor(mlm)}}
    if l1 is not None:
        terms["region"] = {"l1": scale * torch.tensor(l1), "giou": scale * torch.tensor(l1) ** 2}
    return combine(terms, WEIGHTS, OWNERS)


def test_a_batch_in_one_part_stays_as_it_is() -> None:
    whole = report([1.0, 2.0], [3.0])
    assert weighted(whole, [whole.counts], Spread([[{"mlm": 2, "region": 1}]]), 0) is whole


def test_parts_of_two_processes_add_up_to_the_whole_batch() -> None:
    """3 words and 1 box there, 1 word and no box here."""
    leaf = torch.ones((), requires_grad=True)
    parts = [report([1.0, 2.0, 6.0], [4.0], leaf=leaf), report([7.0], leaf=leaf)]
    spread = Spread([[{"mlm": 3, "region": 1}], [{"mlm": 1}]])
    found = [weighted(part, [p.counts for p in parts], spread, 0) for part in parts]
    whole = report([1.0, 2.0, 6.0, 7.0], [4.0])
    # mean of 1, 2, 6, 7 is 4; 0.5 (5 x 4 + 2 x 16) is 26
    assert float(whole.total) == 30.0
    total = joined(found)
    assert float(total.total) == pytest.approx(30.0)
    assert total.floats() == pytest.approx(whole.floats())
    assert total.counts == {"mlm": 4, "region/l1": 1, "region/giou": 1} and not total.total.requires_grad
    for part in found:
        part.total.backward(retain_graph=True)
    # every term is linear in the leaf
    assert float(leaf.grad) == pytest.approx(4 + 0.5 * (5 * 4 + 2 * 16))


def test_values_decide_within_a_pass_and_slots_between_passes() -> None:
    """Two slots with 8 frames each here, one slot with 2 frames there: 16 values against 2."""
    parts = [report([1.0], [1.0] * 16), report([1.0], [10.0] * 2)]
    spread = Spread([[{"mlm": 1, "region": 2}], [{"mlm": 1, "region": 1}]])
    found = [weighted(part, [p.counts for p in parts], spread, 0) for part in parts]
    assert joined(found).floats()["region/l1"] == pytest.approx((16 * 1.0 + 2 * 10.0) / 18)
    later = Spread([[{"region": 3}, {"region": 1}], [{"region": 2}]])
    assert (later.passes, later.share(0, "region"), later.share(1, "region")) == (2, 5 / 6, 1 / 6)


def test_a_process_without_parts_adds_nothing() -> None:
    spread = Spread([[], [{"mlm": 2}]])
    part = report([1.0, 3.0])
    idle = weighted(joined([]), [{}, part.counts], spread, 0)
    assert float(idle.total) == 0.0 and idle.terms == {}
    assert joined([idle, weighted(part, [{}, part.counts], spread, 0)]).floats() == pytest.approx({"loss": 2.0, "mlm": 2.0})
    assert Spread([[], []]).passes == 0


def test_a_term_without_values_anywhere_is_zero() -> None:
    part = report([1.0], [])
    found = joined([weighted(part, [part.counts] * 2, Spread([[{"mlm": 1, "region": 0}]] * 2), 0) for _ in range(2)])
    assert found.floats() == pytest.approx({"loss": 1.0, "mlm": 1.0, "region/l1": 0.0, "region/giou": 0.0})


def test_broken_terms_are_named() -> None:
    assert broken_terms(report([1.0], [2.0])) == []
    assert broken_terms(report([float("inf")], [2.0])) == ["mlm"]
    assert broken_terms(LossReport(torch.tensor(float("nan")), {}, {})) == ["the sum"]
