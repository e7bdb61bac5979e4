"""`tpo-lab demo` and `tpo-lab pretrain`: their arguments reach the work, and an interrupted job says how to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpo_lab import demo
from tpo_lab.backbones import nano
from tpo_lab.pretraining import language, tower

DOCUMENT = {
    "smoke": True,
    "seconds": 61.4,
    "report": "report.html",
    "headline": {"before": {"R1@0.5": 0.125}, "after": {"R1@0.5": 0.5, "QA accuracy": 0.75}},
}


def test_demo_passes_its_options_on_and_shows_before_and_after(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(demo, "run", lambda **options: asked.append(options) or DOCUMENT)
    done = call("demo", "--out", tmp_path / "d", "--seed", 4, "--smoke", "--video", tmp_path / "a.mp4")
    assert asked == [{"out": tmp_path / "d", "seed": 4, "settings": demo.SMOKE, "video": tmp_path / "a.mp4"}]
    assert "R1@0.5 │ 0.125 │ 0.500" in done.words and "QA accuracy │ - │ 0.750" in done.words
    assert "A smoke run: the figures mean nothing." in done.words
    assert str(tmp_path / "d" / "report.html") in done.out
    monkeypatch.setitem(DOCUMENT, "compositions", {"headline": {"REC Acc@0.5": 0.875}})
    assert "REC Acc@0.5 │ 0.875" in call("demo", "--json").err + call("demo").words
    both = call("demo", "--smoke", "--long")
    assert both.status == 2 and "one of --smoke and --long" in both.err and len(asked) == 3
    assert call("demo", "--long").status == 0 and asked.pop()["settings"] == demo.LONG
    del asked[1:]
    assert call("demo", "--json").document["seconds"] == 61.4
    assert asked[1] == {"out": Path("runs/demo"), "seed": 0, "settings": demo.FULL, "video": None}


def test_demo_refuses_a_strangers_folder_and_a_missing_video(call, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    done = call("demo", "--out", tmp_path, "--smoke")
    assert done.status in (1, 2) and [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    done = call("demo", "--out", tmp_path / "d", "--smoke", "--video", "absent.mp4")
    assert done.status in (1, 2) and not (tmp_path / "d").exists()


def test_interrupted_demo_goes_on_in_its_folder(call, monkeypatch: pytest.MonkeyPatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    done = call("demo", "--out", "runs/x")
    assert (done.status, done.err) == (130, "Interrupted. The same command goes on in runs/x.\n")


@pytest.fixture
def pretraining(monkeypatch: pytest.MonkeyPatch, tiny_base: Path) -> list[tuple]:
    """Both pretrainings write down what they are asked and change one weight each; the new backbone is a tiny one."""
    monkeypatch.setattr(nano, "new_nano", lambda: nano.load_nano(tiny_base))
    seen: list[tuple] = []

    def of_tower(module, settings, *, patch, out):
        next(module.parameters()).data.fill_(0.25)
        seen.append(("tower", settings.steps, patch, out))
        return {"colour": 0.5}

    def of_language(backbone, settings, *, out):
        backbone.embedding.weight.data.fill_(0.75)
        seen.append(("language", settings.steps, out))

    monkeypatch.setattr(tower, "pretrain_tower", of_tower)
    monkeypatch.setattr(language, "pretrain_language", of_language)
    return seen


def test_pretrain_trains_tower_then_the_whole_and_saves_a_backbone(call, tmp_path: Path, pretraining: list[tuple]):
    from tpo_lab.backbones import load_backbone

    done = call("pretrain", "nano", "--out", tmp_path, "--steps-tower", 3, "--json")
    assert done.status == 0, done.err
    assert pretraining == [
        ("tower", 3, 8, tmp_path / "tower"),
        ("language", language.LanguagePretraining().steps, tmp_path / "language"),
    ]
    assert done.document["tower_accuracies"] == {"colour": 0.5}
    backbone = load_backbone(done.document["backbone"])
    assert float(backbone.embedding.weight.detach().mean()) == 0.75
    assert float(next(backbone.model.model.vision_tower.parameters()).detach().mean()) == 0.25


def test_interrupted_pretraining_saves_no_backbone(call, tmp_path: Path, pretraining: list[tuple], monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(language, "pretrain_language", interrupted)
    done = call("pretrain", "nano", "--out", tmp_path, "--steps-language", 5)
    assert done.status == 130
    assert done.err.splitlines()[-1] == f"Interrupted. The same command goes on from the last state in {tmp_path}."
    assert not (tmp_path / "nano").exists()


def test_pretrain_needs_a_folder(call):
    assert call("pretrain", "nano").err == "error: Missing option '--out'. See `tpo-lab pretrain nano --help`.\n"
    assert "No such command 'nanno'. Did you mean 'nano'?" in call("pretrain", "nanno").err
