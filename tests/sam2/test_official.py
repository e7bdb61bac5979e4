"""Against the published SAM2 code, where it is installed: the same names, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from tests.sam2.published import footage, nano_from, propagated, published, published_nano, started
from tpo_lab.sam2 import SIZES, Masks, Prompt, Tracker, sam2_config
from tpo_lab.sam2.weights import from_official, load_official, to_official

pytestmark = pytest.mark.filterwarnings("ignore")

FRAMES, SIDE = 10, 256
BOX, POINT = torch.tensor([[40.0, 50.0, 160.0, 180.0]]) / SIDE, torch.tensor([[[90.0, 120.0]]]) / SIDE
"""Places in shares of the side."""


@pytest.mark.parametrize("version", ["2.0", "2.1"])
@pytest.mark.parametrize("size", SIZES)
def test_every_published_name_has_its_place(size: str, version: Any) -> None:
    official = published(size, version).state_dict()
    with torch.device("meta"):
        ours = Sam2VideoModel(sam2_config(size, version=version)).state_dict()
    mapped = from_official(official)
    assert {name: tensor.shape for name, tensor in mapped.items()} == {name: tensor.shape for name, tensor in ours.items()}
    back = to_official(ours, list(official))
    assert {name: tensor.shape for name, tensor in back.items()} == {name: tensor.shape for name, tensor in official.items()}


@pytest.fixture(scope="module", params=["2.0", "2.1", "nano"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tracker]:
    """The published predictor, and our tracker with its weights: hiera-tiny from a file as published, and nano."""
    if request.param == "nano":
        model = published_nano()
        return model, Tracker(nano_from(model))
    model = published("hiera-tiny", request.param, image_size=SIDE)
    path: Path = tmp_path_factory.mktemp("official") / "sam2.pt"
    torch.save({"model": model.state_dict()}, path)
    return model, Tracker(load_official(path, image_size=SIDE))


def ours(tracker: Tracker, video: Tensor, prompt: Prompt) -> dict[int, Masks]:
    features = tracker.encode(video)
    rows = [features.rows(slice(number, number + 1)) for number in range(len(video))]
    bank = tracker.bank(len(video))
    return {0: tracker.start(0, rows[0], prompt, bank)} | dict(tracker.track(enumerate(rows[1:], 1), bank))


@pytest.mark.parametrize("score", [4.0, -4.0])
@pytest.mark.parametrize("kind", ["box", "point"])
def test_masks_equal_those_of_the_published_predictor(pair: tuple[Any, Tracker], kind: str, score: float) -> None:
    model, tracker = pair
    side = tracker.image_size
    video = footage(FRAMES, side)
    if kind == "box":
        prompt, given = tracker.prompt_boxes(side * BOX), {"box": BOX[0].numpy()}
    else:
        prompt = tracker.prompt_points(side * POINT, torch.tensor([[1]]))
        given = {"points": POINT[0].numpy(), "labels": np.array([1], np.int32)}
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(score)
        tracker.sam.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(score)
        wanted = list(propagated(model, started(model, tracker.prepare(video), [given])))
        found = ours(tracker, video, prompt)
    assert [number for number, *_ in wanted] == sorted(found) == list(range(FRAMES))
    for number, logits, there in wanted:
        torch.testing.assert_close(found[number].shown, logits, atol=1e-5, rtol=0)
        assert torch.equal(found[number].shown > 0, logits > 0)
        # of an object that is gone, these alone tell what is remembered
        torch.testing.assert_close(found[number].object_logit, there, atol=1e-5, rtol=0)
