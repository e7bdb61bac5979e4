"""Settings: the published sizes, the small ones, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.heads import CGDETRHead, CGDETRSettings, build_head
from tpo_lab.heads.cg_detr import NANO


def test_defaults_are_the_published_sizes() -> None:
    head = CGDETRHead(4096, CGDETRSettings(vision_dim=768))
    sizes = {name: sum(weight.numel() for weight in part.parameters()) / 1e6 for name, part in head.network.named_children()}
    published = {"text_projection": 1.12, "frame_projection": 0.27, "dummies": 1.58, "sentence": 0.79, "moment": 0.79, "cross": 1.18}
    for name, millions in {**published, "encoder": 2.37, "decoder": 4.48}.items():
        assert sizes[name] == pytest.approx(millions, abs=0.03), name


def test_a_head_is_built_again_from_its_spec() -> None:
    head = build_head("temporal", 24, head="cg-detr", vision_dim=12, **{**NANO, "behaviour": "official"})
    again = build_head(json.loads(json.dumps(head.spec())), 24)
    assert type(again) is CGDETRHead and again.settings == head.settings
    assert again.state_dict().keys() == head.state_dict().keys()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vision_dim": 0}, "vision_dim: expected the width of the vision tower's features, got 0"),
        ({"queries": 0}, "queries: expected at least 1, got 0"),
        ({"dim": 30, "heads": 4}, "dim: expected a multiple of 4 and of heads=4, got 30"),
        ({"weight_span": -1.0}, r"weight_span: expected 0 or more, got -1\.0"),
        ({"dropout": 1.0}, r"dropout: expected a rate in \[0, 1\), got 1\.0"),
        ({"temperature": 0.0}, r"temperature: expected above 0, got 0\.0"),
        ({"round_sec": 0.0}, r"round_sec: expected seconds above 0, or None, got 0\.0"),
        ({"window_overlap": 4}, "window_overlap: expected window_frames beside it, got 4"),
        ({"window_frames": 8, "window_overlap": 8}, "window_overlap: expected frames from 0 to 7, got 8"),
        ({"window_frames": 0}, "window_frames: expected at least 1, got 0"),
        ({"chosen_prototypes": 11}, "chosen_prototypes: expected at most prototypes=10, got 11"),
        ({"behaviour": "offical"}, "behaviour: expected one of official, sound, got 'offical'. Did you mean 'official'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CGDETRSettings(**{"vision_dim": 12, **changed})
