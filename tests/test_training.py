"""The loop: exact resume wherever it stops, honest metrics, and one clear sentence for what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.checkpoints.small_runs import TEXT, stage
from tpo_lab import checkpoint, training
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import HEADS, Head, register
from tpo_lab.heads.base import Visual
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.recipes import Recipe
from tpo_lab.runs import RunFolder
from tpo_lab.sample import Sample
from tpo_lab.stages import CurriculumPart, Lora, Stage
from tpo_lab.training import Interrupted, StageData, StageLoop, TrainingOptions, by_task, difficulty, fit, loop, task_of

STEPS = {"1": 2, "2.region": 4, "3a": 2}


def recipe(*stages: Stage, dropout: float = 0.2) -> Recipe:
    lora = Lora(rank=2, dropout=dropout, targets=("q_proj", "up_proj"))
    return Recipe(name="small", stages=stages, lora=lora, frames=4, resolution=64)


def three_stages() -> Recipe:
    joint = stage("3a", STEPS["3a"], "region", "temporal", batching="mixed")
    rates = {**joint.learning_rates, "vision.*": 1e-3, "connector.*": 1e-3, "prompts.*": 1e-3}
    return recipe(stage("1", STEPS["1"]), stage("2.region", STEPS["2.region"], "region"), dataclasses.replace(joint, learning_rates=rates))


@pytest.fixture(scope="module")
def samples(world: Callable[..., list[Sample]]) -> list[Sample]:
    return [sample for index in range(4) for sample in world(index)]


def weights(model: TPOModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parts().items()}


def differing(here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[str]:
    assert here.keys() == there.keys()
    return [name for name in here if not torch.equal(here[name], there[name])]


def moved(before: Mapping[str, Tensor], model: TPOModel) -> set[str]:
    """What training changed, by the names that it had before LoRA wrapped its layers."""
    after = {name.replace(".base_layer.", "."): weight for name, weight in weights(model).items()}
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


def lines(run: RunFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory_mib", "cuda_mib")} for line in run.metrics()]


def numbers(run: RunFolder) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "stage"} for line in lines(run)]


@dataclass(frozen=True)
class Straight:
    """All three stages without a stop."""

    model: TPOModel
    weights: dict[str, Tensor]
    run: RunFolder


@pytest.fixture(scope="module")
def straight(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Straight:
    model = build_tiny()
    run = fit(model, samples, three_stages(), tmp_path_factory.mktemp("straight") / "run")
    return Straight(model, weights(model), run)


class Crash(Exception):
    """The process died."""


def at(place: str, step: int, action: Callable[[], None]) -> training.Listener:
    def listener(name: str, number: int, total: int, report: LossReport) -> None:
        if (name, number) == (place, step):
            action()

    return listener


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def die() -> None:
    raise Crash


@pytest.mark.parametrize(("name", "step"), [("1", 1), ("1", 2), ("2.region", 1), ("3a", 2)])
def test_ctrl_c_saves_and_resume_ends_bit_by_bit_where_a_straight_run_does(
    straight: Straight,
    build_tiny: Callable[..., TPOModel],
    samples: list[Sample],
    tmp_path: Path,
    name: str,
    step: int,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=rf"Stopped in stage {name} after step {step} of {STEPS[name]}\. Go on with --resume"):
        fit(build_tiny(), samples, three_stages(), tmp_path / "run", listener=at(name, step, press_ctrl_c))
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "run" / "checkpoint").exists()
    resumed = build_tiny(seed=5)
    run = fit(resumed, samples, three_stages(), tmp_path / "run", resume=True)
    assert differing(straight.weights, weights(resumed)) == []
    assert lines(run) == lines(straight.run)
    assert resumed.provenance == straight.model.provenance
    assert differing(weights(checkpoint.load(run.path / "checkpoint")), straight.weights) == []


@pytest.mark.parametrize(("name", "step"), [("1", 1), ("2.region", 1), ("2.region", 3), ("3a", 1)])
def test_a_killed_run_goes_on_from_its_last_state(
    straight: Straight,
    build_tiny: Callable[..., TPOModel],
    samples: list[Sample],
    tmp_path: Path,
    name: str,
    step: int,
) -> None:
    """Before any state, at the start of a stage without one of its own, and behind one: what was logged since is repeated."""
    options = TrainingOptions(save_every=2)
    with pytest.raises(Crash):
        fit(build_tiny(), samples, three_stages(), tmp_path / "run", options=options, listener=at(name, step, die))
    resumed = build_tiny()
    run = fit(resumed, samples, three_stages(), tmp_path / "run", resume=True)
    assert differing(straight.weights, weights(resumed)) == []
    assert lines(run) == lines(straight.run)


def test_resume_of_a_finished_run_changes_nothing(
    straight: Straight, build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
) -> None:
    shutil.copytree(straight.run.path, tmp_path / "run")
    again = build_tiny(seed=7)
    run = fit(again, samples, three_stages(), tmp_path / "run", resume=True)
    assert differing(straight.weights, weights(again)) == []
    assert differing(weights(checkpoint.load(run.path / "checkpoint")), straight.weights) == []
    assert lines(run) == lines(straight.run)


def test_stages_one_by_one_equal_all_at_once(
    straight: Straight, build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
) -> None:
    for word in ("1", "2", "3a"):
        model = build_tiny()
        run = fit(model, samples, three_stages(), tmp_path / "run", stage=word, resume=True)
    assert differing(straight.weights, weights(model)) == []
    assert lines(run) == lines(straight.run)


def test_only_what_the_stages_name_has_changed_and_the_checkpoint_holds_all_of_it(
    straight: Straight, build_tiny: Callable[..., TPOModel]
) -> None:
    changed = moved(weights(build_tiny()), straight.model)
    # nobody points at anything in these scenes, so the box encoder stays as it was
    assert {name.split(".")[0] for name in changed} == {"vision", "connector", "tokens", "heads"}
    found = checkpoint.audit(straight.run.path / "checkpoint")
    assert found["equals_memory"] and found["parts"]["llm.base"]["changed"] == 0
    assert not straight.model.training


def test_metrics_name_stage_step_rate_every_term_and_every_heads_gradient(straight: Straight) -> None:
    found = straight.run.metrics()
    assert [(line["stage"], line["step"]) for line in found] == [(name, step + 1) for name, steps in STEPS.items() for step in range(steps)]
    first, second, third = (next(line for line in found if line["stage"] == name) for name in STEPS)
    assert set(first) - {"cuda_mib"} == {"stage", "step", "seconds", "lr", "rows", "memory_mib", "loss", "mlm", "assign"}
    assert set(second) - set(first) == {"region/l1", "region/giou", "gradient/region"}
    assert set(third) >= {"gradient/region", "gradient/temporal", "temporal/start"}
    assert all(line["loss"] > 0 and line["seconds"] >= 0 for line in found)
    assert any(line["gradient/region"] > 0 for line in found if line["stage"] == "2.region")
    # warm-up over round(0.3 x 4) = 1 step, then the peak, then half a cosine to zero at step 4
    rates = [line["lr"] for line in found if line["stage"] == "2.region"]
    assert rates == pytest.approx([0.005, 0.01, 0.0075, 0.0025])


def test_config_is_that_of_the_run(straight: Straight) -> None:
    config = json.loads((straight.run.path / "config.json").read_text())
    assert Recipe.from_dict(config["recipe"]) == three_stages()
    assert config["options"] == dataclasses.asdict(TrainingOptions())
    assert set(config["samples"]) == {"conversation", "region", "temporal"}


@pytest.mark.parametrize("left", ["state.pt", "metrics.jsonl", "checkpoints/1-2/tpo.json"])
def test_fit_refuses_a_folder_with_a_run(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path, left: str) -> None:
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("")
    with pytest.raises(UsageError, match=rf"out: expected a folder without a run, got '{tmp_path}'\. Add --resume"):
        fit(build_tiny(), samples, three_stages(), tmp_path)


def test_fit_refuses_an_unknown_stage_with_the_list(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stage: expected one of 1, 2, 2\.region, 3a, all, got '3'"):
        fit(build_tiny(), samples, three_stages(), tmp_path, stage="3")
    assert not list(tmp_path.iterdir())


def test_fit_refuses_missing_data_before_it_touches_anything(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
) -> None:
    model = build_tiny()
    few = [sample for sample in samples if sample.meta["task"] != "temporal"]
    with pytest.raises(
        UsageError, match=r"data of stage 1: expected samples of region, temporal, got 'conversation \(\d+\), region \(\d+\)'"
    ):
        fit(model, few, three_stages(), tmp_path)
    assert model.lora is None and not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_is_one_sentence_with_its_terms(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
) -> None:
    model = build_tiny()
    with torch.no_grad():
        next(model.head("region").parameters())[0] = float("inf")
    with pytest.raises(TPOError, match=r"stage 2\.region, step 1: the loss is not finite \(terms: region/"):
        fit(model, samples, three_stages(), tmp_path, stage="2.region")
    assert not (tmp_path / "checkpoints").exists(), "a broken model is not saved"


def test_a_head_without_gradient_is_reported_by_name_once(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
) -> None:
    said: list[str] = []
    silent = stage("2.region", 4, "region", losses=TEXT)
    fit(build_tiny(), samples, recipe(silent), tmp_path, report=said.append, options=TrainingOptions(gradient_patience=2))
    warnings = [line for line in said if line.startswith("warning")]
    assert warnings == [
        "warning: no stage of recipe 'small' trains head 'temporal'",
        "warning: head 'region' has had no gradient for 2 steps of stage 2.region",
    ]
    assert said[1].startswith("stage 2.region: stage 2.region; 4 steps; ") and any(
        "llm.lora: " in line and "at 0.01" in line for line in said
    )


def test_listener_sees_every_step_with_its_losses(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, set[str]]] = []
    fit(
        build_tiny(),
        samples,
        recipe(stage("1", 2)),
        tmp_path,
        listener=lambda name, step, total, report: seen.append((name, step, total, set(report.terms))),
    )
    assert seen == [("1", 1, 2, {"mlm", "assign"}), ("1", 2, 2, {"mlm", "assign"})]


@pytest.mark.parametrize("micro_batch", [1, 2])
@pytest.mark.parametrize("assign", [True, False])
def test_micro_batches_give_the_losses_and_the_steps_of_the_whole_batch(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path, micro_batch: int, assign: bool
) -> None:
    """Three rows of several tasks: parts of 1, or of 2 and 1, with unequal numbers of words, routes and slots."""
    joint = stage("3a", 2, "region", "temporal", batching="mixed", batch_size=3)
    losses = {"mlm": 1.0, "region": 2.0, "temporal": 0.5, **({"assign": 3.0} if assign else {})}
    chosen = recipe(dataclasses.replace(joint, losses=losses), dropout=0.0)
    chosen = chosen.replace(**{"switches.assign_loss": "separate" if assign else "inside_mlm"})
    results = []
    for size in (None, micro_batch):
        model = build_tiny()
        run = fit(model, samples, chosen, tmp_path / str(size), options=TrainingOptions(micro_batch=size))
        results.append((weights(model), numbers(run)))
    (whole, whole_lines), (parts, part_lines) = results
    for one, other in zip(whole_lines, part_lines, strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=1e-6)
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 2e-3, "Adam's first steps are of size 1e-2"


def test_cached_features_train_like_uncached_ones(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(stage("2.region", 3, "region"), dropout=0.0)
    cached = fit(build_tiny(), samples, chosen, tmp_path / "cached")
    monkeypatch.setattr(loop, "FeatureCache", lambda *_, **__: None)
    plain = fit(build_tiny(), samples, chosen, tmp_path / "plain")
    for one, other in zip(numbers(cached), numbers(plain), strict=True):
        assert one == pytest.approx(other, rel=5e-3)


def test_the_cache_is_used_only_while_the_vision_side_is_frozen(
    straight: Any, build_tiny: Callable[..., TPOModel], samples: list[Sample]
) -> None:
    model, run = build_tiny(), straight.run
    model.add_lora(three_stages().lora)
    from tpo_lab.media import Frames
    from tpo_lab.training.steps.processes import Processes

    found = {}
    for entry in three_stages().stages:
        data = StageData(by_task(samples), entry, 0)
        found[entry.name] = StageLoop(model, entry, data, Frames(model.backbone), run, TrainingOptions(), Processes()).cache
    assert found["1"] is not None and found["2.region"] is not None and found["3a"] is None


def test_precision_is_each_stages_own(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    model = build_tiny()
    model.backbone.model.model.language_model.layers[0].mlp.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    chosen = recipe(stage("1", 1, precision="bf16"), stage("2.region", 1, "region", precision="fp32"), dropout=0.0)
    run = fit(model, samples, chosen, tmp_path)
    # behind the last stage, the trained model is run once more for later audits
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    exact = fit(build_tiny(), samples, chosen.replace(**{"1.precision": "fp32"}), tmp_path / "exact")
    assert run.metrics()[0]["mlm"] == pytest.approx(exact.metrics()[0]["mlm"], rel=0.02)


def test_a_third_head_trains_through_a_stage_without_a_change_to_the_library(
    build_tiny: Callable[..., TPOModel], say: Callable[..., Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "count", {})

    @register
    class CountHead(Head[Tensor, Tensor]):
        """How many things there are."""

        name = "count"

        def __init__(self, embed_dim: int, settings: Any = None) -> None:
            super().__init__(embed_dim, settings)
            self.out = nn.Linear(embed_dim, 1)

        def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
            return self.out(task_embedding)[:, 0]

        def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
            return {"l1": (prediction - target).abs()}

    data = [say(index, f"How many, of {index}?", "<count>", count=3.0).model_copy(update={"id": str(index)}) for index in range(4)]
    model = build_tiny(("region", "count"))
    before = weights(model)
    chosen = recipe(
        stage(
            "2.count",
            20,
            "count",
            batch_size=4,
            grad_clip=None,
            learning_rates={"llm.lora.*": 2e-2, "heads.count.*": 5e-2, "tokens.task.count": 5e-2},
        )
    )
    run = fit(model, data, chosen, tmp_path)
    found = [line["count/l1"] for line in run.metrics()]
    assert found[-1] < 0.3 * found[0] and found[0] > 1
    changed = moved(before, model)
    assert {"heads.count.out.weight", "tokens.task.count"} <= changed
    assert not [name for name in changed if "region" in name]
    assert checkpoint.load(run.path / "checkpoint").head("count").spec() == {"name": "count", "head": "default"}


def test_task_of_reads_meta_then_the_first_marker_then_conversation(say: Callable[..., Sample]) -> None:
    window = {"windows_sec": [[0.0, 1.0]]}
    marked = say(0, "?", "no", "?", "<temporal>", temporal=window)
    assert task_of(marked) == "temporal"
    assert task_of(marked.model_copy(update={"meta": {"task": "region"}})) == "region"
    assert task_of(say(0, "?", "no")) == "conversation"
    assert {task: len(group) for task, group in by_task([marked, marked, say(0, "?")]).items()} == {"temporal": 2, "conversation": 1}


def test_stage_data_shows_every_sample_once_an_epoch(samples: list[Sample]) -> None:
    data = StageData(by_task(samples), stage("2.region", 9, "region", batch_size=1), seed=3)
    rows = data.sizes["region"]
    for epoch in range(2):
        shown = [row for step in range(epoch * rows, (epoch + 1) * rows) for row in data.batch(step)]
        assert sorted(sample.id for row in shown for sample in row) == sorted(sample.id for sample in by_task(samples)["region"])
        assert all(len({sample.media.path for sample in row}) == 1 for row in shown)
    assert data.total_steps == 9


def test_processes_share_a_batch(samples: list[Sample]) -> None:
    data = StageData(by_task(samples), stage("2.region", 9, "region", batch_size=4), seed=3)
    for step in (0, 5):
        assert data.batch(step) == [row for rank in range(2) for row in data.batch(step, rank, 2)]


def graded(samples: list[Sample]) -> list[Sample]:
    return [sample.model_copy(update={"meta": {**sample.meta, "difficulty": index}}) for index, sample in enumerate(samples)]


def test_a_curriculum_shows_hard_samples_later_and_all_in_the_end(samples: list[Sample]) -> None:
    regions = graded(by_task(samples)["region"])
    parts = (CurriculumPart(until=0.25, difficulty=0), CurriculumPart(until=0.5, difficulty=1))
    data = StageData({"region": regions}, stage("2.region", 40, "region", batch_size=2, curriculum=parts), seed=3)
    shown = [{difficulty(sample) for row in data.batch(step) for sample in row} for step in range(40)]
    assert set().union(*shown[:10]) == {0}
    assert set().union(*shown[10:20]) == {0, 1}
    assert set().union(*shown[20:]) == {float(index) for index in range(len(regions))}
    assert data.sizes["region"] == StageData({"region": regions}, stage("2.region", 40, "region", batch_size=2), seed=3).sizes["region"]


def test_samples_without_a_difficulty_are_easy(samples: list[Sample]) -> None:
    first, *rest = by_task(samples)["region"]
    plain = first.model_copy(update={"meta": {}})
    hard = [sample.model_copy(update={"meta": {**sample.meta, "difficulty": 3}}) for sample in rest]
    entry = stage("2.region", 4, "region", curriculum=(CurriculumPart(until=0.5, difficulty=0),))
    data = StageData({"region": [plain, *hard]}, entry, seed=0)
    assert {sample.id for step in range(2) for row in data.batch(step) for sample in row} == {plain.id}


def test_a_part_without_samples_is_left_out_and_its_steps_go_to_the_next(samples: list[Sample]) -> None:
    regions = [s.model_copy(update={"meta": {"difficulty": 2 + index % 2}}) for index, s in enumerate(by_task(samples)["region"])]
    parts = (CurriculumPart(until=0.25, difficulty=1), CurriculumPart(until=0.5, difficulty=2))
    data = StageData({"region": regions}, stage("2.region", 40, "region", batch_size=2, curriculum=parts), seed=0)
    assert data.left_out == [1]
    shown = [{difficulty(sample) for row in data.batch(step) for sample in row} for step in range(40)]
    assert set().union(*shown[:20]) == {2} and set().union(*shown[20:]) == {2, 3}


def test_a_stage_says_which_part_is_left_out(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path) -> None:
    hard = [sample.model_copy(update={"meta": {**sample.meta, "difficulty": 3}}) for sample in samples]
    entry = stage("2.region", 1, "region", curriculum=(CurriculumPart(until=0.5, difficulty=2),))
    said: list[str] = []
    fit(build_tiny(), hard, recipe(entry), tmp_path, report=said.append)
    assert any("difficulty 2 or less: that part of the curriculum is left out" in line for line in said)


def test_what_is_too_easy_for_a_stage_is_left_out_where_there_is_more(samples: list[Sample]) -> None:
    groups = by_task(samples)
    ungraded = [sample.model_copy(update={"meta": {}}) for sample in groups["conversation"]]
    mixed = {"region": graded(groups["region"]), "conversation": ungraded}
    entry = stage("3b", 40, "region", data={"region": 1.0, "conversation": 1.0}, batch_size=2, easiest=1)
    shown = [sample for step in range(40) for row in StageData(mixed, entry, seed=0).batch(step) for sample in row]
    assert {difficulty(s) for s in shown if task_of(s) == "region"} == {float(index) for index in range(1, len(mixed["region"]))}
    assert {difficulty(s) for s in shown if task_of(s) == "conversation"} == {0.0}


def test_a_difficulty_that_is_no_number_is_refused(samples: list[Sample]) -> None:
    odd = [sample.model_copy(update={"meta": {"difficulty": "hard"}}) for sample in by_task(samples)["region"]]
    entry = stage("2.region", 4, "region", curriculum=(CurriculumPart(until=0.5, difficulty=2),))
    with pytest.raises(UsageError, match=r"meta\.difficulty of sample .*: expected a number, got 'hard'"):
        StageData({"region": odd}, entry, seed=0)


def test_parts_end_one_after_the_other() -> None:
    backwards = (CurriculumPart(until=0.5, difficulty=1), CurriculumPart(until=0.2, difficulty=2))
    with pytest.raises(UsageError, match=r"curriculum: expected parts of which each ends later"):
        stage("2.region", 4, "region", curriculum=backwards)
