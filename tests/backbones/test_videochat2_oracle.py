"""The UMT encoder and the Q-Former against slow NumPy that says the same in loops, and positions against hand computation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tpo_lab.backbones.tiny.videochat2 import tiny_config
from tpo_lab.backbones.videochat2_parts.configuration import UMTConfig
from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration
from tpo_lab.backbones.videochat2_parts.umt import UMTEncoder, clip_positions, sinusoids

Array = NDArray[np.float64]
SMALL = UMTConfig(
    hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20, image_size=6, patch_size=3, position_frames=4
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


def drawn(module: nn.Module) -> dict[str, Array]:
    """Random values for every parameter, none of which is near zero as a whole; returned by name."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter) + 0.05)
    return {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}


def normed(vector: Array, weight: Array, bias: Array, eps: float) -> Array:
    return (vector - vector.mean()) / math.sqrt(((vector - vector.mean()) ** 2).mean() + eps) * weight + bias


def gelu(values: Array) -> Array:
    return np.array([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in values.ravel()]).reshape(values.shape)


def attention(query: Array, key: Array, value: Array, heads: int) -> Array:
    """[row, d], [column, d] and [column, d] to [row, d], head after head, row after row."""
    width = query.shape[1] // heads
    out = np.zeros_like(query)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for row in range(len(query)):
            scores = np.array([query[row, part] @ key[column, part] / math.sqrt(width) for column in range(len(key))])
            shares = np.exp(scores - scores.max())
            shares /= shares.sum()
            out[row, part] = sum(share * value[column, part] for column, share in enumerate(shares))
    return out


