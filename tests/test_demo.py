"""The demo: what it does again and what not, what its bar says, and the whole of it at the smallest size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tpo_lab import demo
from tpo_lab.demo import job as jobs
from tpo_lab.demo import show
from tpo_lab.demo.bar import Bar, TrainingWatch
from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.notebooks import execution
from tpo_lab.notebooks.cells import RESULT

TINY = replace(demo.SMOKE, train_samples=120, val_samples=36, test_samples=36, eval_samples=10, tested=10, examples=2, compositions=10)
TINY = replace(TINY, recipe="nano-long")


def quiet(**weights: float) -> Bar:
    return Bar(weights, say=lambda line: None, console=Console(stderr=True, quiet=True))


class TestSettings:
    def test_sizes_are_checked(self):
        with pytest.raises(UsageError, match="tested: expected at least 1, got 0"):
            demo.DemoSettings(tested=0)
        with pytest.raises(UsageError, match=r"steps: .* got -1"):
            demo.DemoSettings(steps=-1)

    def test_a_folder_is_one_demo(self, tmp_path: Path):
        jobs._Job(tmp_path, 0, TINY, None).claim()
        jobs._Job(tmp_path, 0, TINY, None).claim()
        with pytest.raises(UsageError, match=r"same settings, not \{'seed': 0\}"):
            jobs._Job(tmp_path, 1, TINY, None).claim()

    def test_a_folder_with_something_else_is_left_alone(self, tmp_path: Path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(UsageError, match="a new or empty folder"):
            jobs._Job(tmp_path, 0, TINY, None).claim()
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_file_in_place_of_the_folder(self, tmp_path: Path):
        (tmp_path / "thesis.tex").write_text("text")
        with pytest.raises(UsageError, match=r"out: expected a folder, new or of an earlier demo, got .*thesis.tex, a file"):
            jobs._Job(tmp_path / "thesis.tex", 0, TINY, None).claim()
        assert (tmp_path / "thesis.tex").read_text() == "text"

    def test_a_video_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(UsageError, match=r"video: expected a video file, got .*none.mp4"):
            demo.run(tmp_path / "out", video=tmp_path / "none.mp4", settings=TINY)
        assert not (tmp_path / "out").exists()

    def test_missing_parts_are_named_before_anything_is_done(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(execution, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"'papermill'.*tpo-lab\[demo\]"):
            demo.run(tmp_path / "out", settings=TINY)
        assert not (tmp_path / "out").exists()


class TestPhases:
    def test_a_phase_runs_once(self, tmp_path: Path):
        calls: list[int] = []
        job, bar = jobs._Job(tmp_path, 0, TINY, None), quiet(first=1.0)
        for _ in range(2):
            found = job.phase(bar, "first", lambda: {"calls": calls.append(1) or len(calls)})  # type: ignore[func-returns-value]
        assert found["calls"] == 1 and calls == [1] and found["seconds"] >= 0

    def test_an_interrupted_phase_leaves_no_mark(self, tmp_path: Path):
        def stopped() -> dict[str, Any]:
            raise KeyboardInterrupt

        job = jobs._Job(tmp_path, 0, TINY, None)
        with pytest.raises(KeyboardInterrupt):
            job.phase(quiet(first=1.0), "first", stopped)
        assert not (tmp_path / "first" / "result.json").exists()

    def test_only_what_is_still_to_do_is_expected(self, tmp_path: Path):
        job = jobs._Job(tmp_path, 0, TINY, None)
        everything = job.expected()
        (tmp_path / "before").mkdir()
        (tmp_path / "before" / "result.json").write_text("{}")
        assert set(everything) - set(job.expected()) == {"before"}

    def test_steps_come_from_the_recipe_unless_the_settings_say_them(self, tmp_path: Path):
        lesson = jobs.LESSONS[-1]
        assert jobs._Job(tmp_path, 0, TINY, None).steps(lesson) == {"3a": 2, "3b": 2}
        long = jobs._Job(tmp_path, 0, demo.FULL, None)
        assert long.steps(lesson) == {name: long.recipe.stage(name)[0].steps for name in ("3a", "3b")}

    def test_every_notebook_takes_the_checkpoint_of_the_one_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        started: list[dict[str, Any]] = []

        def execute(notebook: Path, executed: Path, values: dict[str, Any], **_: Any) -> Any:
            started.append(values)
            return SimpleNamespace(result={})

        monkeypatch.setattr(jobs.notebooks, "execute", execute)
        job = jobs._Job(tmp_path, 7, TINY, None)
        checkpoint = ""
        for lesson in jobs.LESSONS:
            job.teach(quiet(), lesson, checkpoint)
            checkpoint = f"{tmp_path / lesson.notebook}/run/{lesson.stages[-1]}/checkpoint"
        assert [Path(values["checkpoint"]).parent.name for values in started] == ["", "1", "2.region", "2.temporal", "2.mask"]
        assert {values["seed"] for values in started} == {7} and {values["steps"] for values in started} == {2}


class TestBar:
    def test_phases_count_by_their_weight(self):
        bar = quiet(short=1.0, long=3.0)
        bar.begin("short")
        bar.at(0.5)
        assert bar.share == pytest.approx(0.125)
        bar.end()
        bar.begin("long")
        bar.count(2, 3)
        assert bar.share == pytest.approx(0.25 + 0.75 * 2 / 3) and "2/3" in bar.line

    def test_a_phase_that_is_done_weighs_nothing(self):
        bar = quiet(left=2.0)
        bar.begin("left")
        bar.at(1.7)
        assert bar.share == 1.0

    def test_it_follows_the_files_of_the_training(self, tmp_path: Path):
        bar = quiet(lesson=1.0)
        bar.begin("lesson")
        watch = TrainingWatch(tmp_path, {"3a": 10, "3b": 30}, bar, training_share=0.5)
        watch()
        assert bar.share == 0
        told = {"seconds": 1.0, "lr": 0.1, "rows": 8, "memory_mib": 900, "gradient/region": 3.0, "not_finite": ["assign"]}
        line = {"step": 10, **told, "loss": 1.5, "mlm": 0.5, "region/l1": 0.25}
        (tmp_path / "3a").mkdir()
        (tmp_path / "3a" / "metrics.jsonl").write_text("".join(json.dumps({"stage": "3a", **line}) + "\n" for _ in range(10)))
        watch.on_cell(1, 2)
        watch()
        # Half of the phase is training, of which 10 of 40 steps are done; half of the cells are.
        assert bar.share == pytest.approx(0.5 * 0.25 + 0.5 * 0.5)
        assert "stage 3a step 10/10" in bar.line and "region/l1 0.25" in bar.line and not [name for name in told if name in bar.line]
        (tmp_path / "3b").mkdir()
        (tmp_path / "3b" / "metrics.jsonl").write_text(json.dumps({"stage": "3b", **line, "step": 1}) + '\n{"stage": "3b", "st')
        watch()
        assert "stage 3b step 1/30" in bar.line

    def test_lines_go_to_the_one_who_waits(self):
        lines: list[str] = []
        with Bar({"a": 1.0}, say=lines.append, console=Console(stderr=True, quiet=True)) as bar:
            bar.say("done [of] it")
        assert lines == ["done [of] it"]


class TestWorld:
    def test_it_makes_what_is_missing_and_leaves_what_is_there(self, tmp_path: Path):
        told: list[tuple[int, int]] = []
        demo.world_data(tmp_path, sizes={"train": 12})
        made = (tmp_path / "train.jsonl").read_bytes()
        demo.world_data(tmp_path, sizes={"train": 30, "val": 10}, progress=lambda done, total: told.append((done, total)))
        assert (tmp_path / "train.jsonl").read_bytes() == made
        assert (tmp_path / "val.jsonl").exists() and told[-1] == (40, 40) and told[0][0] > 30


class TestQuestions:
    def test_the_clip_with_most_tasks_is_asked_about(self, world: Any):
        lonely, full = world(3, "conversation"), world(4)
        asked = show.questions(None, [*lonely, *full])
        assert {sample.media.path for sample in asked} == {full[0].media.path}
        assert {sample.meta["task"] for sample in asked} == {"conversation", "region", "temporal"}
        assert all(sample.meta["kind"] != "caption" and not sample.prompts for sample in asked)

    def test_a_video_of_the_user_is_asked_about_as_it_is(self, tmp_path: Path):
        asked = show.questions(tmp_path / "mine.mp4", [])
        assert len(asked) == 4 and {sample.media.path for sample in asked} == {str(tmp_path / "mine.mp4")}

    def test_masks_and_tracks_are_shown_in_turn(self, world: Any, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(show, "overlay", lambda sample, structured: None)
        samples = [sample for clip in (4, 5, 6) for sample in world(clip, "mask", "track")]
        records = [
            SimpleNamespace(
                id=sample.id,
                media=sample.media.path,
                question=sample.conversation[0].text,
                text="",
                expected=("mask",),
                routed={},
                target={sample.targets.names[0]: {}},
            )
            for sample in samples
        ]
        monkeypatch.setattr(show.reports, "overlap", lambda record, head: None)
        shown = show._examples(records, {sample.id: sample for sample in samples}, "mask", 3)
        kind = {sample.conversation[0].text: sample.targets.names[0] for sample in samples}
        assert [kind[example.question] for example in shown] == ["mask", "track", "mask"]

    def test_the_peak_is_that_of_this_process_beside_the_largest_kernel(self):
        phases = {"data": 100.0, "10": 500.0, "20": 900.0, "after": 300.0}
        measured = {name: {"peak_memory_mb": value} for name, value in phases.items()}
        assert show.peak_memory(measured, ["10", "20"]) == 1200.0
        assert show.peak_memory({**measured, "20": {"peak_memory_mb": None}}, ["10", "20"]) is None


@dataclass(frozen=True)
class Lesson:
    """An executed notebook and what it emitted."""

    path: Path
    result: dict[str, Any]

    def shown(self) -> list[str]:
        """The kinds of its outputs, in order."""
        return [kind for data in self._data() for kind in data]

    def emitted(self) -> dict[str, Any]:
        """The result that its last cell showed."""
        (found,) = [data[RESULT] for data in self._data() if RESULT in data]
        return found

    def _data(self) -> list[dict[str, Any]]:
        cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
        return [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("papermill", reason="papermill is not installed")
    out = tmp_path_factory.mktemp("demo") / "out"
    # In a process of its own, as a user starts it: nothing that pytest loaded helps.
    code = "import sys, json; from tpo_lab import demo; from tests_settings import TINY; demo.run(sys.argv[1], settings=TINY)"
    settings = f"from tpo_lab.demo import DemoSettings; TINY = DemoSettings(**{asdict(TINY)!r})"
    (out.parent / "tests_settings.py").write_text(settings)
    paths = [str(Path(demo.__file__).parents[2]), str(out.parent)]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "10_tokens_and_routing" in done.stderr
    return out, json.loads((out / "demo.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestWhole:
    def test_everything_is_there(self, finished: tuple[Path, dict[str, Any]]):
        out, document = finished
        assert document["schema"] == "tpo_lab.demo/1" and document["settings"]["seed"] == 0
        lessons = [lesson.notebook for lesson in jobs.LESSONS]
        assert list(document["phases"]) == ["data", "before", *lessons, "after", "compositions", "video"]
        assert all(phase["seconds"] > 0 and phase["peak_memory_mb"] > 0 for phase in document["phases"].values())
        assert document["peak_memory_mb"] < 6 * 1024
        assert document["recipe"]["name"] == "nano-long" and "region" in document["compositions"]["scores"]
        assert {"routing", "qa"} <= set(document["after"]) and document["comparison"]
        assert len(document["video"]["answers"]) >= 2
        assert all((out / "video" / answer["picture"]).exists() for answer in document["video"]["answers"])
        text = (out / "report.html").read_text()
        assert text.count("<table") == 3 and "A smoke run" not in text
        assert not list(out.rglob("kernel.log"))

    def test_called_again_it_repeats_nothing(self, finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
        out, document = finished
        monkeypatch.setattr(jobs.notebooks, "execute", lambda *_, **__: pytest.fail("a notebook was run again"))
        lines: list[str] = []
        again = demo.run(out, settings=TINY, say=lines.append)
        assert again["after"] == document["after"] and again["phases"] == document["phases"]
        assert sum("done before" in line for line in lines) == len(document["phases"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestLessons:
    """The notebooks as the demo ran them, each from the checkpoint of the one before."""

    @pytest.fixture
    def lesson(self, finished: tuple[Path, dict[str, Any]]) -> Callable[[str], Lesson]:
        out, document = finished
        return lambda name: Lesson(out / name / f"{name}.ipynb", document["notebooks"][name])

    def test_stage_1(self, lesson: Callable[[str], Lesson]):
        run = lesson("10_tokens_and_routing")
        assert run.result["stages"] == ["1"]
        assert run.shown().count("image/svg+xml") == 6
        assert (Path(run.result["checkpoint"]) / "tpo.json").exists()
        emitted = run.emitted()
        assert {name: run.result[name] for name in emitted} == emitted, "the demo's document holds what the notebook showed"

    def test_the_region_head_takes_the_checkpoint_of_stage_1(self, lesson: Callable[[str], Lesson]):
        import tpo_lab as tpo

        run = lesson("20_region_head")
        assert min(run.result["gradient_norms"][part] for part in ("heads.region", "tokens.task.region", "llm.lora")) > 0
        assert {"image/png", "image/svg+xml", "text/html"} <= set(run.shown())
        history = tpo.load(run.result["checkpoint"]).provenance.history
        assert [entry["stage"] for entry in history] == ["1", "2.region"]

    def test_the_other_heads_and_the_joint_training(self, lesson: Callable[[str], Lesson]):
        import tpo_lab as tpo

        temporal, mask, joint = lesson("21_temporal_head"), lesson("22_mask_head"), lesson("40_joint_training")
        assert {"routed", "teacher_forced"} <= set(temporal.result["after"]["temporal"])
        assert {"routed", "teacher_forced"} <= set(mask.result["after"]["mask"]) and min(mask.result["gradient_norms"].values()) > 0
        assert set(joint.result["plain_questions"]) == {"base", "start", "after 3a", "after 3b"}
        trained = tpo.load(joint.result["checkpoint"])
        assert [entry["stage"] for entry in trained.provenance.history] == ["1", "2.region", "2.temporal", "2.mask", "3a", "3b"]
        assert {"vision.", "connector."} <= trained.trained_backbone_parts
