"""Memory of a training step: what is counted is what a tiny model of the real classes keeps, and live bytes are counted right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tpo_lab import freeze
from tpo_lab.api import build
from tpo_lab.backbones import FAMILIES, outline_of
from tpo_lab.backbones.counting import llava_onevision_7b, lora_parameters, parameter_counts
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.batch import Batch
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.errors import UsageError
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.recipes import recipe
from tpo_lab.stages import Lora, Stage
from tpo_lab.training.cost.memory import LiveBytes, TrainingMemory, checkpoint_layers, estimate, estimate_stage, layer_activations, measured

STAGE = recipe("paper").for_heads(("region",)).stage("1")[0]
LORA = Lora(rank=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {layers: write_tiny("llava_onevision", tmp_path_factory.mktemp("llava"), layers=layers) for layers in (2, 5)}


def prepared(folder: Path, lora: Lora = LORA, rows: int = 2) -> tuple[TPOModel, Batch]:
    model = build(str(folder), heads=("region",), num_frames=4)
    model.add_lora(lora)
    frames = Frames(model.backbone)
    return model, model.collate([frames.row(samples_of(sample_scene(number), ("region",))[:1]) for number in range(rows)])


class TestLiveBytes:
    def test_counts_what_is_made_while_it_lives(self) -> None:
        before = torch.zeros(1000)
        with LiveBytes() as alive:
            first = torch.ones(256)
            second = first + 1
            assert alive.now == 2 * 256 * 4
            del first
            assert alive.now == 256 * 4
            del second
        assert (alive.now, alive.peak) == (0, 2 * 256 * 4)
        assert before.sum() == 0

    def test_views_and_what_was_there_before_count_nothing(self) -> None:
        before = torch.zeros(6, 100)
        with LiveBytes() as alive:
            views = [before[2:4], before.T, before.reshape(-1)]
            before += 1
        assert (alive.peak, len(views)) == (0, 3)

    def test_counts_what_autograd_keeps(self) -> None:
        weight = torch.randn(50, 50, requires_grad=True)
        value = torch.randn(8, 50)
        with LiveBytes() as alive:
            kept = (value @ weight).exp().sum()
            # exp keeps what it gave; the product is gone
            assert alive.now == 8 * 50 * 4 + 4
            kept.backward()
        assert alive.peak >= 8 * 50 * 4 + weight.nbytes


class TestMeasured:
    @pytest.mark.parametrize("lora", [LORA, Lora(rank=16, targets=("v_proj", "up_proj")), Lora(rank=2, dropout=0.0)])
    def test_a_layer_keeps_what_is_counted(self, folders: dict[int, Path], lora: Lora) -> None:
        """Three layers more, everything else the same: the difference is theirs alone."""
        kept = {}
        for layers, folder in folders.items():
            model, batch = prepared(folder, lora)
            kept[layers] = measured(model, batch, STAGE).activations
        rows, tokens = batch.ids.shape
        counted = layer_activations(model.backbone.model.config.text_config, lora, tokens, device="cpu")
        assert (kept[5] - kept[2]) / (3 * rows * tokens) == pytest.approx(counted, rel=0.03)

    def test_parameters_gradients_and_moments_are_exact(self, folders: dict[int, Path]) -> None:
        model, batch = prepared(folders[2])
        found = measured(model, batch, STAGE)
        shape = freeze.shape(freeze.FreezePlan.of(STAGE), model.named_parts())
        assert (found.gradients, found.optimizer) == (4 * shape["trained"], 8 * shape["trained"])
        config, rows, tokens = model.backbone.model.config, *batch.ids.shape
        added = sum(p.numel() for n, p in model.named_parts().items() if n.startswith(("tokens.", "prompts.", "heads.")))
        counted = estimate(config, LORA, rows=rows, tokens=tokens, added=added, trained=shape["trained"], device="cpu")
        assert (counted.parameters, counted.gradients, counted.optimizer) == (found.parameters, found.gradients, found.optimizer)
        assert 0.6 * found.activations < counted.activations < found.activations

    def test_checkpointing_saves_memory_and_changes_no_gradient(self, folders: dict[int, Path]) -> None:
        found, gradients = {}, {}
        for name in ("kept", "computed again"):
            torch.manual_seed(0)
            model, batch = prepared(folders[5], Lora(rank=4, dropout=0.0))
            if name == "computed again":
                checkpoint_layers(model)
            model.train()
            model.losses(batch, model(batch), STAGE.losses).total.backward()
            gradients[name] = {n: p.grad for n, p in model.named_parts().items() if ".lora_" in n}
            model.zero_grad()
            found[name] = measured(model, batch, STAGE).activations
            checkpoint_layers(model, on=False)
            found["off again"] = measured(model, batch, STAGE).activations
        assert found["computed again"] < 0.6 * found["kept"] == 0.6 * found["off again"]
        assert gradients["kept"] and all(
            torch.equal(g, gradients["computed again"][n]) for n, g in gradients["kept"].items() if g is not None
        )

    def test_the_stage_decides_what_trains(self, folders: dict[int, Path]) -> None:
        model, batch = prepared(folders[2])
        rows_only: Stage = replace(STAGE, learning_rates={"tokens.rows.output": 1e-4})
        assert measured(model, batch, rows_only).gradients == model.tokens.rows["output"].nbytes


class TestEstimate:
    def counted(self, **more: Any) -> TrainingMemory:
        return estimate(llava_onevision_7b(), Lora(), rows=1, tokens=3300, **more)

    def test_by_hand_at_the_published_size(self) -> None:
        found = self.counted()
        adapters = lora_parameters(llava_onevision_7b(), Lora())
        assert found.parameters == 2 * 8_029_890_080 + 4 * adapters
        assert (found.gradients, found.optimizer) == (4 * adapters, 8 * adapters)
        norms, attention, gated = 8 * 3584, 2 * (4 * 3584 + 3300), 6 * 18944
        lora = 3 * (6 * 3584 + 18944) + 7 * 2 * 16
        assert found.activations == 3300 * (28 * (norms + attention + gated + lora) + 4 * 3584)
        assert found.total == found.parameters + found.gradients + found.optimizer + found.activations
        assert found.gib()["parameters"] == pytest.approx(found.parameters / 1024**3)

    def test_rows_and_learned_places_add_to_the_activations_alone(self) -> None:
        one = self.counted()
        two = estimate(llava_onevision_7b(), Lora(), rows=2, tokens=3300, learned=10)
        assert two.activations == 2 * one.activations + 10 * 8 * 152_000
        assert two.parameters == one.parameters

    def test_checkpointing_keeps_one_layer_and_every_input(self) -> None:
        config = llava_onevision_7b()
        layer = layer_activations(config.text_config, Lora(), 3300)
        assert self.counted(checkpointing=True).activations == 3300 * (28 * 2 * 3584 + layer + 4 * 3584)

    def test_no_rows_are_refused(self) -> None:
        with pytest.raises(UsageError, match="at least one row of at least one token"):
            estimate(llava_onevision_7b(), Lora(), rows=0, tokens=5)


JOINT = recipe("paper").for_heads(("region",)).stage("3a")[0]


class TestEstimateOfAStage:
    """Of every family, whether or not its vision side trains: what is counted holds from 0.6 to 1.2 of what a tiny one keeps."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_is_near_what_is_measured_and_needs_no_weights(self, tmp_path: Path, family: str) -> None:
        folder = write_tiny(family, tmp_path / "whole", layers=5)
        outline = build(outline_of(str(folder), 4), heads=("region",))
        outline.add_lora(LORA)
        for stage, checkpointing in ((STAGE, False), (STAGE, True), (JOINT, False), (JOINT, True)):
            model, batch = prepared(folder, rows=3)
            checkpoint_layers(model, on=checkpointing)
            settings: dict[str, Any] = {"rows": 3, "tokens": batch.ids.shape[1], "learned": len(batch.target), "device": "cpu"}
            counted = estimate_stage(outline, stage, checkpointing=checkpointing, **settings)
            assert counted == estimate_stage(model, stage, checkpointing=checkpointing, **settings)
            found = measured(model, batch, stage)
            assert counted.parameters == found.parameters
            # prompts train too, but nobody points at anything here
            assert found.gradients <= counted.gradients < 1.15 * found.gradients
            assert found.optimizer <= counted.optimizer < 1.15 * found.optimizer
            assert 0.6 * found.activations < counted.activations < 1.2 * found.activations

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_the_mask_head_is_counted_where_a_stage_asks_it(self, folders: dict[int, Path], checkpointing: bool) -> None:
        """Following objects keeps more than a tiny language model does."""
        model = build(str(folders[2]), heads=("region", "mask"), num_frames=5)
        model.add_lora(LORA)
        checkpoint_layers(model, on=checkpointing)
        frames = Frames(model.backbone)
        batch = model.collate([frames.row(samples_of(sample_scene(number), ("mask",))[:1]) for number in range(3)])
        masks, regions = (recipe("paper").for_heads((head,)).stage("3a")[0] for head in ("mask", "region"))
        settings: dict[str, Any] = {"rows": 3, "tokens": batch.ids.shape[1], "learned": len(batch.target), "device": "cpu"}
        counted = estimate_stage(model, masks, checkpointing=checkpointing, **settings)
        without = estimate_stage(model, regions, checkpointing=checkpointing, **settings)
        found = measured(model, batch, masks)
        assert found.optimizer <= counted.optimizer < 1.15 * found.optimizer
        assert without.activations < 0.5 * found.activations
        assert 0.8 * found.activations < counted.activations < 1.2 * found.activations

    @pytest.mark.parametrize("family", FAMILIES)
    def test_parameters_of_every_family_are_counted_from_its_configuration(self, tmp_path: Path, family: str) -> None:
        model = build(str(write_tiny(family, tmp_path)), heads=("region",))
        expected = dict.fromkeys(("vision", "connector", "llm"), 0)
        for name, parameter in model.named_parts().items():
            if (part := name.partition(".")[0]) in expected:
                expected[part] += parameter.numel()
        assert parameter_counts(model.backbone.model.config) == expected and min(expected.values()) > 0

    def test_pieces_divide_the_frozen_language_model_alone(self, folders: dict[int, Path]) -> None:
        model, _ = prepared(folders[2])
        whole, pieces = (estimate_stage(model, STAGE, rows=1, tokens=50, shards=shards) for shards in (1, 4))
        frozen = sum(weight.nbytes for name, weight in model.named_parts().items() if name.startswith("llm.base."))
        assert whole.parameters - pieces.parameters == frozen - frozen // 4
        assert replace(whole, parameters=0) == replace(pieces, parameters=0)

    def test_it_agrees_with_the_count_from_a_configuration(self, folders: dict[int, Path]) -> None:
        """Beside the copies that autocast makes of the adapters."""
        model, _ = prepared(folders[2])
        config = model.backbone.model.config
        added = sum(w.numel() for n, w in model.named_parts().items() if n.startswith(("tokens.", "prompts.", "heads.")))
        trained = freeze.shape(freeze.FreezePlan.of(STAGE), model.named_parts())["trained"]
        plain = estimate(config, LORA, rows=2, tokens=70, learned=9, added=added, trained=trained)
        staged = estimate_stage(model, STAGE, rows=2, tokens=70, learned=9)
        assert replace(staged, activations=0) == replace(plain, activations=0)
        copies = sum(2 * w.numel() for n, w in model.named_parts().items() if n.startswith(("llm.lora.", "tokens.rows")))
        assert staged.activations == plain.activations + copies

    def test_nothing_of_the_model_is_changed(self, folders: dict[int, Path]) -> None:
        model, _ = prepared(folders[2])
        before = {name: weight.requires_grad for name, weight in model.named_parts().items()}
        estimate_stage(model, JOINT, rows=1, tokens=5)
        assert {name: weight.requires_grad for name, weight in model.named_parts().items()} == before

    def test_no_rows_are_refused(self, folders: dict[int, Path]) -> None:
        with pytest.raises(UsageError, match="at least one row of at least one token"):
            estimate_stage(prepared(folders[2])[0], STAGE, rows=0, tokens=5)
