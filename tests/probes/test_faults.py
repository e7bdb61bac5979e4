"""For each planted fault, the named quantity of the trace shows it, and the repaired model's does not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch

import tpo_lab as tpo
from tpo_lab import freeze
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.probes import FAULTS, diagnosis, mysteries, plant, symptom, symptoms, wrong_letters
from tpo_lab.probes.faults import FROZEN_PART, LEAKING_LABEL, LOST_ROW, SWAPPED_BOX, WRONG_SLOT, sees_next
from tpo_lab.probes.symptoms import EXPLAINED_BY, SYMPTOMS
from tpo_lab.sample import Sample


@pytest.fixture(scope="module")
def sound(shipped_model: TPOModel, asked: list[Sample]) -> Any:
    return tpo.probe(shipped_model, asked)


@pytest.fixture(scope="module")
def planted(shipped_model: TPOModel, asked: list[Sample]) -> dict[str, Any]:
    found = {}
    for fault in FAULTS:
        with plant(shipped_model, fault):
            found[fault] = tpo.probe(shipped_model, asked)
    return found


def test_every_fault_has_a_symptom():
    assert list(FAULTS) == list(SYMPTOMS) == [LOST_ROW, WRONG_SLOT, SWAPPED_BOX, FROZEN_PART, LEAKING_LABEL]


def test_the_sound_model_shows_nothing(sound: Any):
    assert [found.fault for found in symptoms(sound) if found.shown] == [] and diagnosis(sound) is None
    assert all(found.value is not None for found in symptoms(sound)), "and the samples let every quantity tell"


@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_named_quantity_shows_the_fault_and_no_other_fault_is_diagnosed(planted: dict[str, Any], fault: str):
    found = symptom(planted[fault], fault)
    assert found.shown, found
    # the mask is that of all heads
    assert fault == LEAKING_LABEL or "region" in found.where
    assert diagnosis(planted[fault]) == fault
    others = {each.fault for each in symptoms(planted[fault]) if each.shown} - {fault}
    assert all(fault in EXPLAINED_BY[other] for other in others), others


@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_repaired_model_is_the_one_before(shipped_model: TPOModel, asked: list[Sample], sound: Any, fault: str):
    twin = copy.deepcopy(shipped_model)
    treated = plant(twin, fault)
    treated.repair()
    treated.repair()
    trace = tpo.probe(twin, asked)
    assert not symptom(trace, fault).shown
    assert json.dumps(trace.to_dict()) == json.dumps(sound.to_dict())


def test_a_lost_row_leaves_the_head_blameless(planted: dict[str, Any], sound: Any):
    lost = planted[LOST_ROW]
    assert sound.route_probability("region") > 0.9 and lost.route_probability("region") < 0.05
    assert lost.iou("region", "routed") == 0.0
    assert lost.iou("region", "forced") == pytest.approx(sound.iou("region", "forced"), abs=0.05)
    moved = {token.head: token.output_moved for token in lost.added if token.kind == "ROUTE"}
    assert moved["region"] < 1e-5 < 0.1 < moved["temporal"]


def test_a_wrong_slot_reads_the_route(planted: dict[str, Any], sound: Any):
    for trace, kind in ((sound, "SLOT"), (planted[WRONG_SLOT], "ROUTE")):
        read = {sample.tokens[slot.reads].kind for sample in trace.samples for slot in sample.slots if slot.head == "region"}
        assert read == {kind}
    # in training and in answers alike
    wrong = planted[WRONG_SLOT]
    assert wrong.iou("region", "forced") == pytest.approx(wrong.iou("region", "routed"), abs=1e-3)
    assert wrong.iou("region", "forced") < sound.iou("region", "forced") - 0.1
    assert wrong.iou("temporal") == pytest.approx(sound.iou("temporal"), abs=1e-4), "the other heads read their own"


def test_swapped_boxes_are_right_in_their_own_convention(planted: dict[str, Any], sound: Any):
    due = [place for place, sample in enumerate(sound.samples) if "region" in sample.routes.expected]
    readings, right = ([trace.samples[place].heads["region"].readings for place in due] for trace in (planted[SWAPPED_BOX], sound))
    assert [each["cxcywh"] for each in readings] == pytest.approx([each["xyxy"] for each in right], abs=1e-5)
    assert symptom(planted[SWAPPED_BOX], SWAPPED_BOX).where == "region, read as cxcywh"
    # what is read wrongly has been learned well
    assert planted[SWAPPED_BOX].losses["region/patches"].value == sound.losses["region/patches"].value


def test_a_frozen_part_gets_exactly_no_gradient_and_the_head_still_learns(planted: dict[str, Any], sound: Any):
    gradients = planted[FROZEN_PART].gradients
    assert gradients.norm("region", "tokens.task.region") == 0.0 < sound.gradients.norm("region", "tokens.task.region")
    assert gradients.norm("region", "heads.region") == pytest.approx(sound.gradients.norm("region", "heads.region"))
    assert planted[FROZEN_PART].iou("region", "routed") == sound.iou("region", "routed"), "answers say nothing"


def test_a_part_that_does_not_require_a_gradient_counts_as_frozen(shipped_model: TPOModel, asked: list[Sample]):
    twin = copy.deepcopy(shipped_model)
    twin.tokens.task["region"].requires_grad_(False)
    found = symptom(tpo.probe(twin, asked, attention=False), FROZEN_PART)
    assert found.shown and found.where == "region in tokens.task.region"


def test_a_part_that_the_stage_leaves_alone_does_not(shipped_model: TPOModel, asked: list[Sample]):
    twin = copy.deepcopy(shipped_model)
    recipe = tpo.recipe("nano").for_heads(tuple(twin.heads))
    freeze.apply(freeze.FreezePlan.of(recipe.stage("2.region")[0]), twin.named_parts())
    region = [sample for sample in asked if sample.meta["task"] == "region"]
    trace = tpo.probe(twin, region, stage=recipe.stage("1")[0], attention=False)
    assert trace.part("tokens.task.region").trained == 0
    assert not symptom(trace, FROZEN_PART).shown
    assert not twin.head("temporal").training and not next(twin.head("temporal").parameters()).requires_grad


def test_a_leak_is_attention_that_a_sound_mask_forbids(planted: dict[str, Any], sound: Any):
    assert all(each.hidden == 0.0 for each in sound.activations.attention)
    leaks = {each.kind: each for each in planted[LEAKING_LABEL].activations.attention if each.head == "region"}
    assert leaks["ROUTE"].hidden > 1e-3
    sample, reader = planted[LEAKING_LABEL].samples[leaks["ROUTE"].sample], leaks["ROUTE"].token
    assert sample.tokens[reader + 1].kind == "ROUTE", "the token that has to be predicted"
    assert float(leaks["ROUTE"].weights[:, reader + 1].max()) == pytest.approx(leaks["ROUTE"].hidden)


def test_sees_next_by_hand():
    mask = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    # 1 may look at 0, so that 0 looks at 1; 2 may not look at 1
    assert sees_next(mask).tolist() == [[False, True, False], [False, False, False], [False, False, False]]


def test_a_fault_may_hit_another_head(shipped_model: TPOModel, asked: list[Sample]):
    with plant(shipped_model, WRONG_SLOT, head="temporal") as fault:
        trace = tpo.probe(shipped_model, asked, gradients=False, attention=False)
    assert fault.head == "temporal"
    assert symptom(trace, WRONG_SLOT).shown and symptom(trace, WRONG_SLOT).where == "temporal"


def test_a_trace_without_the_measure_does_not_tell(shipped_model: TPOModel, asked: list[Sample]):
    trace = tpo.probe(shipped_model, asked[:1], gradients=False, attention=False)
    assert asked[0].meta["task"] == "conversation"
    assert {found.value for found in symptoms(trace)} == {None} and diagnosis(trace) is None


def test_wrong_names_are_refused(shipped_model: TPOModel, sound: Any):
    with pytest.raises(UsageError, match="Did you mean 'wrong slot'"):
        plant(shipped_model, "wrong slots")
    with pytest.raises(UsageError, match=r"expected one of .*region.*got 'regoin'"):
        plant(shipped_model, WRONG_SLOT, head="regoin")
    with pytest.raises(UsageError, match="got 'leak'"):
        symptom(sound, "leak")


def test_boxes_of_a_head_without_boxes_are_refused(shipped_model: TPOModel, asked: list[Sample]):
    with plant(shipped_model, SWAPPED_BOX, head="temporal"), pytest.raises(UsageError, match=r"predictions are boxes.*got 'temporal'"):
        tpo.probe(shipped_model, asked)


def test_a_mystery_keeps_its_secret_and_takes_one_cure(build_tiny: Any):
    model = build_tiny().eval()
    patients = mysteries(model, seed=5)
    assert list(patients) == list("ABCDE")
    found = {letter: next(fault for fault in FAULTS if patient.has(fault)) for letter, patient in patients.items()}
    assert sorted(found.values()) == sorted(FAULTS)
    assert not any(fault in repr(patient) for fault in FAULTS for patient in patients.values())
    assert wrong_letters(patients, found) == []
    letters = list(found)
    swapped = {**found, letters[0]: found[letters[1]]}
    assert wrong_letters(patients, swapped) == [letters[0]]
    assert wrong_letters(patients, {}) == letters
    slot = next(letter for letter in letters if found[letter] == WRONG_SLOT)
    assert "embed" in vars(patients[slot].model.backbone)
    assert not patients[slot].treat(LOST_ROW) and "embed" in vars(patients[slot].model.backbone)
    assert patients[slot].treat(WRONG_SLOT) and "embed" not in vars(patients[slot].model.backbone)
    assert "embed" not in vars(model.backbone), "the model itself was never touched"


def test_mysteries_are_shuffled_by_the_seed(build_tiny: Any):
    model = build_tiny().eval()
    orders = {tuple(next(f for f in FAULTS if p.has(f)) for p in mysteries(model, seed=seed).values()) for seed in range(4)}
    assert len(orders) > 1
    with pytest.raises(UsageError, match="got 'Z'"):
        wrong_letters(mysteries(model, seed=0), {"Z": LOST_ROW})
