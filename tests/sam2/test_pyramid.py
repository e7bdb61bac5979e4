"""The image encoder gives the library's feature maps, with and without cells that fill windows up, and lets gradients through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Sam2VideoConfig

from tpo_lab.sam2 import nano_config, sam2_config, untrained
from tpo_lab.sam2.pyramid import feature_maps

CONFIGS = {
    "nano, whole windows": nano_config(),
    "nano, a margin of four cells": nano_config(96),
    "tiny, margins in two stages": sam2_config("hiera-tiny", image_size=256),
    "large": sam2_config("hiera-large", image_size=128),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_feature_maps_equal_those_of_the_library(config: Sam2VideoConfig) -> None:
    encoder = untrained(config).eval().vision_encoder
    pixels = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        wanted, found = encoder(pixels).fpn_hidden_states, feature_maps(encoder, pixels)
    assert len(found) == len(wanted) == 3
    for level, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-5)


def test_gradients_equal_those_of_the_library() -> None:
    encoder = untrained(nano_config(96)).vision_encoder
    pixels = torch.randn(1, 3, 96, 96)

    def gradients(maps: Any) -> dict[str, torch.Tensor]:
        encoder.zero_grad()
        sum(level.square().mean() for level in maps).backward()
        return {name: parameter.grad.clone() for name, parameter in encoder.named_parameters() if parameter.grad is not None}

    wanted, found = gradients(encoder(pixels).fpn_hidden_states), gradients(feature_maps(encoder, pixels))
    assert wanted.keys() == found.keys() and len(found) > 50
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)
