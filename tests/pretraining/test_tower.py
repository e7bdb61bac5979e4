"""The tower's pretraining: its readouts, its losses by hand, and a resumable loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tpo_lab.backbones.nano import IMAGE_SIZE, PATCH, NanoBackbone
from tpo_lab.datasets.world.patches import ATTRIBUTES
from tpo_lab.pretraining import tower as module
from tpo_lab.pretraining.tower import PatchReadout, TowerPretraining, normalise, pretrain_tower

SIDE = IMAGE_SIZE // PATCH
FEW = TowerPretraining(steps=4, batch_size=4, checkpoint_every=2, held_frames=8)


@pytest.fixture
def tower(tiny_backbone: NanoBackbone) -> Any:
    return tiny_backbone.model.model.vision_tower


@pytest.fixture
def readout() -> PatchReadout:
    return PatchReadout(width=5, patch=PATCH, pool=4)


def test_normalise_gives_channels_first_in_minus_one_to_one() -> None:
    frames = np.zeros((2, 3, 5, 3), dtype=np.uint8)
    frames[1, 2, 4] = (255, 0, 51)
    found = normalise(frames)
    assert found.shape == (2, 3, 3, 5)
    assert found[1, :, 2, 4].tolist() == pytest.approx([1.0, -1.0, -0.6])
    assert found[0].eq(-1).all()


def test_blocks_are_neighbouring_patches_in_the_connectors_order(readout: PatchReadout) -> None:
    patches = torch.arange(SIDE * SIDE)[None, :, None]
    blocks = readout._in_blocks(patches)[0, :, :, 0]
    assert blocks.shape == (SIDE * SIDE // 4, 4)
    assert blocks[0].tolist() == [0, 1, SIDE, SIDE + 1]
    assert blocks[1].tolist() == [2, 3, SIDE + 2, SIDE + 3]
    grid = patches.float().reshape(1, 1, SIDE, SIDE)
    pooled = F.interpolate(grid, size=(SIDE // 2, SIDE // 2), mode="bilinear").flatten()
    assert torch.allclose(blocks.float().mean(1), pooled), "the mean of a block is what the connector's pooling gives"


def test_losses_are_cross_entropies_of_both_readouts_and_the_error_of_pooled_pixels(readout: PatchReadout) -> None:
    features = torch.randn(2, SIDE * SIDE, 5)
    frames = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    labels = {name: torch.randint(0, len(classes), (2, SIDE * SIDE)) for name, classes in ATTRIBUTES.items()}
    found = readout.losses(features, frames, labels)
    assert set(found) == {*ATTRIBUTES, "pixels", "place"}
    classes = len(ATTRIBUTES["shape"])
    own = F.cross_entropy(readout.from_patch["shape"](features).flatten(0, 1), labels["shape"].flatten())
    total, error, places = torch.zeros(()), torch.zeros(()), []
    for frame in range(2):
        for y in range(0, SIDE, 2):
            for x in range(0, SIDE, 2):
                here = [y * SIDE + x, y * SIDE + x + 1, (y + 1) * SIDE + x, (y + 1) * SIDE + x + 1]
                mean = features[frame, here].mean(0)
                logits = readout.from_block["shape"](mean).reshape(4, classes)
                total += F.cross_entropy(logits, labels["shape"][frame, here], reduction="sum")
                crop = frames[frame, :, y * PATCH : (y + 2) * PATCH, x * PATCH : (x + 2) * PATCH]
                small = crop.reshape(3, 4, 4, 4, 4).mean((2, 4))
                error += (readout.pixels(mean) - small.flatten()).square().mean()
                places.append(-readout.place(mean).log_softmax(-1)[y // 2 * (SIDE // 2) + x // 2])
    assert float(found["shape"].detach()) == pytest.approx(float((own + total / (2 * SIDE * SIDE)).detach()), rel=1e-5)
    assert float(found["place"].detach()) == pytest.approx(float(torch.stack(places).mean().detach()), rel=1e-5)
    assert float(found["pixels"].detach()) == pytest.approx(float((error / (2 * SIDE * SIDE / 4)).detach()), rel=1e-5)


def test_accuracies_count_patches_that_show_something(readout: PatchReadout) -> None:
    features = torch.zeros(1, SIDE * SIDE, 5)
    labels = {name: torch.zeros(1, SIDE * SIDE, dtype=torch.long) for name in ATTRIBUTES}
    labels["colour"][0, :10] = 2
    labels["colour"][0, 10:14] = 1
    with torch.no_grad():
        for layers in (readout.from_patch, readout.from_block):
            layers["colour"].bias.zero_()
            layers["colour"].bias.view(-1, len(ATTRIBUTES["colour"]))[:, 2] = 1
    found = readout.accuracies(features, labels)
    assert found["colour"] == found["colour/block"] == pytest.approx(10 / 14)


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_pretraining_lowers_its_losses_and_reports_scores(tower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    losses = PatchReadout.losses

    def watched(self: PatchReadout, *arguments: Any) -> dict[str, torch.Tensor]:
        found = losses(self, *arguments)
        if torch.is_grad_enabled():
            seen.append(sum(float(value.detach()) for value in found.values()))
        return found

    monkeypatch.setattr(PatchReadout, "losses", watched)
    before = {name: parameter.detach().clone() for name, parameter in tower.named_parameters()}
    scores = pretrain_tower(
        tower, TowerPretraining(steps=16, batch_size=4, held_frames=8, checkpoint_every=8), patch=PATCH, out=tmp_path, workers=0
    )
    assert sum(seen[-3:]) < 0.8 * sum(seen[:3])
    assert set(scores) == {*ATTRIBUTES, *(f"{name}/block" for name in ATTRIBUTES), "pixels", "place"}
    assert [line["step"] for line in logged(tmp_path)] == [8, 16]
    assert {name: logged(tmp_path)[-1][name] for name in scores} == scores
    still = [name for name, parameter in tower.named_parameters() if torch.equal(parameter, before[name])]
    assert all("post_layernorm" in name for name in still)
    assert not tower.training


def test_pretraining_resumes_from_its_file_and_a_finished_one_is_only_scored(
    tower: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = pretrain_tower(tower, FEW, patch=PATCH, out=tmp_path, workers=0)
    state = torch.load(tmp_path / "tower.pt", weights_only=True)
    assert state["step"] == 4
    weights = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    for parameter in tower.parameters():
        torch.nn.init.zeros_(parameter)
    again = pretrain_tower(tower, FEW, patch=PATCH, out=tmp_path, workers=0)
    assert again == pytest.approx(scores)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tower.state_dict().items())
    assert len(logged(tmp_path)) == 2, "nothing was trained"
    rates: list[float] = []
    factor = module.lr_factor
    monkeypatch.setattr(module, "lr_factor", lambda step, *rest: rates.append(step) or factor(step, *rest))
    pretrain_tower(tower, TowerPretraining(steps=6, batch_size=4, checkpoint_every=2, held_frames=8), patch=PATCH, out=tmp_path, workers=0)
    assert rates == [4, 5], "the schedule goes on where it stopped"


def test_the_same_seed_gives_the_same_tower(tower: Any, tmp_path: Path) -> None:
    start = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    ends = []
    for name in ("a", "b"):
        tower.load_state_dict(start)
        pretrain_tower(tower, TowerPretraining(steps=2, batch_size=4, held_frames=4), patch=PATCH, out=tmp_path / name, workers=0)
        ends.append({name: tensor.clone() for name, tensor in tower.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
