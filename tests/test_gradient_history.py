"""Gradients over the steps of a run: what is written is what a probe says, and training never notices."""

from __future__ import annotations

import mmap
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tpo_lab as tpo
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.probes.step import routes_of
from tpo_lab.recipes import Recipe
from tpo_lab.runs import PROBES, RunFolder, read_probes
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import Interrupted, TrainingOptions, fit, task_of
from tpo_lab.training.cost.process_memory import process_memory, resident_bytes
from tpo_lab.training.watch.gradient_history import handful

EVERY = TrainingOptions(probe_every=2, probe_samples=3)
KEYS = ["stage", "step", "seconds", "samples", "losses", "gradients", "routes"]


def stage(name: str, steps: int, *heads: str) -> Stage:
    rates = {"llm.lora.*": 1e-2, **{f"heads.{head}.*": 1e-2 for head in heads}, **{f"tokens.task.{head}": 1e-2 for head in heads}}
    return Stage(
        name=name,
        title=name,
        learning_rates=rates,
        data=dict.fromkeys(heads or ("region", "temporal"), 1.0),
        losses={"mlm": 1.0, "assign": 2.0, **dict.fromkeys(heads, 1.0)},
        steps=steps,
        batch_size=2,
        max_questions=2,
        warmup_ratio=0.0,
        grad_clip=1.0,
        precision="fp32",
        batching="mixed" if len(heads) > 1 else "homogeneous",
    )


def two_stages(**changes: Any) -> Recipe:
    lora = Lora(rank=2, dropout=0.2, targets=("q_proj", "up_proj"))
    stages = (stage("1", 3), stage("3a", 5, "region", "temporal"))
    return Recipe(name="small", stages=stages, lora=lora, frames=4, resolution=64).replace(**changes)


@pytest.fixture(scope="module")
def samples(world: Callable[..., list[Sample]]) -> list[Sample]:
    return [sample for index in range(3) for sample in world(index)]


def weights(model: TPOModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parts().items()}


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in ("seconds", "memory_mib", "cuda_mib")} for line in lines]


