"""What the pretraining is compared with: chance, towers that learn from other frames, and captions of other clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tpo_lab.backbones.nano import PATCH, NanoBackbone
from tpo_lab.datasets.world.patches import PatchBatch
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.pretraining.chance import chance_levels
from tpo_lab.pretraining.shuffled import ShuffledFrames
from tpo_lab.pretraining.swapped import losses_by_video
from tpo_lab.pretraining.tower import TowerPretraining, pretrain_tower
from tpo_lab.sample import Sample

FEW = TowerPretraining(steps=2, batch_size=4, checkpoint_every=1, held_frames=8)


def labelled(**labels: list[list[int]]) -> PatchBatch:
    return PatchBatch(np.zeros((2, 4, 4, 3), dtype=np.uint8), {name: np.array(rows) for name, rows in labels.items()})


class TestChance:
    def test_it_is_the_share_of_the_commonest_class_where_something_is(self) -> None:
        found = chance_levels(labelled(colour=[[0, 0, 0, 3], [3, 1, 2, 3]], shape=[[0, 0, 0, 0], [0, 0, 2, 1]]))
        assert found == {"colour": 3 / 5, "shape": 1 / 2}

    def test_frames_of_nothing_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"a patch that shows something, got '4 patches of nothing"):
            chance_levels(labelled(colour=[[0, 0], [0, 0]]))


class TestShuffledFrames:
    @pytest.fixture
    def tower(self, tiny_backbone: NanoBackbone) -> Any:
        return tiny_backbone.model.model.vision_tower

    def test_in_training_features_are_those_of_a_frame_of_another_scene(self, tower: Any) -> None:
        pixels = torch.randn(6, 3, 64, 64)
        own = tower(pixels, output_hidden_states=True).hidden_states[-1]
        shuffled = ShuffledFrames(tower).train()
        found = shuffled(pixels, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(found, own[[3, 4, 5, 0, 1, 2]], atol=1e-5)
        assert torch.equal(shuffled.eval()(pixels, output_hidden_states=True).hidden_states[-1], own)

    def test_the_tower_inside_is_trained_and_scored(self, tower: Any, tmp_path: Path) -> None:
        before = {name: p.detach().clone() for name, p in tower.named_parameters()}
        scores = pretrain_tower(ShuffledFrames(tower), FEW, patch=PATCH, out=tmp_path, workers=0)
        assert any(not torch.equal(p, before[name]) for name, p in tower.named_parameters())
        assert {"colour", "shape", "place"} <= set(scores)
        again = pretrain_tower(ShuffledFrames(tower), FEW, patch=PATCH, out=tmp_path, workers=0)
        assert again == pytest.approx(scores), "a finished run is read back"


class TestSwapped:
    def test_a_model_that_does_not_look_has_one_loss(
        self, tiny: TPOModel, world: Callable[..., list[Sample]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        samples = [world(index, "conversation")[0] for index in range(3)]
        seen = losses_by_video(tiny, samples)
        assert seen["own"] != seen["another"]
        blind = tiny.backbone.video_features
        monkeypatch.setattr(tiny.backbone, "video_features", lambda frames: blind(torch.zeros_like(frames)))
        found = losses_by_video(tiny, samples)
        assert found["own"] == pytest.approx(found["another"])

    def test_the_words_stay_and_the_frames_move_on_by_one(
        self, tiny: TPOModel, world: Callable[..., list[Sample]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches = []
        monkeypatch.setattr(tiny, "collate", lambda rows, make=tiny.collate: batches.append(rows) or make(rows))
        losses_by_video(tiny, [world(index, "conversation")[0] for index in range(3)])
        own, another = batches
        assert [row.samples for row in own] == [row.samples for row in another]
        for place, row in enumerate(another):
            assert torch.equal(row.frames, own[place - 1].frames) and not torch.equal(row.frames, own[place].frames)

    def test_one_clip_is_refused(self, tiny: TPOModel, world: Callable[..., list[Sample]]) -> None:
        with pytest.raises(UsageError, match="samples of at least two clips"):
            losses_by_video(tiny, world(0, "conversation")[:2])
