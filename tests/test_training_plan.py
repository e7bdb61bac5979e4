"""What a run would do, told before it does anything: counted by hand on a few samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import StageData
from tpo_lab.training.cost.memory import estimate_stage
from tpo_lab.training.cost.plan import ASSUMED_WORDS, Resources, groups_trained, mixture_of, row_size, stage_plan


def stage(**changes: Any) -> Stage:
    settings: dict[str, Any] = {
        "title": "both",
        "learning_rates": {"llm.lora.*": 1e-3, "heads.region.*": 1e-2, "tokens.task.region": 2e-2},
        "data": {"region": 3.0, "temporal": 1.0},
        "losses": {"mlm": 1.0, "region": 1.0, "temporal": 1.0},
        "steps": 20,
        "batch_size": 6,
        "max_questions": 2,
    }
    return Stage(name="3a", **{**settings, **changes})


ONE: dict[str, Any] = {"data": {"region": 1.0}, "losses": {"mlm": 1.0, "region": 1.0}}


def asked(place: int, path: str, source: str, end: float | None = None) -> Sample:
    turns = [{"role": "user", "text": "Where is it?"}, {"role": "assistant", "text": "A ball."}]
    media = {"path": path, "end_sec": end}
    return Sample.model_validate({"id": f"{source}-{place}", "source": source, "media": media, "conversation": turns})


@pytest.fixture
def data(tmp_path: Path) -> StageData:
    """Regions: 5 questions on 2 clips of one data set and 1 of another; times: 4 on one clip."""
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.jpg").write_bytes(b"x")
    regions = [asked(n, path, "cups", 90.0) for n, path in enumerate(["a.mp4", "a.mp4", "a.mp4", "gone.mp4", "gone.mp4"])]
    regions.append(asked(0, "frames/*.jpg", "balls"))
    times = [asked(n, "a.mp4", "songs", 36.0) for n in range(4)]
    groups = {"region": [s.at(tmp_path) for s in regions], "temporal": [s.at(tmp_path) for s in times]}
    return StageData(groups, stage(), seed=0)


def test_the_mixture_by_task_and_data_set(data: StageData) -> None:
    cups, balls, songs = mixture_of(data)
    # 3 questions about a clip make 2 rows of at most 2
    assert (cups.task, cups.source, cups.samples, cups.rows, cups.clips) == ("region", "cups", 5, 3, 2)
    assert (balls.source, balls.samples, balls.rows, balls.clips) == ("balls", 1, 1, 1)
    assert (songs.task, songs.samples, songs.rows, songs.clips) == ("temporal", 4, 2, 1)
    assert (cups.share, balls.share, songs.share) == pytest.approx((0.75 * 3 / 4, 0.75 / 4, 0.25))
    # 120 rows, of which 90 are regions and 30 times
    assert (cups.epochs, balls.epochs, songs.epochs) == pytest.approx((90 / 4, 90 / 4, 30 / 2))
    assert (cups.missing, balls.missing, songs.missing) == (1, 0, 0)
    assert (cups.looked_for, cups.hours, cups.unknown_length) == (2, pytest.approx(180 / 3600), 0)
    assert (balls.hours, balls.unknown_length) == (0.0, 1)


def test_epochs_are_those_that_the_stage_goes_through(data: StageData) -> None:
    shown = [sample.id for step in range(data.total_steps) for row in data.batch(step) for sample in row]
    songs = mixture_of(data)[2]
    assert sum(name.startswith("songs") for name in shown) / songs.samples == pytest.approx(songs.epochs, rel=0.1)


def test_of_many_clips_some_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpo_lab.training.cost.plan.LOOKED_FOR", 10)
    samples = [asked(n, f"{n}.mp4", "cups").at(tmp_path) for n in range(25)]
    found = mixture_of(StageData({"region": samples}, stage(**ONE), 0))[0]
    assert (found.clips, found.looked_for, found.missing) == (25, 9, 9)


def test_the_longest_row_is_that_of_a_batch(tiny: TPOModel, world: Callable[..., list[Sample]]) -> None:
    samples = [sample for index in range(3) for sample in world(index, "region")]
    found = StageData({"region": samples}, stage(**ONE, steps=9), seed=1)
    frames = Frames(tiny.backbone)
    batches = [tiny.collate([frames.row(row)]) for step in range(9) for row in found.batch(step)]
    size = row_size(tiny, found)
    assert size.tokens == max(batch.ids.shape[1] for batch in batches) > size.learned
    assert size.learned == max(len(batch.target) for batch in batches)
    assert size.rows == 54


def test_without_data_a_row_is_a_clip_and_some_words(tiny: TPOModel) -> None:
    size = row_size(tiny, None)
    assert size.tokens == len(tiny.collate.prefix([0.0, 1.0, 2.0, 3.0])) + ASSUMED_WORDS and size.rows == 0


def test_groups_are_the_patterns_of_the_stage(tiny: TPOModel) -> None:
    tiny.add_lora(Lora(rank=2, targets=("q_proj",)))
    groups = {group["pattern"]: group for group in groups_trained(tiny, stage())}
    assert groups["tokens.task.region"] == {"pattern": "tokens.task.region", "learning_rate": 2e-2, "parameters": 64}
    assert groups["llm.lora.*"]["parameters"] == 3 * 2 * (64 + 64)


@pytest.mark.parametrize(
    ("resources", "rows"),
    [(Resources(), 6), (Resources(micro_batch=4), 4), (Resources(processes=3), 2), (Resources(processes=3, micro_batch=5), 2)],
)
def test_a_plan_counts_for_one_process(tiny: TPOModel, data: StageData, resources: Resources, rows: int) -> None:
    tiny.add_lora(Lora(rank=2, targets=("q_proj",)))
    plan = stage_plan(tiny, data.stage, data, resources)
    memory, size = plan["memory"], row_size(tiny, data)
    expected = estimate_stage(tiny, data.stage, rows=rows, tokens=size.tokens, learned=rows * size.learned)
    assert (memory["rows"], memory["activations"], memory["total"]) == (rows, expected.activations, expected.total)
    assert memory["processes"] == resources.processes and memory["precision"] == "bf16"
    assert (plan["steps"], plan["batch_size"], len(plan["mixture"])) == (20, 6, 3)


def test_processes_that_cannot_share_a_batch_are_refused(tiny: TPOModel, data: StageData) -> None:
    tiny.add_lora(Lora(rank=2, targets=("q_proj",)))
    with pytest.raises(UsageError, match=r"processes: expected a number that divides the batch of 6 of stage 3a, got 4"):
        stage_plan(tiny, data.stage, data, Resources(processes=4))
