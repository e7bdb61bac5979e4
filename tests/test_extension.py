"""A model with one more head: what it had is bit for bit the same, and what is new trains, saves and loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tpo_lab import checkpoint
from tpo_lab.errors import UsageError
from tpo_lab.extension import with_heads
from tpo_lab.heads import HEADS, Head, register
from tpo_lab.heads.base import Visual
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import fit


@pytest.fixture
def spot(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a registered head that predicts two numbers."""
    monkeypatch.setitem(HEADS, "spot", {})

    @register
    class SpotHead(Head[Tensor, Tensor]):
        """Two numbers."""

        name = "spot"

        def __init__(self, embed_dim: int, settings: Any = None) -> None:
            super().__init__(embed_dim, settings)
            self.out = nn.Linear(embed_dim, 2)

        def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
            return self.out(task_embedding)

        def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
            return {"l1": (prediction - target).abs().sum(-1)}

    return "spot"


@pytest.fixture
def trained(build_tiny: Callable[..., TPOModel]) -> TPOModel:
    """A model with LoRA whose every parameter that could have been trained has values of its own."""
    model = build_tiny().eval()
    model.add_lora(Lora(rank=2, dropout=0.0, targets=("q_proj", "up_proj")))
    with torch.no_grad():
        for name, parameter in model.named_parts().items():
            if name.startswith(("tokens.", "heads.", "llm.lora.", "prompts.")):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def states(model: TPOModel, samples: list[Sample]) -> Any:
    with torch.no_grad():
        forward = model(model.collate([Frames(model.backbone).row(samples)]))
    return forward


def test_old_questions_get_the_same_states_and_boxes_to_the_bit(trained: TPOModel, world: Callable[..., list[Sample]], spot: str) -> None:
    samples = world(3, "region", "temporal", "conversation")
    before = states(trained, samples)
    known = {name: parameter.detach().clone() for name, parameter in trained.named_parts().items()}
    grown = with_heads(trained, [spot])
    after = states(grown, samples)
    assert list(grown.heads) == ["region", "temporal", "spot"] and not grown.training
    assert torch.equal(before.hidden, after.hidden)
    assert torch.equal(before.predictions["region"].boxes_xyxy, after.predictions["region"].boxes_xyxy)
    parts = grown.named_parts()
    for name, value in known.items():
        assert torch.equal(parts[name][: len(value)] if name.startswith("tokens.rows.") else parts[name], value), name
    assert {name for name in parts if name not in known} == {"heads.spot.out.weight", "heads.spot.out.bias", "tokens.task.spot"}
    assert grown.lora == Lora(rank=2, dropout=0.0, targets=("q_proj", "up_proj"))


def test_old_routes_keep_their_logits(trained: TPOModel, world: Callable[..., list[Sample]], spot: str) -> None:
    samples = world(3, "region")
    before, old = states(trained, samples).logits, dict(trained.tokens.ids.route)
    grown = with_heads(trained, [spot])
    after = states(grown, samples).logits
    assert {name: grown.tokens.ids.route[name] for name in old} == old
    for token in (*old.values(), 0, 7):
        assert torch.equal(after[:, token], before[:, token])


def test_the_new_head_trains_and_comes_back_from_a_checkpoint(
    trained: TPOModel, say: Callable[..., Sample], spot: str, tmp_path: Path
) -> None:
    data = [say(index, f"Where, of {index}?", "<spot>", spot=[3.0, -2.0]).model_copy(update={"id": str(index)}) for index in range(4)]
    grown = with_heads(trained, [{"name": spot, "head": "default"}])
    region = grown.head("region").state_dict()
    kept = {name: value.clone() for name, value in region.items()}
    stage = Stage(
        name="2.spot",
        title="spots",
        learning_rates={"llm.lora.*": 2e-2, "heads.spot.*": 5e-2, "tokens.task.spot": 5e-2},
        data={"spot": 1.0},
        losses={"mlm": 1.0, "assign": 1.0, "spot": 1.0},
        starts_from={"tokens.task.spot": "tokens.task.region"},
        steps=20,
        batch_size=4,
        precision="fp32",
    )
    assert grown.lora is not None
    run = fit(grown, data, Recipe(name="spot", stages=(stage,), lora=grown.lora, frames=4, resolution=64), tmp_path / "run")
    losses = [line["spot/l1"] for line in run.metrics()]
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(grown.head("region").state_dict()[name], value) for name, value in kept.items())
    loaded = checkpoint.load(run.path / "checkpoint")
    assert list(loaded.heads) == ["region", "temporal", "spot"]
    assert torch.equal(states(loaded, data[:1]).predictions["spot"], states(grown, data[:1]).predictions["spot"])


def test_a_head_that_is_there_or_unknown_is_refused_and_the_model_stays_usable(
    trained: TPOModel, world: Callable[..., list[Sample]]
) -> None:
    with pytest.raises(UsageError, match="heads: expected heads other than region, temporal, got 'region'"):
        with_heads(trained, ["region"])
    with pytest.raises(UsageError, match=r"head: expected one of .*got 'regin'. Did you mean 'region'"):
        with_heads(trained, ["regin"])
    assert len(states(trained, world(3, "region")).task_embeddings["region"])
