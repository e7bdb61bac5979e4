from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tpo_lab import sample as schema
from tpo_lab.datasets.world.render import render
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene, scene_at
from tpo_lab.datasets.world.synth import synthesise
from tpo_lab.errors import UsageError
from tpo_lab.video import read_clip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return synthesise(tmp_path_factory.mktemp("world") / "data", samples=37, split="test", seed=2)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def interrupt_after(calls: int):
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == calls:
            raise KeyboardInterrupt

    return progress


def test_synthesise_writes_exactly_so_many_valid_samples(data):
    assert data.name == "test.jsonl"
    assert schema.validate(data, check_media=True) == []
    assert len(schema.read(data)) == 37


def test_synthesise_writes_the_samples_of_the_first_scenes(data):
    expected = []
    for index in range(20):
        scene = sample_scene(index, seed=2, split="test")
        expected += samples_of(scene, media=f"clips/{scene.name}.mp4")
    assert [found.model_dump() for found in schema.read(data)] == [made.model_dump() for made in expected[:37]]


def test_synthesise_writes_the_clips_of_its_samples_and_nothing_else(data):
    clips = {sample.media.path for sample in schema.read(data)}
    assert names(data.parent) == sorted([*clips, "synth.json", "test.jsonl"])


def test_clips_show_the_scene_at_its_times(data):
    for sample in {sample.media.path: sample for sample in schema.read(data)}.values():
        clip = read_clip(sample.media_path, num_frames=16, start_sec=sample.media.start_sec, end_sec=sample.media.end_sec)
        assert clip.times_sec.tolist() == [frame / 4 for frame in range(16)]
        assert (clip.duration_sec, clip.width, clip.height) == (4.0, 64, 64)
        drawn = render(scene_at(sample.meta["scene"])).astype(float)
        assert decibel(clip.frames, drawn) > 26
        luma = np.array([0.2126, 0.7152, 0.0722])
        assert decibel(clip.frames @ luma, drawn @ luma) > 39


def decibel(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / ((one - other) ** 2).mean())


def test_synthesise_gives_equal_samples_and_clips_twice_and_with_several_processes(data, tmp_path):
    again = synthesise(tmp_path / "again", samples=37, split="test", seed=2, processes=2)
    assert again.read_bytes() == data.read_bytes()
    assert names(again.parent) == names(data.parent)
    for name in (name for name in names(data.parent) if name.endswith(".mp4")):
        one, other = (read_clip(folder / name, num_frames=16).frames.astype(float) for folder in (data.parent, again.parent))
        assert decibel(one, other + 1e-6) > 36


def test_synthesise_makes_a_finished_split_only_once(data):
    before = {name: (data.parent / name).stat().st_mtime_ns for name in names(data.parent)}
    calls = []
    assert synthesise(data.parent, samples=37, split="test", seed=2, progress=lambda *done: calls.append(done)) == data
    assert calls == []
    assert {name: (data.parent / name).stat().st_mtime_ns for name in names(data.parent)} == before


@pytest.mark.parametrize("damage", ["clip", "jsonl", "edited"])
def test_synthesise_repairs_a_finished_split_that_lost_something(damage, tmp_path):
    jsonl = synthesise(tmp_path, samples=10)
    whole = jsonl.read_bytes()
    if damage == "clip":
        next((tmp_path / "clips").iterdir()).unlink()
    elif damage == "jsonl":
        jsonl.unlink()
    else:
        jsonl.write_bytes(whole[:-40])
    assert synthesise(tmp_path, samples=10).read_bytes() == whole
    assert schema.validate(jsonl, check_media=True) == []


def test_splits_share_a_folder(tmp_path):
    for split, count in (("train", 9), ("compositions", 11)):
        synthesise(tmp_path, samples=count, split=split)
    assert len(schema.read([tmp_path / "train.jsonl", tmp_path / "compositions.jsonl"])) == 20
    settings = json.loads((tmp_path / "synth.json").read_text())
    assert {split: record["request"]["samples"] for split, record in settings["splits"].items()} == {"train": 9, "compositions": 11}
    assert {name.split("-")[0] for name in names(tmp_path) if name.endswith("mp4")} == {"clips/train", "clips/compositions"}


