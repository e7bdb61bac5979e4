"""The pretraining on words: its curriculum, its stream of batches, and an exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tpo_lab.backbones.nano import NanoBackbone
from tpo_lab.datasets.world.facts import Facts
from tpo_lab.datasets.world.scene import scene_at
from tpo_lab.model import TPOModel
from tpo_lab.pretraining import language as module
from tpo_lab.pretraining.language import GROWING, LanguagePretraining, Phase, Round, Stream, pretrain_language
from tpo_lab.runs import read_jsonl

FEW = LanguagePretraining(rounds=(Round(4, 1e-3, GROWING),), batch_size=2, questions=3, checkpoint_every=2, frozen_tower=0.5)
MUON = replace(FEW, rounds=(Round(1, 1e-3, GROWING), Round(3, 1e-3, GROWING, places=1, matrices="muon")))


def one_round(steps: int, *phases: Phase, places: int = 0) -> LanguagePretraining:
    return replace(FEW, rounds=(Round(steps, 1e-3, phases, places),))


def test_curriculum_covers_all_steps_and_gets_no_easier_within_a_round() -> None:
    settings = LanguagePretraining()
    for entry in settings.rounds:
        assert sum(phase.share for phase in entry.phases) == pytest.approx(1.0)
        most = [entry.things(step)[1] for step in range(0, entry.steps, 10)]
        assert all(early <= late for early, late in pairwise(most)) and most[-1] == GROWING[-1].things[1]
    assert settings.rounds[0].things(0) == (1, 1)


def test_phases_change_at_their_share_of_the_steps() -> None:
    (entry,) = one_round(10, Phase((1, 1), 0.2), Phase((1, 2), 0.5), Phase((2, 4), 0.3)).rounds
    assert [entry.things(step) for step in range(10)] == [(1, 1)] * 2 + [(1, 2)] * 5 + [(2, 4)] * 3
    assert entry.things(99) == (2, 4)


def test_every_round_has_a_rate_of_its_own_that_rises_and_falls() -> None:
    settings = replace(FEW, rounds=(Round(100, 2.0, GROWING), Round(50, 1.0, GROWING)), warmup_ratio=0.1, min_lr_ratio=0.0)
    assert settings.steps == 150
    assert settings.at(99) == (settings.rounds[0], 99) and settings.at(100) == (settings.rounds[1], 0)
    rates = [settings.learning_rate(step) for step in range(150)]
    assert max(rates[:100]) == pytest.approx(2.0) and max(rates[100:]) == pytest.approx(1.0)
    assert rates[99] < 0.01 < rates[110] and rates[149] < 0.01
    with pytest.raises(IndexError):
        settings.at(150)


@pytest.mark.parametrize("steps", [1, 7, 30, 1000])
def test_shortened_keeps_the_rounds_in_proportion(steps: int) -> None:
    settings = replace(FEW, rounds=(Round(200, 1.0, GROWING), Round(100, 1.0, GROWING, 2)))
    short = settings.shortened(steps)
    assert short.steps == steps
    assert short.rounds[0].steps == pytest.approx(2 * steps / 3, abs=0.5)
    assert [entry.places for entry in short.rounds] == [0, 2]


def test_a_round_may_ask_which_of_two_things_lies_further_to_a_side(tiny: TPOModel) -> None:
    settings = replace(FEW, rounds=(Round(4, 1e-3, (Phase((3, 4), 1.0),), relations=2),), questions=5)
    rows = [row for batch in Stream(tiny, settings, 0) for row in batch.rows]
    assert all(len(row.samples) <= 5 and row.samples[0].meta["kind"] == "caption" for row in rows)
    assert sum(sample.meta["kind"] == "relation" for row in rows for sample in row.samples) >= len(rows)


def test_a_round_may_ask_where_things_are_in_words_that_are_true(tiny: TPOModel) -> None:
    batches = list(Stream(tiny, replace(one_round(4, Phase((2, 3), 1.0), places=4), questions=7), 0))
    rows = [row for batch in batches for row in batch.rows]
    asked = [
        [s for s in row.samples if s.conversation[0].text.startswith("Where is") and "at the end?" in s.conversation[0].text]
        for row in rows
    ]
    assert all(len(row.samples) <= 7 and row.samples[0].meta["kind"] == "caption" for row in rows)
    assert sum(map(len, asked)) >= 2 * len(rows)
    for row in rows:
        facts = Facts(scene_at(row.samples[0].meta["scene"]))
        true = {facts.place(thing) for thing in range(len(facts.scene.things))}
        for sample in row.samples:
            if sample.meta["kind"] == "position" and "at the end" in sample.conversation[0].text:
                assert sample.conversation[1].text in true and not sample.targets.names


def test_stream_holds_conversations_only_and_as_many_things_as_the_phase(tiny: TPOModel) -> None:
    settings = one_round(2, Phase((1, 1), 0.5), Phase((3, 3), 0.5))
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


def fresh(build_tiny: Callable[..., TPOModel]) -> NanoBackbone:
    model = build_tiny(())
    model.tokens.detach_hooks()
    return model.backbone  # type: ignore[return-value]


class Stopped(Exception):
    """The process died."""


@pytest.mark.parametrize("settings", [FEW, MUON])
def test_a_stopped_run_goes_on_to_the_same_bits(
    settings: LanguagePretraining, build_tiny: Callable[..., TPOModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOG_EVERY", 1)
    whole = pretrained(fresh(build_tiny), settings, tmp_path / "whole")
    factor, calls = module.lr_factor, list[int]()

    def dying(step: int, *rest: Any) -> float:
        calls.append(step)
        if len(calls) == 4 + 1:  # once before the first step, to build the optimizer
            raise Stopped
        return factor(step, *rest)

    with monkeypatch.context() as killed, pytest.raises(Stopped):
        killed.setattr(module, "lr_factor", dying)
        pretrain_language(fresh(build_tiny), settings, out=tmp_path / "parts", workers=0)
    assert torch.load(tmp_path / "parts" / "language.pt", weights_only=True)["step"] == 2
    parts = pretrained(fresh(build_tiny), settings, tmp_path / "parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert [line["step"] for line in read_jsonl(tmp_path / "parts" / "metrics.jsonl")] == [1, 2, 3, 4]


def test_muon_steps_the_matrices_and_adamw_everything_else(build_tiny: Callable[..., TPOModel], tmp_path: Path) -> None:
    def first_step(matrices: Literal["adamw", "muon"]) -> dict[str, torch.Tensor]:
        backbone = fresh(build_tiny)
        before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
        one = replace(FEW, rounds=(Round(1, 1e-3, GROWING, matrices=matrices),), weight_decay=0.0)
        after = pretrained(backbone, one, tmp_path / matrices)
        return {name: after[name] - before[name] for name in before}

    muon, adamw = first_step("muon"), first_step("adamw")

    def stable_rank(step: torch.Tensor) -> float:
        singular = torch.linalg.svdvals(step)
        return float((singular**2).sum() / singular.max() ** 2)

    matrix, norm = "model.language_model.layers.0.self_attn.q_proj.weight", "model.language_model.norm.weight"
    # An orthogonal step goes equally far in all directions that the gradient has; AdamW's first step, which is signs, in few.
    assert stable_rank(muon[matrix]) > 2 * stable_rank(adamw[matrix]) > 0
    assert torch.equal(muon[norm], adamw[norm])


def test_the_tower_is_frozen_at_first_and_then_trains_slower(tiny_backbone: NanoBackbone, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_backbone.model.state_dict().items()}
    after = pretrained(tiny_backbone, replace(FEW, frozen_tower=1.0), tmp_path / "frozen")
    tower = [name for name in before if "vision_tower" in name]
    assert tower and all(torch.equal(before[name], after[name]) for name in tower)
    assert not torch.equal(before["model.image_newline"], after["model.image_newline"])
    later = pretrained(tiny_backbone, replace(FEW, frozen_tower=0.0), tmp_path / "free")
    assert any(not torch.equal(after[name], later[name]) for name in tower)


def test_losses_fall_and_are_logged_with_the_phase(tiny_backbone: NanoBackbone, tmp_path: Path) -> None:
    settings = LanguagePretraining(rounds=(Round(50, 3e-3, GROWING),), batch_size=1, questions=2, checkpoint_every=50)
    pretrain_language(tiny_backbone, settings, out=tmp_path, workers=0)
    first, last = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (first["step"], last["step"]) == (25, 50)
    assert last["mlm"] < 0.85 * first["mlm"]
    assert last["things"] == settings.rounds[0].things(49)[1]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rounds"][0]["learning_rate"] == 3e-3 and config["environment"]["torch"] == torch.__version__


def test_the_backbone_is_left_without_hooks_and_in_evaluation_mode(tiny_backbone: NanoBackbone, tmp_path: Path) -> None:
    pretrain_language(tiny_backbone, FEW.shortened(1), out=tmp_path, workers=0)
    assert not tiny_backbone.embedding._forward_hooks and not tiny_backbone.embedding._forward_pre_hooks
    assert not tiny_backbone.model.training
    TPOModel(tiny_backbone)
