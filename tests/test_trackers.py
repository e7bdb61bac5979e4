"""Trackers: real TensorBoard files read back, the calls that any other tracker gets, names that are wrong, and one that breaks."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.reruns.written import Wrote, scored, sweep_folder
from tpo_lab import trackers
from tpo_lab.errors import MissingExtraError, TPOError, UsageError
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.reruns.disk.store import Store
from tpo_lab.reruns.running.tracking import MARK, figures, log_finished, trackers_of
from tpo_lab.runs import METRICS, RunFolder, read_jsonl
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora, Stage
from tpo_lab.trackers import Trackers, checked_trackers, default_trackers, flat_parameters, tracked
from tpo_lab.training import TrainingOptions, fit

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")


class Told:
    """A tracker of a program's own, which keeps what it is told."""

    calls: ClassVar[list[tuple[str, Any]]] = []
    name = "told"
    requires_logging_directory = False
    breaks_at = -1

    def __init__(self, project: str) -> None:
        self.calls.append(("new", project))

    def start(self) -> None:
        self.calls.append(("start", None))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(("parameters", values))

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if step == self.breaks_at:
            raise ConnectionError("the server is gone")
        self.calls.append(("log", (step, values)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "told", Told)
    monkeypatch.setattr(Told, "calls", [])
    return Told


def events(folder: Path) -> Any:
    """What TensorBoard itself reads in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def hparams(folder: Path) -> dict[str, Any]:
    """The hyperparameters as TensorBoard's plugin for them reads them."""
    from tensorboard.plugins.hparams import metadata

    contents = events(folder).summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    found = metadata.parse_session_start_info_plugin_data(contents).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def test_none_and_nothing_are_no_tracker(tmp_path: Path):
    assert checked_trackers(()) == checked_trackers(["none"]) == checked_trackers("none") == ()
    run = RunFolder(tmp_path, {})
    with tracked(run, "none", {}):
        run.log(stage="1", step=1, loss=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", METRICS]


def test_names_are_taken_once(told: type[Told]):
    assert checked_trackers(["told", "none", "told"]) == checked_trackers("told") == ("told",)


def test_unknown_tracker_gets_the_closest():
    with pytest.raises(UsageError, match=r"trackers: expected one of .*, got 'tensorbord'. Did you mean 'tensorboard'"):
        checked_trackers(["tensorbord"])


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_tracker_that_is_not_installed_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=rf"The tracker '{name}' needs the module '{name}'.*pip install 'tpo-lab\[{name}\]'"):
        checked_trackers([name])


def test_tracker_without_an_extra_names_its_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(TPOError, match=r"The tracker 'aim' needs the module 'aim', which is not installed.*: pip install aim"):
        checked_trackers(["aim"])


def test_tensorboard_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    assert default_trackers() == ()
    monkeypatch.setattr(trackers, "find_spec", lambda module: object() if module == "tensorboard" else None)
    assert default_trackers() == ("tensorboard",)


def test_parameters_are_flat_and_plain():
    nested = {"recipe": {"name": "small", "steps": [1, 2], "of": {"rate": 1e-3}}, "seed": None, "fast": True}
    assert flat_parameters(nested) == {
        "recipe.name": "small",
        "recipe.steps": "[1, 2]",
        "recipe.of.rate": 1e-3,
        "seed": "null",
        "fast": True,
    }


def test_lines_become_numbers_at_steps_over_all_stages(told: type[Told], tmp_path: Path):
    run = RunFolder(tmp_path / "first", {})
    with tracked(run, ["told"], {"a": {"b": 1}}):
        run.log(stage="1", step=1, seconds=0.5, lr=0.1, loss=2.0, **{"region/l1": 1.5})
        run.log(stage="1", step=2, seconds=0.75, lr=0.2, loss=1.0)
        run.log(stage="3a", step=1, seconds=0.25, lr=0.3, loss=math.inf)
    run.log(stage="3a", step=2, loss=0.0)
    assert told.calls == [
        ("new", "tpo-lab"),
        ("start", None),
        ("parameters", {"a.b": 1}),
        ("log", (1, {"1/seconds": 0.5, "1/lr": 0.1, "1/loss": 2.0, "1/region/l1": 1.5})),
        ("log", (2, {"1/seconds": 0.75, "1/lr": 0.2, "1/loss": 1.0, "1/steps_per_sec": 4.0})),
        ("log", (3, {"3a/seconds": 0.25, "3a/lr": 0.3, "3a/loss": math.inf})),
        ("finish", None),
    ]
    assert len(run.metrics()) == 4, "metrics.jsonl has every line, tracked or not"


def test_a_run_that_goes_on_counts_on(told: type[Told], tmp_path: Path):
    run = RunFolder(tmp_path, {})
    run.log(stage="1", step=1, loss=2.0)
    run.log(stage="1", step=2, loss=2.0)
    with tracked(run, ["told"], {}):
        run.log(stage="1", step=3, loss=1.0)
    assert ("log", (3, {"1/loss": 1.0})) in told.calls


def test_tracker_that_breaks_is_left_out_and_the_run_goes_on(told: type[Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(told, "breaks_at", 2)
    run = RunFolder(tmp_path, {})
    with tracked(run, ["told"], {}):
        run.log(stage="1", step=1, loss=3.0)
        with pytest.warns(UserWarning, match=r"The tracker 'told' failed and is left out: ConnectionError: the server is gone"):
            run.log(stage="1", step=2, loss=2.0)
        run.log(stage="1", step=3, loss=1.0)
    assert [line["loss"] for line in run.metrics()] == [3.0, 2.0, 1.0]
    assert [what for what, _ in told.calls].count("log") == 1


def test_tracker_that_cannot_start_stops_before_anything_is_trained(told: type[Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Told) -> None:
        raise RuntimeError("no key")

    monkeypatch.setattr(told, "start", refuse)
    with pytest.raises(TPOError, match="The tracker 'told' could not be started: RuntimeError: no key"):
        Trackers(["told"], tmp_path, project="p", run="r")


def test_trackers_are_closed_when_the_run_fails(told: type[Told], tmp_path: Path):
    with pytest.raises(KeyError), tracked(RunFolder(tmp_path, {}), ["told"], {}):
        raise KeyError
    assert told.calls[-1] == ("finish", None)


def small(*names: str) -> Recipe:
    settings: dict[str, Any] = {
        "learning_rates": {"llm.lora.*": 1e-2},
        "data": {"region": 1.0, "temporal": 1.0},
        "losses": {"mlm": 1.0, "assign": 1.0},
        "steps": 2,
        "batch_size": 2,
        "precision": "fp32",
    }
    stages = tuple(Stage(name=name, title=name, **settings) for name in names)
    return Recipe(name="small", stages=stages, lora=Lora(rank=2, dropout=0.0, targets=("q_proj",)), frames=4, resolution=64)


@pytest.fixture
def samples(world: Callable[..., list[Sample]]) -> list[Sample]:
    return [sample for index in range(2) for sample in world(index)]


@needs_tensorboard
def test_fit_writes_every_logged_number_for_tensorboard(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path):
    run = fit(build_tiny(), samples, small("1"), tmp_path / "first", options=TrainingOptions(trackers=("tensorboard",)))
    read = events(tmp_path / "first" / "tensorboard" / "first")
    lines = run.metrics()
    names = {name for line in lines for name in line} - {"stage", "step"}
    assert {"loss", "mlm", "assign", "lr", "seconds"} <= names
    for name in names:
        logged = [(event.step, event.value) for event in read.Scalars(f"1/{name}")]
        assert logged == [(step, pytest.approx(line[name], rel=1e-6)) for step, line in enumerate(lines, 1)], name
    (rate,) = read.Scalars("1/steps_per_sec")
    assert rate.value == pytest.approx(1 / (lines[1]["seconds"] - lines[0]["seconds"]), rel=1e-5)
    told = hparams(tmp_path / "first" / "tensorboard" / "first")
    assert (told["recipe.name"], told["options.seed"], told["stage"]) == ("small", 0.0, "all")


def test_fit_has_no_tracker_unless_asked_and_trains_the_same(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path, told: type[Told]
):
    plain = fit(build_tiny(), samples, small("1"), tmp_path / "plain")
    assert not told.calls and not (tmp_path / "plain" / "tensorboard").exists()
    followed = fit(build_tiny(), samples, small("1"), tmp_path / "followed", options=TrainingOptions(trackers=("told",)))
    assert [line["loss"] for line in plain.metrics()] == [line["loss"] for line in followed.metrics()]
    assert [what for what, _ in told.calls] == ["new", "start", "parameters", "log", "log", "finish"]


def test_fit_refuses_an_unknown_tracker_before_it_makes_a_folder(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path
):
    with pytest.raises(UsageError, match="Did you mean 'wandb'"):
        fit(build_tiny(), samples, small("1"), tmp_path / "run", options=TrainingOptions(trackers=("wandbb",)))
    assert not (tmp_path / "run").exists()


def sweep(*names: str, default: bool = False) -> Any:
    return SimpleNamespace(name="of-a-sweep", trackers=None if default else list(names))


@needs_tensorboard
def test_finished_run_is_in_tensorboard_with_parameters_and_figures(tmp_path: Path):
    run = scored({"steps": 4, "mode": "a"}, 2, 0.75)
    store = Store(sweep_folder(tmp_path / "s", [run]))
    log_finished(sweep(default=True), store, run.key)
    folder = tmp_path / "s" / "tensorboard" / f"{run.name} {run.key[:8]}"
    read = events(folder)
    assert {tag: read.Scalars(tag)[0].value for tag in read.Tags()["scalars"]} == {"acc": 0.75, "seconds": 12.5, "peak_memory_mb": 321.0}
    assert hparams(folder) == {"link": "head", "fast": True, "steps": 4.0, "mode": "a", "seed": 2.0}


def test_finished_run_is_logged_once(told: type[Told], tmp_path: Path):
    run = scored({"steps": 4}, 0, 0.75)
    store = Store(sweep_folder(tmp_path / "s", [run]))
    log_finished(sweep("told"), store, run.key)
    log_finished(sweep("told"), store, run.key)
    assert [what for what, _ in told.calls] == ["new", "start", "parameters", "log", "finish"]
    assert told.calls[0] == ("new", "of-a-sweep")
    assert json.loads((tmp_path / "s" / "jobs" / run.key / MARK).read_text()) == ["told"]


def test_run_that_is_not_done_is_not_logged(told: type[Told], tmp_path: Path):
    run = Wrote({}, 0, error={"cell": 1, "type": "E", "message": "m"})
    log_finished(sweep("told"), Store(sweep_folder(tmp_path / "s", [run])), run.key)
    assert told.calls == [] and not (tmp_path / "s" / "jobs" / run.key / MARK).exists()


def test_sweep_without_trackers_logs_nothing(tmp_path: Path):
    run = scored({}, 0, 0.5)
    log_finished(sweep(), Store(sweep_folder(tmp_path / "s", [run])), run.key)
    assert not (tmp_path / "s" / "tensorboard").exists()


def test_run_whose_tracker_breaks_is_offered_again(told: type[Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = scored({}, 0, 0.5)
    store = Store(sweep_folder(tmp_path / "s", [run]))
    with monkeypatch.context() as broken:
        broken.setattr(told, "breaks_at", 0)
        with pytest.warns(UserWarning, match="the server is gone"):
            log_finished(sweep("told"), store, run.key)
    log_finished(sweep("told"), store, run.key)
    assert [what for what, _ in told.calls].count("log") == 1


def test_sweep_names_a_tracker_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"tpo-lab\[mlflow\]"):
        trackers_of(sweep("mlflow"))
    assert trackers_of(sweep(default=True)) == ()
    run = scored({}, 0, 0.5)
    with pytest.warns(UserWarning, match=r"The run head seed=0 was not tracked. The tracker 'mlflow' needs"):
        log_finished(sweep("mlflow"), Store(sweep_folder(tmp_path / "s", [run])), run.key)


def test_figures_are_finite_numbers_only():
    record = {"result": {"headline": {"a": 1, "b": math.nan, "c": "x", "d": {"e": True}}}, "seconds": 2.0, "peak_memory_mb": None}
    assert figures(record) == {"a": 1.0, "d.e": 1.0, "seconds": 2.0}
    assert figures({"result": {}, "seconds": 1}) == {"seconds": 1.0}


def test_trackers_load_nothing_until_they_are_used():
    import subprocess

    code = "import sys, tpo_lab.trackers, tpo_lab.reruns.running.tracking; print({'accelerate', 'torch', 'tensorboard'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_metrics_file_is_as_it_was(tmp_path: Path):
    run = RunFolder(tmp_path, {})
    run.log(stage="1", step=1, loss=0.5)
    assert read_jsonl(tmp_path / METRICS) == [{"stage": "1", "step": 1, "loss": 0.5}]
