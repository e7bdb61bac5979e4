"""The pretraining on words: its curriculum, its stream of batches, and an exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tpo_lab.backbones.nano import NanoBackbone
from tpo_lab.model import TPOModel
from tpo_lab.pretraining import language as module
from tpo_lab.pretraining.language import LanguagePretraining, Phase, Stream, pretrain_language

FEW = LanguagePretraining(steps=4, batch_size=2, questions=3, checkpoint_every=2, frozen_tower=0.5)


def test_curriculum_covers_all_steps_and_never_gets_easier() -> None:
    settings = LanguagePretraining()
    assert sum(phase.share for phase in settings.phases) == pytest.approx(1.0)
    most = [settings.things(step)[1] for step in range(0, settings.steps, 10)]
    assert all(early <= late for early, late in pairwise(most)) and most[0] == 1 and most[-1] == settings.phases[-1].things[1]


def test_phases_change_at_their_share_of_the_steps() -> None:
    settings = replace(FEW, steps=10, phases=(Phase((1, 1), 0.2), Phase((1, 2), 0.5), Phase((2, 4), 0.3)))
    assert [settings.things(step) for step in range(10)] == [(1, 1)] * 2 + [(1, 2)] * 5 + [(2, 4)] * 3
    assert settings.things(99) == (2, 4)


def test_stream_holds_conversations_only_and_as_many_things_as_the_phase(tiny: TPOModel) -> None:
    settings = replace(FEW, steps=2, phases=(Phase((1, 1), 0.5), Phase((3, 3), 0.5)))
    batches = list(Stream(tiny, settings, 0))
    assert len(batches) == 2
    for batch, things in zip(batches, ("1-1", "3-3"), strict=True):
        assert [len(row.samples) for row in batch.rows] == [3, 3]
        assert not batch.slots and not batch.is_route.any()
        assert all(row.samples[0].media.path.endswith(f"/{things}") for row in batch.rows)
        assert all(sample.meta["task"] == "conversation" and not sample.targets.names for row in batch.rows for sample in row.samples)
        assert [row.samples[0].meta["kind"] for row in batch.rows] == ["caption", "caption"]


def test_stream_started_later_gives_the_same_batches(tiny: TPOModel) -> None:
    whole = list(Stream(tiny, FEW, 0))
    late = list(Stream(tiny, FEW, 2))
    assert len(late) == 2
    for one, other in zip(whole[2:], late, strict=True):
        assert torch.equal(one.ids, other.ids) and torch.equal(one.target, other.target)
        assert all(torch.equal(a.frames, b.frames) for a, b in zip(one.rows, other.rows, strict=True))
    assert not torch.equal(whole[0].ids, whole[1].ids)


def test_two_workers_share_the_steps_in_order(tiny: TPOModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Info:
        num_workers = 2

        def __init__(self, number: int) -> None:
            self.id = number

    whole = [batch.ids for batch in Stream(tiny, FEW, 1)]
    found: dict[int, list[Any]] = {}
    for worker in (0, 1):
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda worker=worker: Info(worker))
        found[worker] = [batch.ids for batch in Stream(tiny, FEW, 1)]
    merged = [found[0][0], found[1][0], found[0][1]]
    assert all(torch.equal(one, other) for one, other in zip(whole, merged, strict=True))


def pretrained(backbone: NanoBackbone, settings: LanguagePretraining, out: Path) -> dict[str, torch.Tensor]:
    pretrain_language(backbone, settings, out=out, workers=0)
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}


class Stopped(Exception):
    """The process died."""


def test_a_stopped_run_goes_on_to_the_same_bits(
    build_tiny: Callable[..., TPOModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> NanoBackbone:
        backbone: NanoBackbone = build_tiny(()).backbone  # type: ignore[assignment]
        for hooks in (backbone.embedding._forward_hooks, backbone.embedding._forward_pre_hooks):
            hooks.clear()
        return backbone

    whole = pretrained(fresh(), FEW, tmp_path / "whole")
    factor = module.lr_factor

    def dying(step: int, *rest: Any) -> float:
        if step == 3:
            raise Stopped
        return factor(step, *rest)

    with monkeypatch.context() as killed, pytest.raises(Stopped):
        killed.setattr(module, "lr_factor", dying)
        pretrain_language(fresh(), FEW, out=tmp_path / "parts", workers=0)
    assert torch.load(tmp_path / "parts" / "language.pt", weights_only=True)["step"] == 2
    parts = pretrained(fresh(), FEW, tmp_path / "parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_the_tower_is_frozen_at_first_and_then_trains_slower(tiny_backbone: NanoBackbone, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_backbone.model.state_dict().items()}
    after = pretrained(tiny_backbone, replace(FEW, frozen_tower=1.0), tmp_path / "frozen")
    tower = [name for name in before if "vision_tower" in name]
    assert tower and all(torch.equal(before[name], after[name]) for name in tower)
    assert not torch.equal(before["model.image_newline"], after["model.image_newline"])
    later = pretrained(tiny_backbone, replace(FEW, frozen_tower=0.0), tmp_path / "free")
    assert any(not torch.equal(after[name], later[name]) for name in tower)


def test_losses_fall_and_are_logged_with_the_phase(tiny_backbone: NanoBackbone, tmp_path: Path) -> None:
    settings = LanguagePretraining(steps=50, batch_size=1, questions=2, learning_rate=3e-3, checkpoint_every=50)
    pretrain_language(tiny_backbone, settings, out=tmp_path, workers=0)
    first, last = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (first["step"], last["step"]) == (25, 50)
    assert last["mlm"] < 0.85 * first["mlm"]
    assert last["things"] == settings.things(49)[1]
    assert json.loads((tmp_path / "config.json").read_text())["learning_rate"] == 3e-3


def test_the_backbone_is_left_without_hooks_and_in_evaluation_mode(tiny_backbone: NanoBackbone, tmp_path: Path) -> None:
    pretrain_language(tiny_backbone, replace(FEW, steps=1), out=tmp_path, workers=0)
    assert not tiny_backbone.embedding._forward_hooks and not tiny_backbone.embedding._forward_pre_hooks
    assert not tiny_backbone.model.training
    TPOModel(tiny_backbone)
