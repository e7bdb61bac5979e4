"""The phases of the demo and their order. Each leaves a result.json in its folder and is not repeated where that is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab import notebooks
from tpo_lab.demo import show
from tpo_lab.demo.bar import Bar, TrainingWatch
from tpo_lab.demo.settings import FULL, SMOKE, DemoSettings
from tpo_lab.demo.world import world_data
from tpo_lab.errors import UsageError
from tpo_lab.runs import environment, stopwatch, write_json

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel
    from tpo_lab.records import Record

SCHEMA = "tpo_lab.demo/1"
_SECONDS_PER_STEP = 0.4
_SECONDS = {"data": 60.0, "before": 40.0, "after": 40.0, "compositions": 80.0, "video": 5.0, "report": 5.0}
_NOTEBOOK_SECONDS = 40.0
_BASELINE_SAMPLES = 10_000


@dataclass(frozen=True)
class Lesson:
    """A notebook of the demo: its name and the stages that it trains, in order."""

    notebook: str
    stages: tuple[str, ...]


LESSONS = (
    Lesson("10_tokens_and_routing", ("1",)),
    Lesson("20_region_head", ("2.region",)),
    Lesson("21_temporal_head", ("2.temporal",)),
    Lesson("22_mask_head", ("2.mask",)),
    Lesson("40_joint_training", ("3a", "3b")),
)
"""Each notebook takes the checkpoint of the one before: heads are trained one after the other, then all together."""


def run(
    out: Path | str,
    *,
    seed: int = 0,
    video: Path | str | None = None,
    settings: DemoSettings = FULL,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Make data, train every stage by running the notebooks, evaluate before and after, and write `out/report.html` and `out/demo.json`.

    Needs no network. Called again with the same arguments it goes on where it was stopped.

    Args:
        seed: of the data, of the heads and of the training.
        video: a video file to ask questions about; a clip of the test split where None.
        settings: sizes, such as `SMOKE`, which does just enough to see that every part runs, or `LONG`.
        say: prints a line for the person who waits; on standard error where None.

    Returns:
        What demo.json holds: settings, environment, phases with seconds and peak memory, scores and the rows of the comparison.

    Raises:
        UsageError: `out` holds a demo with other settings, or there is no such video.
        MissingExtraError: papermill or ipykernel is not installed.
        TPOError: a notebook failed.
        KeyboardInterrupt: after Ctrl-C; what is finished stays, and a stage that was interrupted goes on at its last step.
    """
    notebooks.require_extra()
    # Notebooks run in folders of their own, so every path is absolute.
    job = _Job(Path(out).resolve(), seed, settings, None if video is None else Path(video).resolve())
    job.claim()
    with Bar(job.expected(), say) as bar:
        return job.all(bar)


