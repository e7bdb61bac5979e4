"""A run that stops and goes on ends where a straight one does: to the bit, in every stage, in the middle of an epoch."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.checkpoints.small_runs import differences, differing, every_stage, lines, recipe, stage, two_stages, weights
from tpo_lab import checkpoint
from tpo_lab.checkpoints import atomic
from tpo_lab.checkpoints.layout import seal
from tpo_lab.cli.models import checkpoint_folder
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import HEADS, Head, register
from tpo_lab.heads.base import Visual
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.sample import Sample
from tpo_lab.training import Interrupted, Listener, StageData, TrainingOptions, by_task, fit

Build = Callable[..., TPOModel]
STAGES = ("1", "2.region", "2.temporal", "2.mask", "3a", "3b")
FILES = ("tpo", "adapter/adapter_model", "training/optimizer", "training/random", "training/data")


def stop_at(place: str, step: int) -> Listener:
    def listener(name: str, number: int, total: int, report: LossReport) -> None:
        if (name, number) == (place, step):
            os.kill(os.getpid(), signal.SIGINT)

    return listener


def stopped(model: TPOModel, samples: list[Sample], out: Path, place: str = "1", step: int = 2, **options: Any) -> Path:
    """A run of two stages that was stopped."""
    with pytest.raises(Interrupted):
        fit(model, samples, two_stages(), out, listener=stop_at(place, step), **options)
    return out


@pytest.fixture(scope="module")
def straight(build_all: Build, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All six stages without a stop; every checkpoint is kept."""
    options = TrainingOptions(keep=100)
    return fit(build_all(), samples, every_stage(), tmp_path_factory.mktemp("straight") / "run", options=options).path