def place_oracle(place: int, width: int) -> list[float]:
    angles = [place / 10_000 ** (2 * (column // 2) / width) for column in range(width)]
    return [math.cos(angle) if column % 2 else math.sin(angle) for column, angle in enumerate(angles)]


def positions_oracle(frames: int, config: UMTConfig) -> Array:
    """Each frame of the clip lies between two of the training's frames, as far from either as the middles of equal slices of time do."""
    patches, known = config.patches_per_side**2, config.position_frames
    if frames == 1:
        return np.array([place_oracle(patch, config.hidden_size) for patch in range(patches)])
    rows = []
    for frame in range(frames):
        at = min(max((frame + 0.5) * known / frames - 0.5, 0), known - 1)
        before = int(at)
        after = min(before + 1, known - 1)
        for patch in range(patches):
            left, right = (np.array(place_oracle(each * patches + patch, config.hidden_size)) for each in (before, after))
            rows.append(left + (at - before) * (right - left))
    return np.array(rows)


def encoder_oracle(pixels: Array, weights: dict[str, Array], config: UMTConfig) -> Array:
    """One clip [frame, 3, h, w] to [frame * patch, d]."""
    side, size = config.patches_per_side, config.patch_size
    tokens = []
    for frame in pixels:
        for y in range(side):
            for x in range(side):
                patch = frame[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
                tokens.append((weights["patch_embed.weight"] * patch).sum((1, 2, 3)) + weights["patch_embed.bias"])
    states = np.array(tokens) + positions_oracle(len(pixels), config)
    for layer in range(config.num_hidden_layers):
        own = {name.removeprefix(f"layers.{layer}."): value for name, value in weights.items() if name.startswith(f"layers.{layer}.")}
        calm = np.array([normed(row, own["norm1.weight"], own["norm1.bias"], 1e-6) for row in states])
        query, key, value = np.split(calm @ own["attention.qkv.weight"].T, 3, axis=1)
        mixed = attention(query + own["attention.q_bias"], key, value + own["attention.v_bias"], config.num_attention_heads)
        states = states + mixed @ own["attention.out.weight"].T + own["attention.out.bias"]
        calm = np.array([normed(row, own["norm2.weight"], own["norm2.bias"], 1e-6) for row in states])
        hidden = gelu(calm @ own["fc1.weight"].T + own["fc1.bias"])
        states = states + hidden @ own["fc2.weight"].T + own["fc2.bias"]
    return np.array([normed(row, weights["norm.weight"], weights["norm.bias"], 1e-12) for row in states])


@pytest.mark.parametrize("frames", [1, 3, 4, 7])
def test_the_encoder_says_what_loops_say(frames: int) -> None:
    encoder = UMTEncoder(SMALL)
    weights, clips = drawn(encoder), torch.randn(2, frames, 3, 6, 6)
    with torch.no_grad():
        found = encoder(clips)
    assert found.shape == (2, frames, 4, 12)
    for clip, features in zip(clips, found, strict=True):
        expected = encoder_oracle(clip.double().numpy(), weights, SMALL)
        assert np.abs(features.flatten(0, 1).numpy() - expected).max() < 1e-5


def test_attention_reaches_all_frames() -> None:
    """Joint attention over space and time: a patch of the last frame changes the features of the first."""
    encoder, clip = UMTEncoder(SMALL), torch.randn(1, 3, 3, 6, 6)
    drawn(encoder)
    other = clip.clone()
    other[0, 2, :, :3, :3] += 1
    with torch.no_grad():
        assert (encoder(clip)[0, 0] - encoder(other)[0, 0]).abs().min() > 0


def test_sinusoids_by_hand() -> None:
    found = sinusoids(3, 4)
    assert found.dtype == torch.float64
    assert found[2].tolist() == pytest.approx([math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)])


def test_positions_between_four_frames_and_sixteen_by_hand() -> None:
    """The clip's time in 16 slices and in 4: where the middles of the 16 lie among the middles of the 4; none lies outside of them."""
    config = UMTConfig(hidden_size=8, image_size=8, patch_size=4)
    table = sinusoids(16, 8).float().reshape(4, 4, 8)
    found = clip_positions(16, config).reshape(16, 4, 8)
    assert torch.equal(found[0], table[0]) and torch.equal(found[1], table[0])
    # frame 2: 2.5 * 4 / 16 - 0.5 = 0.125; frame 8: 8.5 / 4 - 0.5 = 1.625
    assert torch.allclose(found[2], 0.875 * table[0] + 0.125 * table[1], atol=1e-6)
    assert torch.allclose(found[8], 0.375 * table[1] + 0.625 * table[2], atol=1e-6)
    assert torch.equal(found[15], table[3])


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 16])
def test_positions_for_any_number_of_frames(frames: int) -> None:
    config = UMTConfig(hidden_size=10, image_size=9, patch_size=3)
    assert np.abs(clip_positions(frames, config).numpy() - positions_oracle(frames, config)).max() < 1e-6


def test_the_published_positions_have_their_size() -> None:
    found = clip_positions(16, UMTConfig())
    assert found.shape == (16 * 14 * 14, 1024) and found.dtype == torch.float32
    # patch 3 of the fourth frame of training is place 3 * 196 + 3
    assert found[15 * 196 + 3].tolist() == pytest.approx(place_oracle(3 * 196 + 3, 1024), abs=1e-6)


def reader_oracle(frames: Array, queries: Array, weights: dict[str, Array], config: Any) -> Array:
    """The Q-Former's queries [query, d] after they read patches [patch, d_vision]."""
    heads, eps = config.num_attention_heads, config.layer_norm_eps
    states = np.array([normed(row, weights["layernorm.weight"], weights["layernorm.bias"], eps) for row in queries])

    def read(name: str, states: Array, seen: Array) -> Array:
        def mapped(part: str, values: Array) -> Array:
            return values @ weights[f"{name}.attention.{part}.weight"].T + weights[f"{name}.attention.{part}.bias"]

        mixed = attention(mapped("query", states), mapped("key", seen), mapped("value", seen), heads)
        return closed(f"{name}.output", mixed, states)

    def closed(name: str, values: Array, beside: Array) -> Array:
        out = values @ weights[f"{name}.dense.weight"].T + weights[f"{name}.dense.bias"] + beside
        return np.array([normed(row, weights[f"{name}.LayerNorm.weight"], weights[f"{name}.LayerNorm.bias"], eps) for row in out])

    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        states = read(f"{name}.attention", states, states)
        if layer % 2 == 0:
            states = read(f"{name}.crossattention", states, frames)
        inner = gelu(states @ weights[f"{name}.intermediate_query.dense.weight"].T + weights[f"{name}.intermediate_query.dense.bias"])
        states = closed(f"{name}.output_query", inner, states)
    return states


def test_visual_tokens_are_what_loops_say() -> None:
    """Queries of both kinds in their order, every second layer across, and the projection."""
    model: Any = VideoChat2ForConditionalGeneration(tiny_config(64, 16, 1)).eval()
    core, clips = model.model, torch.randn(2, 2, 3, 28, 28)
    reader, tower = drawn(core.qformer), drawn(core.vision_tower)
    drawn(core.projector)
    core.query_tokens.data.normal_()
    core.extra_query_tokens.data.normal_()
    with torch.no_grad():
        tokens, frames = core.get_video_features(clips)
    assert tokens.shape == (2, 12, 16) and frames.shape == (2, 2, 49, 32)
    queries = np.concatenate([core.query_tokens[0].detach().double().numpy(), core.extra_query_tokens[0].detach().double().numpy()])
    seen = frames[1].flatten(0, 1).double().numpy()
    read = reader_oracle(seen, queries, reader, model.config.qformer_config)
    expected = read @ core.projector.weight.detach().double().numpy().T + core.projector.bias.detach().double().numpy()
    assert np.abs(tokens[1].numpy() - expected).max() < 1e-5
    assert set(tower) == {name for name, _ in core.vision_tower.named_parameters()}


def test_there_is_cross_attention_in_every_second_layer_alone() -> None:
    model: Any = VideoChat2ForConditionalGeneration(tiny_config(64, 16, 1))
    assert [hasattr(layer, "crossattention") for layer in model.model.qformer.encoder.layer] == [True, False, True]
