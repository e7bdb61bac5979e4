"""Building and loading by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

import tpo_lab as tpo
from tpo_lab import checkpoint
from tpo_lab.errors import UsageError
from tpo_lab.heads import HEADS, Head, HeadSettings, Visual
from tpo_lab.heads.cg_detr.settings import NANO


def test_build_takes_head_settings_from_the_recipe_and_a_spec_wins() -> None:
    paper = tpo.build(recipe=tpo.recipe("paper"))
    assert paper.head("region").settings.loss == "paper"
    chosen = tpo.build(heads=({"name": "region", "loss": "official"},), recipe=tpo.recipe("paper"))
    assert chosen.head("region").settings.loss == "official"
    assert list(chosen.heads) == ["region"]


def test_a_recipe_chooses_the_kind_of_a_head_and_a_spec_wins() -> None:
    nano = tpo.recipe("nano")
    dense = tpo.build(heads=("region",), recipe=nano).head("region")
    assert (dense.variant, dense.settings.loss) == ("dense", "official")
    assert tpo.build(heads=({"name": "region", "head": "mlp"},), recipe=nano).head("region").variant == "mlp"
    assert tpo.build(heads=("region",)).head("region").variant == "mlp"


@dataclass(frozen=True)
class GlanceSettings(HeadSettings):
    vision_dim: int = 0


class GlanceHead(Head[Tensor, Tensor]):
    name, variant, Settings = "glance", "wide", GlanceSettings

    def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
        return task_embedding

    def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {}


def test_build_takes_the_temporal_head_and_its_size_from_the_recipe() -> None:
    nano = tpo.recipe("nano")
    assert tpo.build(heads=("temporal",), recipe=nano).head("temporal").variant == "cg-detr-pointing"
    chosen = nano.replace(**{"switches.temporal_head": "cg-detr", "switches.saliency_weight": 2.0})
    small = tpo.build(heads=("temporal",), recipe=chosen).head("temporal").settings
    assert (small.dim, small.queries, small.weight_saliency) == (64, 5, 2.0)
    paper = tpo.build(heads=("temporal",), recipe=tpo.recipe("paper")).head("temporal").settings
    assert (paper.dim, paper.queries, paper.dummies, paper.weight_saliency) == (256, 10, 45, 1.0)
    simple = tpo.build(heads=({"name": "temporal", "head": "simple"},), recipe=chosen).head("temporal")
    assert simple.variant == "simple"


def test_every_head_that_asks_for_the_width_of_the_vision_tower_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "glance", {"wide": GlanceHead})
    cg_detr = {"name": "temporal", "head": "cg-detr", **NANO}
    model = tpo.build(heads=({"name": "region", "head": "dense"}, cg_detr, "glance"))
    assert {name: head.settings.vision_dim for name, head in model.heads.items()} == dict.fromkeys(model.heads, model.backbone.vision_size)
    assert tpo.build(heads=({"name": "glance", "vision_dim": 7},)).head("glance").settings.vision_dim == 7


def test_build_refuses_an_unknown_head_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"head: expected one of mask, region, temporal.*got 'regoin'.*Did you mean 'region'"):
        tpo.build(heads=("regoin",))


def test_build_can_show_the_model_more_frames() -> None:
    assert tpo.build(heads=(), num_frames=5).backbone.num_frames == 5


def test_build_refuses_a_backbone_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="backbone: expected nano, or a folder or hub id of LLaVA-OneVision"):
        tpo.build(str(tmp_path))


def test_load_reads_what_save_wrote_and_refuses_other_folders(tmp_path: Path) -> None:
    checkpoint.save(tpo.build(heads=("temporal",)), tmp_path / "model")
    assert list(tpo.load(tmp_path / "model").heads) == ["temporal"]
    with pytest.raises(UsageError, match="checkpoint: expected a checkpoint folder"):
        tpo.load(tmp_path / "absent")


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(tpo, name) is not None for name in tpo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = tpo.fitt
