"""The checks of a backbone find what they are there for: a sound one passes all, and each planted fault fails the check of its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tpo_lab.backbones.checks import CHECKS, Bench, check
from tpo_lab.backbones.nano import NanoBackbone


def in_front(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


def one_place_more(backbone: NanoBackbone) -> None:
    in_front(backbone, "video_placeholder", lambda sound: lambda times: [*sound(times), backbone.video_token])


def frames_turned_round(backbone: NanoBackbone) -> None:
    in_front(backbone, "video_features", lambda sound: lambda frames: sound(frames.flip(1)))


def frames_as_floats(backbone: NanoBackbone) -> None:
    in_front(backbone, "resize", lambda sound: lambda frames: sound(frames).float())


def words_moved(backbone: NanoBackbone) -> None:
    in_front(backbone, "embed", lambda sound: lambda ids, video: sound(ids, video) * 1.001)


def slots_late_in_writing(backbone: NanoBackbone) -> None:
    in_front(backbone, "written", lambda sound: lambda tokens, positions: sound(tokens, positions + 5))


def masks_forgotten(backbone: NanoBackbone) -> None:
    """Every token sees all before it."""

    def wrap(sound: Any) -> Any:
        return lambda inputs, *, mask, **options: sound(inputs, mask=torch.ones_like(mask).tril(mask.shape[-1] - mask.shape[-2]), **options)

    in_front(backbone, "language_model", wrap)


def states_cut_off(backbone: NanoBackbone) -> None:
    def wrap(sound: Any) -> Any:
        def cut(inputs: Any, **options: Any) -> Any:
            hidden, cache = sound(replace(inputs, embeds=inputs.embeds.detach()), **options)
            return hidden.requires_grad_(), cache

        return cut

    in_front(backbone, "language_model", wrap)


def one_word_only(backbone: NanoBackbone) -> None:
    def wrap(sound: Any) -> Any:
        def loud(hidden: Any) -> Any:
            logits = sound(hidden)
            logits[..., 40] = 1e9
            return logits

        return loud

    in_front(backbone, "logits", wrap)


def lora_everywhere(backbone: NanoBackbone) -> None:
    in_front(backbone, "lora_targets", lambda sound: lambda layers: rf".*\.({'|'.join(layers)})")


def connector_forgotten(backbone: NanoBackbone) -> None:
    in_front(backbone, "parts", lambda sound: lambda: {**sound(), "connector": ()})


FAULTS: dict[str, Callable[[NanoBackbone], None]] = {
    "placeholders": one_place_more,
    "frames": frames_turned_round,
    "preprocessing": frames_as_floats,
    "hook": words_moved,
    "task_embedding": slots_late_in_writing,
    "cache": slots_late_in_writing,
    "shared_clip": masks_forgotten,
    "side_branch": masks_forgotten,
    "gradient": states_cut_off,
    "routes": one_word_only,
    "lora": lora_everywhere,
    "parts": connector_forgotten,
}


def test_a_sound_backbone_passes_every_check(tiny_backbone: NanoBackbone) -> None:
    found = check(tiny_backbone)
    assert len(found) == len(CHECKS) and [each.name for each in found if not each.passed] == []


@pytest.mark.parametrize("name", [each.__name__ for each in CHECKS])
def test_a_fault_fails_the_check_that_is_there_for_it(tiny_backbone: NanoBackbone, name: str) -> None:
    (the_check,) = (each for each in CHECKS if each.__name__ == name)
    bench = Bench.of(tiny_backbone)
    assert the_check(bench).passed
    FAULTS[name](tiny_backbone)
    with torch.random.fork_rng():
        assert not the_check(bench).passed


def test_a_check_leaves_the_model_as_it_was(tiny_backbone: NanoBackbone) -> None:
    bench = Bench.of(tiny_backbone)
    before = {name: value.clone() for name, value in bench.model.state_dict().items()}
    for each in CHECKS:
        each(bench)
    assert all(torch.equal(value, before[name]) for name, value in bench.model.state_dict().items())
    assert all(parameter.grad is None for parameter in bench.model.parameters())
