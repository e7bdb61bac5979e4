"""CG-DETR with a part switched off: that part is gone, the rest is as before, and the network stays what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tpo_lab.heads.cg_detr import CGDETRSettings
from tpo_lab.heads.cg_detr.network import Network, Scene
from tpo_lab.lessons.moments import agreements, proposals, without_dummies, without_prototypes
from tpo_lab.report.spans import Span

SLOTS, FRAMES, TOKENS, DUMMIES = 2, 7, 5, 3


@pytest.fixture
def network() -> Any:
    settings = CGDETRSettings(vision_dim=6, dim=16, heads=2, feedforward_dim=20, dummies=DUMMIES, queries=4, prototypes=3)
    return Network(12, settings).eval()


@pytest.fixture
def scene(network: Network) -> Scene:
    frames, text = torch.randn(SLOTS, FRAMES, 8), torch.randn(SLOTS, TOKENS, 12)
    with torch.no_grad():
        return network.project(frames, torch.ones(SLOTS, FRAMES).bool(), text, torch.ones(SLOTS, TOKENS).bool())


def test_without_dummies_all_attention_goes_to_the_text_and_the_network_is_as_before(network: Network, scene: Scene):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = without_dummies(network, scene)
    assert found.attention.shape == (SLOTS, FRAMES, TOKENS)
    assert torch.allclose(found.attention.sum(-1), torch.ones(SLOTS, FRAMES), atol=1e-5)
    after = network.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], value) for name, value in before.items())


def test_the_network_is_as_before_when_reading_fails(network: Network, scene: Scene, monkeypatch: pytest.MonkeyPatch):
    kept = network.dummies.position
    monkeypatch.setattr(network, "read", lambda scene: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        without_dummies(network, scene)
    assert network.dummies.position is kept


def test_without_prototypes_the_attention_stays_and_the_saliency_changes(network: Network, scene: Scene):
    with torch.no_grad():
        whole = network.read(scene)
    found = without_prototypes(network, scene)
    assert torch.equal(found.attention, whole.attention)
    assert not torch.allclose(found.saliency_logits, whole.saliency_logits)
    with torch.no_grad():
        assert torch.equal(network.read(scene).saliency_logits, whole.saliency_logits)


def test_agreements_are_cosines_of_what_the_loss_compares(network: Network, scene: Scene):
    inside = torch.zeros(SLOTS, FRAMES).bool()
    inside[:, 2:5] = True
    found = agreements(network, scene, inside)
    assert found.shape == (SLOTS, 2, 2)
    with torch.no_grad():
        words, dummies, _ = network.sum_up(scene)
        within, outside, _ = network.sum_up_moments(scene, inside)
    assert found[1, 0, 1] == pytest.approx(torch.cosine_similarity(within[1], dummies[1], dim=0).item(), abs=1e-5)
    assert found[0, 1, 0] == pytest.approx(torch.cosine_similarity(outside[0], words[0], dim=0).item(), abs=1e-5)


def test_proposals_are_seconds_and_as_dark_as_they_are_likely():
    spans = torch.tensor([[0.5, 0.5], [0.25, 0.5]])
    assert proposals(spans, torch.tensor([0.25, 1.0]), 8.0) == [Span(2.0, 6.0, 0.25), Span(0.0, 4.0, 1.0)]
    assert [span.weight for span in proposals(spans, None, 8.0)] == [1.0, 1.0]
