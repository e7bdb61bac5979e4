"""What a trace answers about its samples, without any further measurement."""

from __future__ import annotations

from typing import Any

import pytest

import tpo_lab as tpo
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.probes.trace import Activations, SampleTrace, TermLoss, Trace

# by sample: what each owner adds to its loss; the third one's box loss weighs much
LOSSES = [
    {"mlm": (0.5, 1.0)},
    {"mlm": (0.1, 1.0), "region/l1": (0.2, 1.0)},
    {"assign": (3.0, 1.0), "region/l1": (0.1, 5.0), "region/giou": (0.4, 2.0)},
    {"mlm": (0.2, 1.0), "assign": (0.1, 1.0), "region/l1": (0.3, 1.0), "temporal/span": (0.9, 1.0)},
    {},
]


def trace_of(losses: list[dict[str, tuple[float, float]]]) -> Trace:
    anything: Any = None
    samples = [
        SampleTrace(*[anything] * 9, losses={name: TermLoss(*term) for name, term in terms.items()})  # type: ignore[misc]
        for terms in losses
    ]
    activations = Activations((), anything)
    return Trace(tuple(samples), {}, None, activations, (), (), ("region", "temporal"))


def test_samples_that_teach_both_come_first_then_the_greater_loss():
    trace = trace_of(LOSSES)
    # both: 1 (0.1 + 0.2) and 3 (0.2 + 0.3); one: 2 (0.5 + 0.8), 0 (0.5)
    assert trace.samples_of("mlm", "region") == trace.samples_of("region", "mlm") == (3, 1, 2, 0)
    assert trace.samples_of("region", "temporal") == (3, 2, 1)
    assert trace.samples_of("assign", "assign") == (2, 3)
    assert trace_of(LOSSES[-1:]).samples_of("mlm", "region") == ()


def test_equal_losses_stay_in_order():
    assert trace_of([{"mlm": (1.0, 1.0)}] * 3).samples_of("mlm", "temporal") == (0, 1, 2)


def test_an_unknown_owner_is_refused_with_the_closest():
    for pair in (("mlm", "regoin"), ("regoin", "mlm")):
        with pytest.raises(
            UsageError, match=r"owner of a loss: expected one of assign, mlm, region, temporal, got 'regoin'\. Did you mean"
        ):
            trace_of(LOSSES).samples_of(*pair)


def test_a_conflict_leads_to_its_samples_without_a_backward_pass(tiny: TPOModel, world: Any, monkeypatch: pytest.MonkeyPatch):
    samples = [world(0, task)[0] for task in ("conversation", "region", "temporal")]
    trace = tpo.probe(tiny, samples, attention=False)
    monkeypatch.setattr("torch.autograd.grad", None)
    assert set(trace.samples_of("region", "temporal")) == {1, 2}
    assert trace.samples_of("assign", "region")[0] == 1