class _Job:
    """One demo in one folder."""

    def __init__(self, out: Path, seed: int, settings: DemoSettings, video: Path | None) -> None:
        from tpo_lab.recipes import recipe

        if video is not None and not video.is_file():
            raise UsageError("video", expected="a video file", got=str(video))
        self.out, self.seed, self.settings, self.video = out, seed, settings, video
        self.recipe = recipe(settings.recipe)

    def claim(self) -> None:
        """Write the settings, or compare them with those of the demo that is in the folder.

        Raises:
            UsageError: they differ, or the folder holds something else.
        """
        if self.out.exists() and not self.out.is_dir():
            raise UsageError("out", expected="a folder, new or of an earlier demo", got=f"{self.out}, a file")
        path = self.out / "settings.json"
        mine = {"seed": self.seed, "video": None if self.video is None else str(self.video), **asdict(self.settings)}
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found != mine:
                different = {name: found.get(name) for name, value in mine.items() if found.get(name) != value}
                hint = "Choose another folder, or remove this one."
                raise UsageError(
                    "out", expected=f"a folder of a demo with the same settings, not {different}", got=str(self.out), hint=hint
                )
        elif self.out.exists() and any(self.out.iterdir()):
            raise UsageError("out", expected="a new or empty folder, or one of an earlier demo", got=str(self.out))
        write_json(path, mine)

    def expected(self) -> dict[str, float]:
        """Expected seconds of what is still to do."""
        weights = {name: _SECONDS[name] for name in ("data", "before")}
        for lesson in LESSONS:
            weights[lesson.notebook] = _NOTEBOOK_SECONDS + _SECONDS_PER_STEP * sum(self.steps(lesson).values())
        more = ("compositions",) if self.settings.compositions else ()
        weights |= {name: _SECONDS[name] for name in ("after", *more, "video", "report")}
        return {name: seconds for name, seconds in weights.items() if not (self.out / name / "result.json").exists()}

    def steps(self, lesson: Lesson) -> dict[str, int]:
        """Steps of each stage of a notebook; 0 where the recipe counts in epochs."""
        return {name: self.settings.steps or self.recipe.stage(name)[0].steps or 0 for name in lesson.stages}

    def all(self, bar: Bar) -> dict[str, Any]:
        """Every phase in turn."""
        phases = {"data": self.phase(bar, "data", partial(self.make_data, bar))}
        phases["before"] = self.phase(bar, "before", partial(self.evaluate, bar, None))
        checkpoint = ""
        for lesson in LESSONS:
            phases[lesson.notebook] = self.phase(bar, lesson.notebook, partial(self.teach, bar, lesson, checkpoint))
            checkpoint = str(self.out / lesson.notebook / "run" / lesson.stages[-1] / "checkpoint")
        # the joint stages have changed the vision side, and nobody needs what it saw before
        shutil.rmtree(self.out / "data" / "features", ignore_errors=True)
        phases["after"] = self.phase(bar, "after", partial(self.evaluate, bar, checkpoint))
        if self.settings.compositions:
            phases["compositions"] = self.phase(bar, "compositions", partial(self.evaluate, bar, checkpoint, "compositions"))
        phases["video"] = self.phase(bar, "video", partial(self.ask, checkpoint))
        bar.begin("report")
        document = self.document(phases)
        report = show.report(self.out, document, self.records("before"), self.records("after"))
        (self.out / "report.html").write_text(report, encoding="utf-8")
        write_json(self.out / "demo.json", document)
        bar.end()
        bar.say(f"The report is {self.out / 'report.html'}")
        return document

    def phase(self, bar: Bar, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The result of a phase: what its result.json says, or what its work gives."""
        path = self.out / name / "result.json"
        if path.exists():
            bar.say(f"{name}: done before")
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        bar.begin(name)
        with stopwatch() as watch:
            result = dict(work())
        result = {"peak_memory_mb": notebooks.peak_memory_mb(), **result, "seconds": watch["seconds"]}
        write_json(path, result)
        bar.end()
        bar.say(f"{name}: {watch['seconds']:.0f} s{show.headline(result)}")
        return result

    def make_data(self, bar: Bar) -> dict[str, Any]:
        """Write the three splits."""
        sizes = {split: getattr(self.settings, f"{split}_samples") for split in ("train", "val", "test")}
        if self.settings.compositions:
            sizes["compositions"] = self.settings.compositions
        world_data(self.out / "data", seed=self.seed, sizes=sizes, processes=min(os.cpu_count() or 1, 4), progress=bar.count)
        return {"samples": sizes, "clips": len(list((self.out / "data" / "clips").glob("*.mp4")))}

    def evaluate(self, bar: Bar, checkpoint: str | None, split: str = "test") -> dict[str, Any]:
        """Score a split with a checkpoint, or with the base and untrained heads."""
        from tpo_lab.evaluation import evaluate
        from tpo_lab.sample import read

        tested = read(self.out / "data" / f"{split}.jsonl")[: self.settings.tested]
        found = evaluate(self.model(checkpoint), tested, progress=bar.count)
        return {"checkpoint": checkpoint, "headline": found.headline(), **found.to_dict(records=True)}

    def teach(self, bar: Bar, lesson: Lesson, checkpoint: str) -> dict[str, Any]:
        """Run one notebook."""
        folder = self.out / lesson.notebook
        watch = TrainingWatch(folder / "run", self.steps(lesson), bar)
        values = {
            "data": str(self.out / "data"),
            "checkpoint": checkpoint,
            "out": str(folder),
            "seed": self.seed,
            "recipe_name": self.recipe.name,
            "steps": self.settings.steps,
            "eval_samples": self.settings.eval_samples,
        }
        done = notebooks.execute(
            notebooks.find(lesson.notebook),
            folder / f"{lesson.notebook}.ipynb",
            values,
            env={"HF_HUB_OFFLINE": "1"},
            on_cell=watch.on_cell,
            on_poll=watch,
        )
        return done.result

    def ask(self, checkpoint: str) -> dict[str, Any]:
        """Ask the trained model about a video file."""
        from tpo_lab.sample import read

        asked = show.questions(self.video, read(self.out / "data" / "test.jsonl"))
        return show.ask(self.model(checkpoint), asked, self.out / "video")

    def model(self, checkpoint: str | None) -> TPOModel:
        """The trained model, or the base with the heads that training starts from; on the accelerator where there is one."""
        import torch

        import tpo_lab as tpo

        torch.manual_seed(self.seed)
        found = tpo.load(checkpoint) if checkpoint else tpo.build(recipe=self.recipe)
        return found.to("cuda" if torch.cuda.is_available() else "cpu")

    def records(self, name: str) -> list[Record]:
        """The records of an evaluation that is done."""
        from tpo_lab.records import Record

        stored = json.loads((self.out / name / "result.json").read_text(encoding="utf-8"))["records"]
        return [Record(**{**record, "expected": tuple(record["expected"]), "emitted": tuple(record["emitted"])}) for record in stored]

    def constant(self, records: list[Record]) -> list[Record]:
        """What answers without looking would be on the test split."""
        from itertools import islice

        from tpo_lab.baselines import constant_records
        from tpo_lab.sample import iter_samples, read

        data = self.out / "data"
        return constant_records(records, read(data / "test.jsonl"), list(islice(iter_samples(data / "train.jsonl"), _BASELINE_SAMPLES)))

    def document(self, phases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What demo.json holds."""
        before, after = self.records("before"), self.records("after")
        with stopwatch() as watch:
            comparison = show.rows(before, after, self.constant(after), self.seed)
        return {
            "schema": SCHEMA,
            "smoke": self.settings == SMOKE,
            "settings": json.loads((self.out / "settings.json").read_text(encoding="utf-8")),
            "recipe": self.recipe.to_dict(),
            "stages": {name: steps for lesson in LESSONS for name, steps in self.steps(lesson).items()},
            "environment": environment(),
            "phases": {name: {key: phase.get(key) for key in ("seconds", "peak_memory_mb")} for name, phase in phases.items()},
            "seconds": watch["seconds"] + sum(float(phase.get("seconds") or 0.0) for phase in phases.values()),
            # A kernel runs beside this process: together they hold at most the sum.
            "peak_memory_mb": show.peak_memory(phases, [lesson.notebook for lesson in LESSONS]),
            "before": phases["before"]["scores"],
            "after": phases["after"]["scores"],
            "headline": {"before": phases["before"]["headline"], "after": phases["after"]["headline"]},
            **({"compositions": {key: phases["compositions"][key] for key in ("headline", "scores")}} if "compositions" in phases else {}),
            "comparison": comparison,
            "notebooks": {lesson.notebook: dict(phases[lesson.notebook]) for lesson in LESSONS},
            "losses": {stage: str(Path(lesson.notebook, "run", stage, "metrics.jsonl")) for lesson in LESSONS for stage in lesson.stages},
            "video": dict(phases["video"]),
            "data": dict(phases["data"]),
            "report": "report.html",
        }
