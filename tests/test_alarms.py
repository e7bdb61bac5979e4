"""Alarms: each kind by hand-made lines, at the step at which it can be told and not before; and what real runs leave."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tpo_lab.errors import TPOError
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.runs import read_jsonl, read_probes
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import TrainingOptions, fit
from tpo_lab.training.watch.alarms import EXPLODED, NO_GRADIENT, NOT_FINITE, ROUTE_COLLAPSE, Alarm, Limits, alarms


def lines(stage: str, **columns: list[Any]) -> list[dict[str, Any]]:
    """One line for each step, from columns of values; None leaves a value out. "__" stands for "/"."""
    count = len(next(iter(columns.values())))
    named = {name.replace("__", "/"): values for name, values in columns.items()}
    return [
        {"stage": stage, "step": step + 1, "seconds": 0.1, "lr": 1e-4, "rows": 2, "memory_mib": 500}
        | {name: values[step] for name, values in named.items() if values[step] is not None}
        for step in range(count)
    ]


def told(found: tuple[Alarm, ...]) -> list[tuple[str, str, int, str]]:
    return [(alarm.kind, alarm.stage, alarm.step, alarm.subject) for alarm in found]


def routes(stage: str, step: int, **most_probable: tuple[int, dict[str, float]]) -> dict[str, Any]:
    """A line of probes.jsonl: by head, how many of its routes are due, and which is the most probable there."""
    found = {head: {"due": due, "probability": 0.1, "most_probable": shares} for head, (due, shares) in most_probable.items()}
    return {"stage": stage, "step": step, "losses": {}, "gradients": {"modules": {}}, "routes": found}


def test_a_sound_run_has_no_alarm():
    falling = [2.0 / (step + 1) for step in range(80)]
    assert alarms(lines("1", loss=falling, mlm=falling, gradient__region=[1.0] * 80)) == ()
    assert alarms([]) == alarms([], []) == ()


def test_a_head_without_gradient_is_told_once_at_the_step_of_patience():
    gradients = [0.5, 0.0, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0]
    metrics = lines("2.region", gradient__region=gradients, gradient__temporal=[0.1] * 9, mlm=[1.0] * 9)
    found = alarms(metrics, limits=Limits(patience=3))
    assert told(found) == [(NO_GRADIENT, "2.region", 4, "region"), (NO_GRADIENT, "2.region", 9, "region")]
    assert [alarm.began for alarm in found] == [2, 7]
    assert "no loss has reached it for 3 steps" in found[0].meaning and "'region' above 0" in found[0].advice
    assert told(alarms(metrics, limits=Limits(patience=4))) == [(NO_GRADIENT, "2.region", 5, "region")]
    assert alarms(metrics, limits=Limits(patience=5)) == ()


def test_steps_of_two_stages_are_not_added_up():
    metrics = [*lines("1", gradient__region=[0.0, 0.0]), *lines("3a", gradient__region=[0.0, 0.0])]
    assert alarms(metrics, limits=Limits(patience=3)) == ()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_told_by_its_terms(broken: float):
    metrics = lines("1", loss=[1.0, broken, broken], mlm=[1.0, broken, broken], assign=[0.5, 0.5, broken])
    found = alarms(metrics)
    assert told(found) == [(NOT_FINITE, "1", 2, "mlm"), (NOT_FINITE, "1", 3, "assign")]
    assert "'mlm' is not a finite number at step 2" in found[0].meaning
    assert told(alarms(lines("1", loss=[broken], mlm=[1.0]))) == [(NOT_FINITE, "1", 1, "loss")]


def test_names_that_a_run_folder_wrote_down_are_read():
    metrics = [*lines("1", loss=[1.0]), {"stage": "1", "step": 2, "mlm": 0.5, "not_finite": ["loss", "region/l1"]}]
    assert told(alarms(metrics)) == [(NOT_FINITE, "1", 2, "region/l1")]
    (found,) = alarms([{"stage": "1", "step": 2, "loss": 0.5, "not_finite": ["gradient/region"]}])
    assert found.subject == "region" and found.meaning.startswith("The gradient of 'region' is not a finite number")


def test_a_single_spike_is_no_alarm_and_neither_are_many():
    spiky = [0.1, 0.1, 0.1, 9.0] * 30
    assert alarms(lines("3b", mlm=[0.1] * 20 + [50.0] + [0.1] * 20)) == ()
    assert alarms(lines("3b", assign=[0.1] * 20 + spiky)) == ()
    assert len(alarms(lines("3b", assign=[0.1] * 20 + spiky), limits=Limits(lasting=1))) == 30


def test_a_lasting_explosion_is_told_once_with_the_step_at_which_it_began():
    values = [0.5 - 0.01 * step for step in range(20)] + [0.3, 40.0, 30.0, 50.0, 20.0, 10.0, 60.0, 70.0]
    (found,) = alarms(lines("3b", mlm=values, loss=values, assign=[1.0] * 28))
    assert (found.kind, found.stage, found.began, found.step, found.subject) == (EXPLODED, "3b", 22, 26, "mlm")
    # of 0.5, 0.49, ..., 0.31 and 0.3
    assert found.meaning == (
        "The loss 'mlm' has stayed at more than 10 times its usual 0.4 since step 22, "
        "and higher than when the stage began: it is 10 at step 26."
    )
    assert told(alarms(lines("3b", mlm=values[:25]))) == [], "it cannot be told before the fifth value"


def test_a_term_that_exploded_against_its_median():
    values = [4.0, 3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 4.0, 4.9, 5.1, 9.0, 0.5, 6.0, 7.0, 8.0, 9.0]
    limits = Limits(factor=10.0, window=5, least=4, lasting=2)
    # usual 0.5 until step 10; 4.0 is no more than at the start, 4.9 is not 10 times as much, 5.1 is alone, 9.0 is no longer unusual
    assert told(alarms(lines("3a", region__l1=values, mlm=[1.0] * 16), limits=limits)) == []
    values[7:9] = [0.5, 0.5]
    found = alarms(lines("3a", region__l1=values, mlm=[1.0] * 16), limits=limits)
    assert told(found) == [(EXPLODED, "3a", 11, "region/l1")] and found[0].began == 10
    assert "10 times its usual 0.5 since step 10," in found[0].meaning and "it is 9 at step 11." in found[0].meaning


def test_an_explosion_needs_a_history_a_factor_more_than_the_start_and_several_in_a_row():
    limits = Limits(factor=10.0, window=50, least=4, lasting=2)
    flat = [1.0, 1.0, 1.0, 1.0]
    assert told(alarms(lines("1", mlm=[*flat, 10.0, 10.0]), limits=limits)) == []
    assert told(alarms(lines("1", mlm=[*flat, 10.1, 11.0, 1.0, 12.0, 1.0, 13.0, 14.0, 15.0]), limits=limits)) == [
        (EXPLODED, "1", 6, "mlm"),
        (EXPLODED, "1", 11, "mlm"),
    ]
    assert alarms(lines("1", mlm=[*flat[1:], 11.0, 1.0]), limits=limits) == (), "three values are no history"
    assert alarms(lines("1", mlm=[50.0, *flat, 11.0, 11.0]), limits=limits) == (), "it was higher when it began"
    assert alarms(lines("1", mlm=[*flat, None, None]), limits=limits) == ()
    rare = [*flat, None, 11.0, None, None, 12.0]
    assert told(alarms(lines("1", mlm=rare), limits=limits)) == [(EXPLODED, "1", 9, "mlm")], "values in a row, whatever steps are between"
    assert alarms(lines("1", mlm=[0.0] * 4 + [1.0, 1.0]), limits=limits) == (), "nothing is usual yet"
    high = [0.1] * 4 + [9.0] * 2
    assert alarms(lines("1", lr=high, gradient__region=high, rows=[1] * 4 + [99] * 2), limits=limits) == ()


def test_a_value_that_is_not_finite_does_not_enter_the_median():
    metrics = lines("1", mlm=[1.0, math.nan, 1.0, 1.0, 1.0, 20.0, math.nan, 30.0])
    found = alarms(metrics, limits=Limits(least=4, lasting=2))
    assert told(found) == [(NOT_FINITE, "1", 2, "mlm"), (EXPLODED, "1", 8, "mlm")] and found[1].began == 6


def test_routes_that_collapse_are_told_when_two_probes_show_it():
    to_region = {"region": 1.0, "temporal": 0.0, "none": 0.0}
    sound = {"region": 0.25, "temporal": 0.75, "none": 0.0}
    probes = [
        routes("3a", 1, region=(4, to_region), temporal=(4, to_region)),
        routes("3a", 5, region=(4, to_region), temporal=(4, sound)),
        routes("3a", 10, region=(4, to_region), temporal=(4, to_region)),
        routes("3a", 15, region=(4, to_region), temporal=(4, to_region)),
        routes("3a", 20, region=(4, to_region), temporal=(4, to_region)),
    ]
    found = alarms([], probes)
    assert told(found) == [(ROUTE_COLLAPSE, "3a", 15, "region")]
    assert "ask head 'region' in 100% of the places" in found[0].meaning and found[0].began == 10
    assert told(alarms([], probes, Limits(probes=1))) == [(ROUTE_COLLAPSE, "3a", 1, "region"), (ROUTE_COLLAPSE, "3a", 10, "region")]


def test_a_share_is_of_all_due_routes_of_other_heads():
    taken = {"region": 1.0, "temporal": 0.0, "mask": 0.0, "none": 0.0}
    half = {"region": 0.5, "temporal": 0.0, "mask": 0.5, "none": 0.0}
    one = Limits(probes=1)
    # of 9 + 1 places of other heads, 9.5 and of 2 + 2 places, 3
    assert told(alarms([], [routes("3a", 1, temporal=(9, taken), mask=(1, half))], one)) == [(ROUTE_COLLAPSE, "3a", 1, "region")]
    assert alarms([], [routes("3a", 1, temporal=(2, taken), mask=(2, half))], one) == ()


def test_no_collapse_without_other_heads_or_where_no_route_is_the_most_probable():
    one = Limits(probes=1)
    right, silent = {"region": 1.0, "temporal": 0.0, "none": 0.0}, {"region": 0.0, "temporal": 0.0, "none": 1.0}
    assert alarms([], [routes("2.region", 1, region=(8, right))], one) == ()
    assert alarms([], [routes("1", 1, region=(4, silent), temporal=(4, silent))], one) == ()
    assert alarms([], [routes("1", 1, temporal=(1, right))], one) == (), "one place alone tells nothing"


def test_probes_tell_what_is_not_finite_too():
    term = {"value": 1.0, "weight": 1.0, "weighted": 1.0}
    broken = {"value": None, "weight": 1.0, "weighted": None}
    norms = {"heads.region": {"norms": {"mlm": 0.0, "region": None}}, "llm.lora.0": {"norms": {"mlm": 0.5, "region": None}}}
    line = {"stage": "3a", "step": 4, "routes": {}}
    first = {**line, "losses": {"mlm": term, "region/l1": broken}, "gradients": {"modules": norms}}
    assert told(alarms([], [first])) == [(NOT_FINITE, "3a", 4, "region/l1")]
    second = {**line, "losses": {"mlm": term, "region/l1": term}, "gradients": {"modules": norms}}
    assert told(alarms([], [second])) == [(NOT_FINITE, "3a", 4, "region")]
    metrics = [{"stage": "3a", "step": 4, "mlm": 1.0, "not_finite": ["loss", "region/l1"]}]
    assert len(alarms(metrics, [first])) == 1, "what both tell is told once"


def test_alarms_come_in_the_order_of_the_run_and_are_json():
    metrics = [*lines("2.region", gradient__region=[0.0] * 3), *lines("1", mlm=[math.nan])]
    wrong = {"region": 1.0, "temporal": 0.0, "none": 0.0}
    probes = [routes("2.region", step, temporal=(4, wrong)) for step in (1, 2)]
    found = alarms(metrics, probes, Limits(patience=3))
    assert [(alarm.stage, alarm.step) for alarm in found] == [("2.region", 2), ("2.region", 3), ("1", 1)]
    for alarm in found:
        assert json.loads(json.dumps(alarm.to_dict())) == dataclasses.asdict(alarm)
        assert all(text.endswith(".") and text.count(". ") == 0 for text in (alarm.meaning, alarm.advice)), "one sentence each"


@pytest.fixture
def samples(world: Callable[..., list[Sample]]) -> list[Sample]:
    return [sample for index in range(2) for sample in world(index)]


def recipe(**losses: float) -> Recipe:
    rates = {"llm.lora.*": 1e-2, "heads.region.*": 1e-2, "tokens.task.region": 1e-2}
    stage = Stage(
        name="2.region",
        title="the region head",
        learning_rates=rates,
        data={"region": 1.0},
        losses={"mlm": 1.0, "assign": 1.0, **losses},
        steps=3,
        batch_size=2,
        precision="fp32",
    )
    return Recipe(name="small", stages=(stage,), lora=Lora(rank=2, dropout=0.0, targets=("q_proj",)), frames=4, resolution=64)


def test_a_run_that_does_not_weigh_its_head(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path):
    run = fit(build_tiny(), samples, recipe(), tmp_path, options=TrainingOptions(probe_every=2))
    assert told(alarms(run.metrics(), run.probes(), Limits(patience=2))) == [(NO_GRADIENT, "2.region", 2, "region")]
    sound = fit(build_tiny(), samples, recipe(region=1.0), tmp_path / "sound", options=TrainingOptions(probe_every=2))
    assert alarms(sound.metrics(), sound.probes(), Limits(patience=2)) == ()


@pytest.mark.parametrize("probe_every", [None, 1])
def test_a_run_that_stopped_for_a_loss_that_is_not_finite_says_so_in_its_folder(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path, probe_every: int | None
):
    model = build_tiny()
    with torch.no_grad():
        next(model.head("region").parameters())[0] = float("inf")
    with pytest.raises(TPOError, match="step 1: the loss is not finite"):
        fit(model, samples, recipe(region=1.0), tmp_path, options=TrainingOptions(probe_every=probe_every))
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text, "strict readers of JSON read it too"
    metrics, probes = read_jsonl(tmp_path / "metrics.jsonl"), read_probes(tmp_path)
    assert metrics[-1]["step"] == 1 and {"loss", "region/l1"} <= set(metrics[-1]["not_finite"]) and metrics[-1]["mlm"] > 0
    assert len(probes) == (1 if probe_every else 0)
    found = told(alarms(metrics, probes))
    assert (NOT_FINITE, "2.region", 1, "region/l1") in found and all(kind == NOT_FINITE for kind, *_ in found)
    assert not [subject for *_, subject in found if subject in ("mlm", "assign", "loss")]