def test_tasks_questions_and_level_are_obeyed(tmp_path):
    found = schema.read(synthesise(tmp_path, samples=12, level="hard", tasks=("temporal", "region"), questions=1, seed=5))
    assert {sample.meta["task"] for sample in found} == {"temporal", "region"}
    per_clip = [(sample.media.path, sample.meta["task"]) for sample in found]
    assert len(set(per_clip)) == len(per_clip) == 12
    assert all(scene_at(sample.meta["scene"]).level == "hard" and scene_at(sample.meta["scene"]).seed == 5 for sample in found)


def test_progress_counts_to_the_end(tmp_path):
    calls = []
    synthesise(tmp_path, samples=25, progress=lambda done, total: calls.append((done, total)))
    counts = [done for done, _ in calls]
    assert counts == sorted(counts) and counts[-1] == 25 and {total for _, total in calls} == {25}


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interruption_leaves_nothing_behind(processes, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "new", samples=40, processes=processes, progress=interrupt_after(2))
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_other_splits_as_they_were(tmp_path):
    synthesise(tmp_path, samples=8)
    before = names(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path, samples=40, split="val", progress=interrupt_after(2))
    assert names(tmp_path) == before
    assert schema.validate(tmp_path / "train.jsonl", check_media=True) == []


def test_an_interruption_while_files_are_moved_is_undone(tmp_path, monkeypatch):
    from tpo_lab.datasets.world import synth

    replace, moved = synth.os.replace, []

    def failing(source, target):
        moved.append(target)
        if Path(target).name == "synth.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(synth.os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "new", samples=15)
    assert len(moved) > 2
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_is_cleared_away(tmp_path):
    (tmp_path / ".train.partial" / "clips").mkdir(parents=True)
    (tmp_path / ".train.partial" / "clips" / "half.mp4").write_bytes(b"half")
    (tmp_path / "clips").mkdir()
    synthesise(tmp_path, samples=6)
    assert not (tmp_path / ".train.partial").exists() and "half" not in "".join(names(tmp_path))


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"out: expected a new or empty folder, or one made by this command, got '.* with thesis.tex'"):
        synthesise(tmp_path, samples=5)
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(UsageError, match=r"out: expected a folder, got '.*thesis.tex'"):
        synthesise(tmp_path / "thesis.tex", samples=5)


def test_a_split_with_other_settings_is_refused_and_left_alone(data):
    before = data.read_bytes()
    with pytest.raises(UsageError, match=r"out: expected a folder without other test samples, got '.*'\. Choose another folder"):
        synthesise(data.parent, samples=38, split="test", seed=2)
    assert data.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected the settings of a synthetic data set"), ('{"schema": "x/9"}', "expected the schema 'tpo_lab.synth/1', got 'x/9'")],
)
def test_settings_that_are_not_ours_are_refused(text, message, tmp_path):
    (tmp_path / "synth.json").write_text(text)
    with pytest.raises(UsageError, match=f"synth.json: {message}"):
        synthesise(tmp_path, samples=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples: expected at least 1, got 0"),
        ({"questions": 0}, "questions: expected at least 1, got 0"),
        ({"processes": 0}, "processes: expected at least 1, got 0"),
        ({"split": "dev"}, "split: expected one of compositions, test, train, val, got 'dev'"),
        ({"level": "extreme"}, "level: expected one of easy, growing, hard, standard, got 'extreme'"),
        ({"tasks": ("masks",)}, "tasks: expected one of conversation, mask, region, temporal, track, got 'masks'"),
        ({"tasks": ()}, r"tasks: expected one or more of .*, got \(\)"),
        ({"tasks": ("region", "region")}, r"tasks: expected one or more of .*, each once, got \('region', 'region'\)"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_made(arguments, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        synthesise(tmp_path / "new", **{"samples": 5, **arguments})
    assert list(tmp_path.iterdir()) == []