@pytest.fixture(scope="module")
def probed(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Both stages with a measurement before every second step."""
    model = build_tiny()
    run = fit(model, samples, two_stages(), tmp_path_factory.mktemp("probed") / "run", options=EVERY)
    return SimpleNamespace(run=run, weights=weights(model))


def test_training_is_the_same_bit_by_bit_with_and_without(
    probed: Any, build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
):
    model = build_tiny()
    plain = fit(model, samples, two_stages(), tmp_path)
    found = weights(model)
    assert found.keys() == probed.weights.keys()
    assert [name for name in found if not torch.equal(found[name], probed.weights[name])] == []
    assert timeless(plain.metrics()) == timeless(probed.run.metrics())
    assert plain.probes() == [] and not (tmp_path / PROBES).exists()


def test_lines_are_of_the_first_step_and_of_every_second_one(probed: Any):
    lines = read_probes(probed.run.path)
    assert lines == probed.run.probes()
    assert [(line["stage"], line["step"]) for line in lines] == [("1", 1), ("1", 2), ("3a", 1), ("3a", 2), ("3a", 4)]
    assert all(list(line) == KEYS and line["seconds"] >= 0 for line in lines)
    assert len({tuple(line["samples"]) for line in lines if line["stage"] == "3a"}) == 1, "always the same ones"
    first, later = lines[2], lines[4]
    assert first["gradients"]["owners"] == ["mlm", "assign", "region", "temporal"]
    assert first["losses"]["assign"]["weighted"] == pytest.approx(2 * first["losses"]["assign"]["value"])
    assert first["losses"] != later["losses"], "the model has learned in between"


def test_the_first_line_is_what_a_probe_of_the_untrained_model_says(
    probed: Any, build_tiny: Callable[..., TPOModel], samples: list[Sample]
):
    line, recipe = probed.run.probes()[0], two_stages()
    by_id = {sample.id: sample for sample in samples}
    chosen = [by_id[name] for name in line["samples"]]
    assert len(by_id) == len(samples) and len(chosen) == 3 and {task_of(sample) for sample in chosen} == {"region", "temporal"}
    model = build_tiny()
    torch.manual_seed(0)
    model.add_lora(recipe.lora)
    trace = tpo.probe(model, chosen, stage=recipe.stages[0], attention=False)
    found = trace.to_dict()
    assert line["losses"] == {name: pytest.approx(term, rel=1e-5) for name, term in found["losses"].items()}
    assert line["gradients"]["owners"] == found["gradients"]["owners"] and list(line["gradients"]["modules"]) == list(
        trace.gradients.modules
    )
    for module, wanted in found["gradients"]["modules"].items():
        for kind in ("norms", "shares", "cosines"):
            values = line["gradients"]["modules"][module][kind]
            assert {name for name in values if values[name] is None} == {name for name in wanted[kind] if wanted[kind][name] is None}
            told = {name: value for name, value in wanted[kind].items() if value is not None}
            assert {name: values[name] for name in told} == pytest.approx(told, rel=1e-4, abs=1e-7)
    for head, routes in line["routes"].items():
        assert routes["probability"] == pytest.approx(trace.route_probability(head), rel=1e-4)
        assert routes["due"] == sum(due.head == head for sample in trace.samples for due in sample.routes.due)
        assert set(routes["most_probable"]) == {"region", "temporal", "none"} and sum(routes["most_probable"].values()) == pytest.approx(1)


def test_a_measurement_takes_at_most_one_backward_pass_for_each_owner(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    passes, plain = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: (passes.append(1), plain(*args, **options))[1])
    backward, steps = torch.Tensor.backward, []
    monkeypatch.setattr(torch.Tensor, "backward", lambda self, *args, **options: (steps.append(1), backward(self, *args, **options))[1])
    run = fit(build_tiny(), samples, two_stages(), tmp_path, options=EVERY)
    owners = [len(line["gradients"]["owners"]) for line in run.probes()]
    assert owners == [2, 2, 4, 4, 4] and len(passes) == sum(owners)
    assert len(steps) == 3 + 5, "and training its own, one for each step"


def at(place: str, step: int, action: Callable[[], None]) -> Callable[[str, int, int, LossReport], None]:
    def listener(name: str, number: int, total: int, report: LossReport) -> None:
        if (name, number) == (place, step):
            action()

    return listener


class Crash(Exception):
    """The process died."""


def die() -> None:
    raise Crash


@pytest.mark.parametrize(
    ("place", "step", "kept"),
    [("3a", 3, 4), ("3a", 1, 3), ("1", 2, 2)],
)
def test_ctrl_c_and_resume_leave_the_lines_of_a_straight_run(
    probed: Any, build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path, place: str, step: int, kept: int
):
    with pytest.raises(Interrupted):
        stop = at(place, step, lambda: os.kill(os.getpid(), signal.SIGINT))
        fit(build_tiny(), samples, two_stages(), tmp_path, options=EVERY, listener=stop)
    assert len(read_probes(tmp_path)) == kept
    model = build_tiny(seed=5)
    run = fit(model, samples, two_stages(), tmp_path, options=EVERY, resume=True)
    assert timeless(run.probes()) == timeless(probed.run.probes())
    assert all(torch.equal(value, probed.weights[name]) for name, value in weights(model).items())


def test_a_killed_run_repeats_what_it_measured_after_its_last_state(
    probed: Any, build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
):
    with pytest.raises(Crash):
        fit(build_tiny(), samples, two_stages(), tmp_path, options=EVERY, listener=at("3a", 4, die))
    assert len(read_probes(tmp_path)) == 5, "the state is that after stage 1"
    with (tmp_path / PROBES).open("a") as file:
        file.write('{"stage": "3a", "st')
    run = fit(build_tiny(), samples, two_stages(), tmp_path, options=EVERY, resume=True)
    assert timeless(run.probes()) == timeless(probed.run.probes())


def test_a_resumed_run_may_measure_more_often_or_not_at_all(
    probed: Any, build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
):
    with pytest.raises(Interrupted):
        fit(build_tiny(), samples, two_stages(), tmp_path, listener=at("3a", 3, lambda: os.kill(os.getpid(), signal.SIGINT)))
    model = build_tiny()
    run = fit(model, samples, two_stages(), tmp_path, options=TrainingOptions(probe_every=1), resume=True)
    assert [(line["stage"], line["step"]) for line in run.probes()] == [("3a", 4), ("3a", 5)]
    assert all(torch.equal(value, probed.weights[name]) for name, value in weights(model).items())


def test_random_numbers_modes_and_gradients_stay(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path):
    from tpo_lab.media import Frames
    from tpo_lab.training import StageData, StageLoop, by_task
    from tpo_lab.training.steps.processes import Processes

    model, entry = build_tiny(), two_stages().stages[1]
    model.add_lora(two_stages().lora)
    data, run = StageData(by_task(samples), entry, 0), RunFolder(tmp_path, {})
    loop = StageLoop(model, entry, data, Frames(model.backbone), run, EVERY, Processes())
    model.train()
    kept = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    kept.grad = torch.ones_like(kept)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), [module.training for module in model.modules()])
    assert loop.history.measure(1) > 0 and loop.history.measure(3) == 0.0
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate(), [module.training for module in model.modules()])
    assert torch.equal(before[0], after[0]) and np.array_equal(before[1], after[1]) and before[2:] == after[2:]
    assert bool((kept.grad == 1).all()) and all(p.grad is None for p in model.parameters() if p is not kept)
    assert [line["step"] for line in run.probes()] == [1]


def test_the_precision_is_that_of_the_stage(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path):
    model, seen = build_tiny(), []
    model.backbone.model.model.language_model.layers[0].mlp.register_forward_hook(
        lambda module, args, output: seen.append((module.training, output.dtype))
    )
    fit(model, samples, two_stages(**{"1.precision": "bf16"}), tmp_path, stage="1", options=EVERY)
    # the last one is behind the training, for later audits
    assert [dtype for training, dtype in seen if not training] == [torch.bfloat16] * 2 + [torch.float32]


def test_a_handful_has_every_task_and_is_the_same_for_the_same_seed():
    groups: Any = {"region": list("abcdefgh"), "temporal": list("xyz"), "mask": ["m"]}
    found = handful(groups, 6, "0|3a")
    assert found == handful(groups, 6, "0|3a") and found != handful(groups, 6, "1|3a")
    assert len(found) == len(set(found)) == 6
    assert "m" in found and len(set(found) & set("xyz")) == 2 and len(set(found) & set("abcdefgh")) == 3
    assert {task for task, group in groups.items() if set(handful(groups, 1, "s")) & set(group)} == set(groups)
    assert sorted(handful(groups, 64, "s")) == sorted("abcdefghxyzm")


def test_routes_by_hand():
    """Two region routes and a temporal one: right, lost to a word, lost to region."""
    logits = torch.full((4, 6), -20.0)
    for place, values in enumerate(({4: 3.0, 5: 1.0}, {1: 2.0, 4: 0.0}, {4: 1.0, 5: 0.0}, {2: 9.0})):
        for token, value in values.items():
            logits[place, token] = value
    ids = SimpleNamespace(route={"region": 4, "temporal": 5, "mask": 3})
    batch: Any = SimpleNamespace(is_route=torch.tensor([True, True, True, False]), target=torch.tensor([4, 4, 5, 2]))
    model: Any = SimpleNamespace(tokens=SimpleNamespace(ids=ids))
    found = routes_of(model, batch, SimpleNamespace(logits=logits))
    assert set(found) == {"region", "temporal"}
    probability = [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]
    assert found["region"].to_dict() == {
        "due": 2,
        "probability": pytest.approx(np.mean(probability), rel=1e-5),
        "most_probable": {"region": 0.5, "temporal": 0.0, "mask": 0.0, "none": 0.5},
    }
    assert found["temporal"].due == 1 and found["temporal"].most_probable["region"] == 1.0
    assert found["temporal"].probability == pytest.approx(1 / (1 + np.e), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe_every": 0}, "probe_every: expected at least 1, or None, got 0"),
        ({"probe_samples": 0}, "probe_samples: expected 1 to 64, got 0"),
        ({"probe_samples": 65}, "probe_samples: expected 1 to 64, got 65"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, int], message: str):
    with pytest.raises(UsageError, match=message):
        TrainingOptions(**options)


def test_metrics_have_the_rows_and_the_memory_of_every_step(probed: Any):
    lines = probed.run.metrics()
    assert all(isinstance(line["memory_mib"], int) and line["memory_mib"] > 50 for line in lines)
    assert {line["rows"] for line in lines} == {2}
    assert "cuda_mib" in lines[0] or not torch.cuda.is_available()


def test_resident_memory_grows_by_what_is_filled(tmp_path: Path):
    before = resident_bytes()
    with mmap.mmap(-1, 200 << 20) as filled:
        # memory of its own: what the process has freed before would be filled again and not grow
        filled.write(os.urandom(1 << 20) * 200)
        assert before is not None and resident_bytes() - before > 0.8 * len(filled)
    elsewhere = resident_bytes(tmp_path / "statm")
    assert elsewhere is not None and elsewhere >= 0.8 * before, "a system without the file tells the most that it ever was"
    assert process_memory()["memory_mib"] * 2**20 == pytest.approx(resident_bytes(), rel=0.2)