@pytest.fixture
def before(straight: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A run folder as it was when a stage of the straight run began."""

    def made(name: str) -> Path:
        done = STAGES[: STAGES.index(name)]
        out = tmp_path / "run"
        for earlier in done[-1:]:
            shutil.copytree(straight / "checkpoints" / f"{earlier}-4", out / "checkpoints" / f"{earlier}-4")
            kept = [line for line in (straight / "metrics.jsonl").read_text().splitlines() if json.loads(line)["stage"] in done]
            (out / "metrics.jsonl").write_text("\n".join(kept) + "\n")
        return out

    return made


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", STAGES)
def test_two_steps_and_two_after_a_resume_are_four(
    straight: Path,
    before: Callable[[str], Path],
    build_all: Build,
    samples: list[Sample],
    audited: list[dict[str, Any]],
    name: str,
    workers: int,
) -> None:
    """Weights, optimizer, random numbers and lines of metrics; whoever decodes the clips before and after."""
    data = StageData(by_task(samples), next(entry for entry in every_stage().stages if entry.name == name), seed=0)
    assert 2 % data.whole.plan.steps_per_epoch, "not in the middle of an epoch"
    out = before(name)
    options: dict[str, Any] = {"stage": name, "resume": True, "options": TrainingOptions(workers=workers)}
    with pytest.raises(Interrupted):
        fit(build_all(), samples, every_stage(), out, **options, listener=stop_at(name, 2))
    fit(build_all(seed=5), samples, every_stage(), out, **options)
    assert lines(out) == [line for line in lines(straight) if line["stage"] in STAGES[: STAGES.index(name) + 1]]
    for file in FILES:
        here, there = (load_file(run / "checkpoints" / f"{name}-4" / f"{file}.safetensors") for run in (straight, out))
        assert differing(here, there) == [], file
    assert [found["training"] and found["training"]["step"] for found in audited] == [2, 4, None]


class Noisy(Head[Tensor, Tensor]):
    """A head that draws from every source of random numbers while it trains."""

    name = "noisy"

    def __init__(self, embed_dim: int, settings: Any = None) -> None:
        super().__init__(embed_dim, settings)
        self.out = torch.nn.Linear(embed_dim, 1)

    def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
        noise = random.random() + random.gauss(0, 1) + np.random.rand() + np.random.randn() + float(torch.rand(()))
        return self.out(task_embedding)[:, 0] + noise

    def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"l1": (prediction - target).abs()}


def test_random_numbers_of_torch_python_and_numpy_go_on(
    build_tiny: Build, say: Callable[..., Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "noisy", {})
    register(Noisy)
    data = [say(index, "How much?", "<noisy>", noisy=3.0).model_copy(update={"id": str(index)}) for index in range(4)]
    chosen = recipe(stage("2.noisy", 5, "noisy"))
    run = fit(build_tiny(("noisy",)), data, chosen, tmp_path / "straight")
    with pytest.raises(Interrupted):
        fit(build_tiny(("noisy",)), data, chosen, tmp_path / "run", listener=stop_at("2.noisy", 3))
    for noise in (random, np.random):
        noise.seed(99)
    fit(build_tiny(("noisy",)), data, chosen, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == lines(run.path)
    assert len({line["noisy/l1"] for line in lines(run.path)}) == 5


def test_the_last_few_checkpoints_are_kept(build_tiny: Build, samples: list[Sample], tmp_path: Path, audited: list[Any]) -> None:
    fit(build_tiny(), samples, two_stages(), tmp_path, options=TrainingOptions(save_every=1, keep=3))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2.region-2", "2.region-3", "2.region-4"]
    assert len(audited) == 9


@pytest.mark.parametrize("option", ["keep", "save_every"])
def test_a_run_keeps_something(option: str) -> None:
    with pytest.raises(UsageError, match=rf"{option}: expected at least 1, got 0"):
        TrainingOptions(**{option: 0})


def test_a_checkpoint_of_a_stopped_run_is_a_model(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    model = build_tiny()
    out = stopped(model, samples, tmp_path / "run", "2.region", 3)
    folder = out / "checkpoints" / "2.region-3"
    assert checkpoint_folder(str(out)) == checkpoint_folder(str(folder)) == checkpoint.latest(out) == folder
    loaded = checkpoint.load(folder)
    assert differing(weights(model), weights(loaded)) == []
    assert [entry["stage"] for entry in loaded.provenance.history] == ["1"]
    config = checkpoint.read_config(folder)
    assert {name: config["training"][name] for name in ("recipe", "stage", "step", "total")} == {
        "recipe": "small",
        "stage": "2.region",
        "step": 3,
        "total": 4,
    }
    state = json.loads((folder / "training" / "state.json").read_text())
    assert state["finished"] == ["1"] and state["sampler"]["step"] == 3


def test_a_damaged_latest_checkpoint_is_said_and_the_one_before_goes_on(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    straight = fit(build_tiny(), samples, two_stages(), tmp_path / "straight")
    options = TrainingOptions(save_every=1)
    out = stopped(build_tiny(), samples, tmp_path / "run", "2.region", 3, options=options)
    weights_file = out / "checkpoints" / "2.region-3" / "tpo.safetensors"
    flip_a_byte(weights_file)
    said: list[str] = []
    run = fit(build_tiny(), samples, two_stages(), out, resume=True, report=said.append, options=options)
    assert any(line.startswith("warning: 2.region-3 cannot be used: ") and "tpo.safetensors: expected the SHA-256" in line for line in said)
    assert lines(run.path) == lines(straight.path)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["2.region-3", "2.region-4"]
    checkpoint.audit(out / "checkpoints" / "2.region-3")


def test_a_disk_that_fills_up_ends_the_run_in_one_sentence_and_it_goes_on_later(
    build_tiny: Build, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, out, options = tmp_path / "straight", tmp_path / "run", TrainingOptions(save_every=1)
    fit(build_tiny(), samples, two_stages(), straight, options=options)
    sync = atomic.sync

    def full(path: Path) -> None:
        if "2.region-2.partial" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    with monkeypatch.context() as broken:
        broken.setattr(atomic, "sync", full)
        with pytest.raises(TPOError, match=r"^checkpoint .*2\.region-2: it could not be written: No space left on device\. What was there"):
            fit(build_tiny(), samples, two_stages(), out, options=options)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["1-4", "2.region-1"]
    fit(build_tiny(), samples, two_stages(), out, options=options, resume=True)
    assert differences(straight, out) == []


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_run_without_a_whole_checkpoint_is_refused(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    out = stopped(build_tiny(), samples, tmp_path / "run")
    (out / "checkpoints" / "1-2" / "training" / "optimizer.safetensors").unlink()
    with pytest.raises(
        TPOError, match=r"none of its 1 checkpoints is whole\. .*optimizer\.safetensors: expected a file of \d+ bytes, got None"
    ):
        fit(build_tiny(), samples, two_stages(), out, resume=True)


@pytest.mark.parametrize("left", ["state.pt", "checkpoint"])
def test_what_has_no_checkpoints_to_go_on_from_is_refused(build_tiny: Build, samples: list[Sample], tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    with pytest.raises(UsageError, match=rf"resume: expected checkpoints/ in .*, got '{left}'\. Start again in another folder"):
        fit(build_tiny(), samples, two_stages(), tmp_path, resume=True)


def test_another_recipe_other_options_and_other_data_are_named_and_refused(
    build_tiny: Build, samples: list[Sample], tmp_path: Path
) -> None:
    out = stopped(build_tiny(), samples, tmp_path / "run", "2.region", 2)
    regions = [sample for sample in samples if sample.meta["task"] == "region"]
    changed = regions[0].model_copy(update={"source": "elsewhere"})
    others = [changed if sample is regions[0] else sample for sample in samples if sample is not regions[1]]
    others.append(regions[1].model_copy(update={"id": "new"}))
    for chosen, data, options, messages in (
        (two_stages().replace(**{"2.region.batch_size": 3}), samples, TrainingOptions(), ["recipe 2.region.batch_size: 2 before, 3 now"]),
        (two_stages().replace(**{"lora.dropout": 0.1}), samples, TrainingOptions(), ["recipe lora.dropout: 0.2 before, 0.1 now"]),
        (
            two_stages(),
            samples,
            TrainingOptions(seed=1, micro_batch=1),
            ["option seed: 0 before, 1 now", "option micro_batch: None before"],
        ),
        (two_stages(), others, TrainingOptions(), [f"data of stage 2.region: {len(regions)} samples before"]),
        (two_stages(), others, TrainingOptions(), ["samples (1 added, 1 removed, 1 changed) now"]),
        (two_stages(), samples[::-1], TrainingOptions(), ["(the same samples in another order) now"]),
    ):
        with pytest.raises(
            UsageError, match=r"^resume of stage 2\.region: expected the recipe, options and data .* --resume-anyway"
        ) as error:
            fit(build_tiny(), data, chosen, out, resume=True, options=options)
        assert all(message in str(error.value) for message in messages), str(error.value)
    with pytest.raises(UsageError, match=r"model heads\.region\.loss: official before, paper now"):
        fit(build_tiny(({"name": "region", "loss": "paper"}, "temporal")), samples, two_stages(), out, resume=True)
    assert not (out / "checkpoint").exists()


def test_stages_that_are_done_may_change(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    fit(build_tiny(), samples, two_stages(), tmp_path, stage="1")
    changed = two_stages().replace(**{"1.steps": 9, "1.batch_size": 1})
    run = fit(build_tiny(), samples, changed, tmp_path, stage="2", resume=True)
    assert [line["stage"] for line in lines(run.path)] == ["1"] * 4 + ["2.region"] * 4
    assert all("changes" not in entry for entry in checkpoint.load(tmp_path / "checkpoint").provenance.history)


def test_options_that_change_nothing_are_not_asked_about(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    out = stopped(build_tiny(), samples, tmp_path / "run")
    free = TrainingOptions(keep=1, save_every=3, gradient_patience=9, feature_cache=str(tmp_path / "cache"))
    assert fit(build_tiny(), samples, two_stages(), out, resume=True, options=free).path == out
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["2.region-4"]


def test_a_change_that_is_allowed_is_in_the_history_of_the_model(
    build_tiny: Build, samples: list[Sample], tmp_path: Path, audited: list[Any]
) -> None:
    out = stopped(build_tiny(), samples, tmp_path / "run", "2.region", 2)
    longer = two_stages().replace(**{"2.region.steps": 6, "2.region.learning_rates.heads.region.*": 0.02})
    fit(build_tiny(), samples, longer, out, resume_anyway=True)
    history = checkpoint.load(out / "checkpoint").provenance.history
    assert [entry["stage"] for entry in history] == ["1", "2.region", "2.region"]
    assert history[1]["resumed_at"] == 2
    assert {(change["name"], change["before"], change["now"]) for change in history[1]["changes"]} == {
        ("recipe 2.region.steps", 4, 6),
        ("recipe 2.region.learning_rates.heads.region.*", 0.01, 0.02),
    }
    # warm-up over round(0.3 x 6) = 2 steps, then half a cosine over four: the third step is at the peak
    rates = [line["lr"] for line in lines(out) if line["stage"] == "2.region"]
    assert rates[2:] == pytest.approx([0.01 * factor for factor in (1.0, 0.85355339, 0.5, 0.14644661)])


def test_what_a_head_without_gradient_has_waited_is_not_forgotten(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    silent = recipe(stage("2.region", 5, "region", losses={"mlm": 1.0, "assign": 1.0}))
    options = TrainingOptions(gradient_patience=4)
    with pytest.raises(Interrupted):
        fit(build_tiny(), samples, silent, tmp_path, options=options, listener=stop_at("2.region", 2))
    said: list[str] = []
    fit(build_tiny(), samples, silent, tmp_path, options=options, resume=True, report=said.append)
    assert "warning: head 'region' has had no gradient for 4 steps of stage 2.region" in said


def test_what_an_earlier_kill_left_is_cleared_away(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    out = stopped(build_tiny(), samples, tmp_path / "run")
    for name in ("checkpoints/1-3.partial", "checkpoints/1-1.dropped", "checkpoint.partial"):
        (out / name / "training").mkdir(parents=True)
    fit(build_tiny(), samples, two_stages(), out, resume=True)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint", "checkpoints", "config.json", "metrics.jsonl"]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["1-4", "2.region-4"]


def test_a_changed_state_that_the_manifest_agrees_with_is_another_version(build_tiny: Build, samples: list[Sample], tmp_path: Path) -> None:
    out = stopped(build_tiny(), samples, tmp_path / "run")
    folder = out / "checkpoints" / "1-2"
    state = json.loads((folder / "training" / "state.json").read_text())
    (folder / "training" / "state.json").write_text(json.dumps({**state, "schema": "tpo_lab.training_state/9"}))
    seal(folder)
    with pytest.raises(TPOError, match=r"schema: expected tpo_lab\.training_state/1, got 'tpo_lab\.training_state/9'"):
        fit(build_tiny(), samples, two_stages(), out, resume=True)
