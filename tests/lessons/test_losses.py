"""Equation 1 taken apart: counts, families, and steps that leave the model alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tpo_lab.errors import UsageError
from tpo_lab.lessons.losses import Term, by_family, curves, few_steps, samples_of_each, terms_of
from tpo_lab.lessons.prompts import batch_of
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora

LORA = Lora(rank=3, alpha=6.0, dropout=0.0)


@pytest.fixture
def samples(world: Callable[..., list[Sample]]) -> list[Sample]:
    everything = [sample for scene in range(8) for sample in world(scene)]
    return samples_of_each(everything, ("conversation", "region", "temporal"), 2)


class TestSamples:
    def test_two_of_each_from_different_clips(self, samples: list[Sample]):
        assert [sample.meta["task"] for sample in samples] == ["conversation"] * 2 + ["region"] * 2 + ["temporal"] * 2
        for one, other in zip(samples[::2], samples[1::2], strict=True):
            assert one.media != other.media

    def test_only_those_that_teach_their_head(self, say: Callable[..., Sample]):
        gone = say(0, "Where is the cup?", "There is none.", region=[])
        followed = say(1, "Track <prompt:0>.", "<track>", boxes=[[1, 1, 9, 9]], track={"times_sec": [0.0], "xyxy": [[1, 1, 9, 9]]})
        scribbled = say(2, "Where is <prompt:0>?", "<region>", strokes=[[[1, 1], [5, 9]]], region=[{"xyxy": [1, 1, 9, 9]}])
        box = say(3, "Where is <prompt:0>?", "<region>", boxes=[[1, 1, 9, 9]], region=[{"xyxy": [1, 1, 9, 9]}])
        assert samples_of_each([gone, followed, scribbled, box], ("region",), 1) == [box]
        with pytest.raises(UsageError, match="expected 1 of the task mask from different clips, got 0"):
            samples_of_each([followed], ("mask",), 1)
        with pytest.raises(UsageError, match="2 of the task region from different clips, got 1"):
            samples_of_each([box, box], ("region",), 2)


class TestTerms:
    def test_counts_means_and_the_sum(self, tiny: TPOModel, samples: list[Sample]):
        batch = batch_of(tiny, samples)
        forward = tiny(batch)
        report = tiny.losses(batch, forward)
        terms = {f"{term.owner}/{term.term}": term for term in terms_of(tiny, batch, forward, report)}
        routes = int(batch.is_route.sum())
        assert routes == 4 and terms["assign/assign"].values == routes
        assert terms["mlm/mlm"].values == len(batch.target) - routes
        boxes = sum(len(sample.targets.region or ()) for sample in samples)
        assert terms["region/l1"].values == terms["region/giou"].values == boxes
        assert (terms["region/l1"].weight, terms["region/giou"].weight) == (2.0, 0.2)
        assert terms["region/l1"].adds == pytest.approx(2 * terms["region/l1"].mean)
        assert sum(term.adds for term in terms.values()) == pytest.approx(report.total.item(), rel=1e-4)
        assert terms["region/l1"].to_dict().keys() == {"owner", "term", "values", "mean", "weight", "adds"}

    def test_routes_count_as_words_where_they_have_no_term(self, tiny: TPOModel, samples: list[Sample]):
        batch = batch_of(tiny, samples)
        forward = tiny(batch)
        (only,) = terms_of(tiny, batch, forward, tiny.losses(batch, forward, {"mlm": 0.5}))
        assert (only.owner, only.term, only.values, only.weight) == ("mlm", "mlm", len(batch.target), 0.5)

    def test_families_are_the_first_words(self):
        terms = [
            Term("a", "x_one", 1, 1.0, 2.0, 2.0),
            Term("a", "x_two", 1, 1.0, 3.0, 3.0),
            Term("a", "y", 0, 0.0, 1.0, 0.0),
            Term("mlm", "mlm", 1, 4.0, 1.0, 4.0),
        ]
        assert by_family(terms) == {"a x": 5.0, "a y": 0.0, "mlm": 4.0}


class TestFewSteps:
    def test_the_model_stays_and_random_numbers_too(self, tiny: TPOModel, samples: list[Sample]):
        tiny.add_lora(LORA)
        before = {name: parameter.detach().clone() for name, parameter in tiny.named_parts().items()}
        learning = {name: parameter.requires_grad for name, parameter in tiny.named_parts().items()}
        state = torch.get_rng_state()
        few_steps(tiny, batch_of(tiny, samples), {}, steps=2)
        assert torch.equal(torch.get_rng_state(), state) and not tiny.training
        for name, parameter in tiny.named_parts().items():
            assert torch.equal(parameter, before[name]) and parameter.requires_grad == learning[name] and parameter.grad is None, name

    def test_the_losses_fall_and_two_runs_are_equal(self, tiny: TPOModel, samples: list[Sample]):
        tiny.add_lora(LORA)
        batch = batch_of(tiny, samples)
        once, again = (few_steps(tiny, batch, {}, steps=8, rate=3e-3, seed=4) for _ in range(2))
        assert once == again and [row["step"] for row in once] == list(range(1, 9))
        assert all(once[-1][part] < once[0][part] for part in ("mlm", "assign", "region", "temporal"))

    def test_a_part_without_weight_is_measured_and_its_head_not_trained(self, build_tiny: Any, samples: list[Sample]):
        model = build_tiny()
        model.add_lora(LORA)
        batch = batch_of(model, samples)
        alone = few_steps(model, batch, {"mlm": 0, "assign": 0, "temporal": 0, "region": 0}, steps=3)
        assert alone[0]["region"] > 0 and alone[-1]["region"] == alone[0]["region"]
        assert few_steps(model, batch, {}, steps=3)[-1]["region"] != alone[-1]["region"]

    def test_the_first_row_is_the_loss_before_its_weight(self, tiny: TPOModel, samples: list[Sample]):
        tiny.add_lora(LORA)
        batch = batch_of(tiny, samples)
        heavy, light = (few_steps(tiny, batch, {"region": weight}, steps=1)[0] for weight in (1000.0, 1.0))
        assert heavy == light

    def test_an_unknown_part_is_refused(self, tiny: TPOModel, samples: list[Sample]):
        with pytest.raises(UsageError, match=r"'regoin'.*region"):
            few_steps(tiny, batch_of(tiny, samples), {"regoin": 1.0}, steps=1)


def test_curves_are_by_part_and_then_by_name():
    histories = {"a": [{"step": 1.0, "mlm": 5.0}, {"step": 2.0, "mlm": 4.0, "region": 3.0}], "b": [{"step": 1.0, "mlm": 6.0}]}
    found = curves(histories)
    assert found == {"mlm": {"a": ([1.0, 2.0], [5.0, 4.0]), "b": ([1.0], [6.0])}, "region": {"a": ([2.0], [3.0])}}
