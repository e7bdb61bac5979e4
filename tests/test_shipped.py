"""What TPO Lab ships: the weights are small, and nano-tpo does what its README says, on a world that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

import tpo_lab as tpo
from tpo_lab.backbones import shipped
from tpo_lab.checkpoint import read_config
from tpo_lab.datasets.world.synth import synthesise
from tpo_lab.datasets.world.tracks import track_batches
from tpo_lab.heads.mask.head import load_named
from tpo_lab.pretraining.tracker import scores as scores_of
from tpo_lab.sam2 import Tracker

SEED = 4711
"""Of a world whose scenes no training has seen."""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("world")
    model = tpo.load("nano-tpo")
    synthesise(folder, samples=240, seed=SEED, split="val")
    return tpo.evaluate(model, tpo.read(folder / "val.jsonl")).headline()


def test_all_weights_together_are_small():
    files = list(Path(shipped("nano")).parent.rglob("*.safetensors"))
    assert {file.parent.name for file in files} == {"nano", "nano-sam2", "nano-tpo"}
    assert sum(file.stat().st_size for file in files) <= 12e6


def test_nano_tpo_says_how_it_was_made():
    config = read_config(shipped("nano-tpo"))
    assert [(entry["recipe"], entry["stage"]) for entry in config["history"]] == [
        ("nano-long", stage) for stage in ("1", "2.region", "2.temporal", "2.mask", "3a", "3b")
    ]
    assert config["half"] and config["backbone"] == "nano"
    assert (shipped("nano-tpo") / "README.md").is_file()


@pytest.mark.parametrize(
    ("measure", "least"),
    [
        ("REC Acc@0.5", 0.7),
        ("R1@0.5", 0.55),
        ("HL HIT@1", 0.6),
        ("segmentation J&F", 0.65),
        ("tracking AO", 0.65),
        ("route accuracy", 0.95),
        ("QA accuracy", 0.8),
    ],
)
def test_nano_tpo_sees(scores: dict[str, float], measure: str, least: float):
    # as good as its README says, less what so few samples can tell
    assert scores[measure] >= least


def test_nano_sam2_follows_what_a_box_means():
    clips = [next(track_batches(16, frames=8, things=8, seed=SEED, split="val", level="standard"))]
    reached = scores_of(Tracker(load_named("nano-sam2", None)), clips)
    # as good as its README says, less what so few clips can tell
    assert reached["box/first"] > 0.85 and reached["box"] > 0.75 and reached["point"] > 0.7, reached
