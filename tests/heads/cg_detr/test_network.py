"""The parts of the network against loops and worked examples."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tpo_lab.heads.cg_detr.decoder import Decoder
from tpo_lab.heads.cg_detr.dropout import Dropout, DropPath
from tpo_lab.heads.cg_detr.encoder import Encoder, place_frames, sine
from tpo_lab.heads.cg_detr.network import text_share
from tpo_lab.heads.cg_detr.settings import CGDETRSettings
from tpo_lab.heads.cg_detr.tokens import SaliencyToken, SummaryToken


def tiny(**changed: Any) -> CGDETRSettings:
    return CGDETRSettings(**{"vision_dim": 5, "dim": 8, "heads": 2, "feedforward_dim": 6, "dummies": 3, "prototypes": 4, **changed})


def test_positions_count_valid_frames_only_and_end_at_a_full_turn() -> None:
    valid = torch.tensor([[True, False, True, True], [True, True, True, False]])
    place = place_frames(valid, 8)
    assert torch.equal(place[0, [0, 2, 3]], place[1, :3])
    assert place[1, 2, :2].tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_sines_are_interleaved_with_falling_frequency() -> None:
    found = sine(torch.tensor(0.25), 4)
    slow = 0.5 * math.pi / 100
    assert found.tolist() == pytest.approx([1.0, 0.0, math.sin(slow), math.cos(slow)], abs=1e-6)


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25)
    out = layer(torch.ones(4000, 2, 3))
    assert out.flatten(1).unique(dim=0).tolist() == [[0.0] * 6, pytest.approx([4 / 3] * 6)]
    assert float(out.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(layer.eval()(torch.ones(4, 2, 3)), torch.ones(4, 2, 3))


@pytest.mark.parametrize(("rate", "taken"), [(0.5, 0.5), (0.1, 26 / 256)])
def test_dropout_keeps_the_mean_at_the_nearest_rate(rate: float, taken: float) -> None:
    torch.manual_seed(0)
    layer = Dropout(rate)
    out = layer(torch.ones(3, 50_001))
    assert sorted(out.unique().tolist()) == pytest.approx([0.0, 1 / (1 - taken)])
    assert float((out == 0).float().mean()) == pytest.approx(taken, abs=0.005)
    # every place of an eight-byte draw alike
    assert (out.flatten()[:150_000].reshape(-1, 8) == 0).float().mean(0).tolist() == pytest.approx([taken] * 8, abs=0.02)
    assert torch.equal(layer.eval()(out), out)


def test_dropout_passes_gradient_where_it_passes_numbers() -> None:
    numbers = torch.ones(40, 7, requires_grad=True)
    out = Dropout(0.5)(numbers)
    out.sum().backward()
    assert numbers.grad is not None and torch.equal(numbers.grad, out.detach())


def test_an_encoder_that_is_asked_for_few_rows_gives_the_same_rows() -> None:
    encoder = Encoder(tiny(), 2).eval()
    tokens, place, valid = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True, True, True, False, False]])
    torch.testing.assert_close(encoder(tokens, place, valid, rows=2), encoder(tokens, place, valid)[:, :2])


def test_a_summary_sees_valid_tokens_only() -> None:
    summary = SummaryToken(tiny(), 1).eval()
    tokens, valid = torch.randn(1, 4, 8), torch.tensor([[True, False, True, False]])
    before = summary(tokens, torch.zeros(1, 1, 8), valid)[0]
    changed = torch.where(valid[..., None], tokens, 9.0)
    torch.testing.assert_close(summary(changed, torch.zeros(1, 1, 8), valid)[0], before)
    assert not torch.allclose(summary(tokens, torch.zeros(1, 1, 8), ~valid)[0], before)


def loop_attention(query: Tensor, dummies: Tensor, text: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """One frame, one sample, head by head: softmax over dummies and text, sum over the text."""
    size = len(query) // heads
    keys = torch.cat([dummies, text])
    mixed, shares = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        prob = torch.stack([query[part] @ key[part] for key in keys]).div(math.sqrt(size)).softmax(0)
        mixed.append(sum((p * word[part] for p, word in zip(prob[len(dummies) :], text, strict=True)), torch.zeros(size)))
        shares.append(prob)
    return torch.cat(mixed), torch.stack(shares).mean(0)


def test_adaptive_attention_sums_the_text_alone(bench: Any) -> None:
    cross = bench.head(cross_layers=1).network.cross
    dim = 16
    frames, place, dummies, dummy_place, text = (
        torch.randn(*shape) for shape in ((1, 4, dim), (1, 4, dim), (1, 6, dim), (6, dim), (1, 3, dim))
    )
    found, attention = cross(frames, place, dummies, dummy_place, text, torch.tensor([[True, True, False]]))
    mixed, prob = loop_attention((frames + place)[0, 2], (dummies + dummy_place)[0], text[0, :2], 2)
    torch.testing.assert_close(attention[0, 2], torch.cat([prob, torch.zeros(1)]))
    torch.testing.assert_close(found[:, 2:3], cross.layers[0](frames[:, 2:3], mixed[None, None]))
    share, rest = text_share(attention, 6)
    torch.testing.assert_close(share + rest, torch.ones(1, 4))


def test_the_saliency_token_is_the_hand_computed_one() -> None:
    token = SaliencyToken(tiny(prototypes=2, dim=4, heads=1))
    with torch.no_grad():
        token.prototypes.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 3.0, 0, 0]]))
    frames = torch.tensor([[[2.0, 0, 0, 0], [0, 0, 0, 0], [9.0, 9, 9, 9]]])
    found = token(frames, torch.tensor([[True, True, False]]), torch.tensor([[0.6, 0.2, 0.9]]))
    # the mean is (1, 0, 0, 0); the frames lie at cosines (1, 0) and (-1, 0) from it, and weigh 1.5 and 0.5
    near, far = math.e / (math.e + 1), math.exp(-1) / (math.exp(-1) + 1)
    first = (1.5 * near + 0.5 * far) / 2
    assert found[0].tolist() == pytest.approx([1 + first, 0, 0, 0], abs=1e-6)


def test_the_decoder_starts_from_its_learned_windows() -> None:
    settings = tiny(queries=3, decoder_layers=2)
    decoder = Decoder(settings).eval()
    last = decoder.refine[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    spans, logits = decoder(torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool))
    assert spans.shape == (2, 2, 3, 2) and logits.shape == (2, 2, 3, 2)
    for layer in spans.flatten(0, 1):
        torch.testing.assert_close(layer, decoder.windows.sigmoid().clamp(1e-3, 1 - 1e-3))
