"""Against the published SAM2 code, where it is installed: the same names, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from tpo_lab.sam2 import SIZES, Tracker, sam2_config
from tpo_lab.sam2.weights import from_official, load_official, to_official

pytest.importorskip("sam2", reason="the published code is optional: pip install --no-deps sam2, with hydra-core and iopath")
pytestmark = pytest.mark.filterwarnings("ignore")

FILES = {"hiera-tiny": "t", "hiera-small": "s", "hiera-base-plus": "b+", "hiera-large": "l"}
FRAMES, SIDE = 10, 256
BOX, POINT = torch.tensor([[40.0, 50.0, 160.0, 180.0]]), torch.tensor([[[90.0, 120.0]]])


def published(size: str, version: str, *, image_size: int = 1024) -> Any:
    """The published predictor with random weights, every zero among them random too."""
    import sam2  # noqa: F401  (registers its configurations)
    from hydra import compose
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    folder, stem = ("sam2.1", "sam2.1") if version == "2.1" else ("sam2", "sam2")
    overrides = [
        "++model._target_=sam2.sam2_video_predictor.SAM2VideoPredictor",
        f"++model.image_size={image_size}",
        # without these the predictor changes masks after the model has made them
        "++model.fill_hole_area=0",
        "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
        "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
        "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
        "++model.binarize_mask_from_pts_for_mem_enc=true",
    ]
    config = compose(config_name=f"configs/{folder}/{stem}_hiera_{FILES[size]}.yaml", overrides=overrides)
    OmegaConf.resolve(config)
    torch.manual_seed(0)
    model = instantiate(config.model, _recursive_=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


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


@pytest.fixture(scope="module", params=["2.0", "2.1"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tracker]:
    """The published predictor, and our tracker from its file."""
    model = published("hiera-tiny", request.param, image_size=SIDE)
    path: Path = tmp_path_factory.mktemp("official") / "sam2.pt"
    torch.save({"model": model.state_dict()}, path)
    return model, Tracker(load_official(path, image_size=SIDE))


def footage(frames: int = FRAMES) -> Tensor:
    return torch.randint(0, 256, (frames, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def theirs(model: Any, pixels: Tensor, **prompt: Any) -> dict[int, Tensor]:
    """Logits by frame, at a quarter of the side, as the published predictor tracks one object; it takes places in [0, 1]."""
    found: dict[int, Tensor] = {}
    inference = start(model, pixels)
    _, _, logits = model.add_new_points_or_box(inference, frame_idx=0, obj_id=1, normalize_coords=False, **prompt)
    for frame, _, logits in model.propagate_in_video(inference):
        found[frame] = torch.as_tensor(logits)[0, 0]
    return found


def start(model: Any, pixels: Tensor) -> dict[str, Any]:
    """The predictor's state for frames that are in memory already; it reads them from files only."""
    import tempfile
    from unittest import mock

    with tempfile.TemporaryDirectory() as folder, mock.patch("sam2.sam2_video_predictor.load_video_frames") as load:
        load.return_value = (pixels, SIDE // 4, SIDE // 4)
        return model.init_state(folder)  # type: ignore[no-any-return]


def ours(tracker: Tracker, video: Tensor, prompt: Any) -> dict[int, Tensor]:
    features = tracker.encode(video)
    rows = [features.rows(slice(number, number + 1)) for number in range(len(video))]
    bank = tracker.bank(len(video))
    found = {0: tracker.start(0, rows[0], prompt, bank).shown[0]}
    found |= {number: masks.shown[0] for number, masks in tracker.track(enumerate(rows[1:], 1), bank)}
    return found


@pytest.mark.parametrize("score", [4.0, -4.0])
@pytest.mark.parametrize("kind", ["box", "point"])
def test_masks_equal_those_of_the_published_predictor(pair: tuple[Any, Tracker], kind: str, score: float) -> None:
    model, tracker = pair
    video = footage()
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(score)
        tracker.sam.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(score)
        if kind == "box":
            wanted = theirs(model, tracker.prepare(video), box=BOX[0].numpy() / SIDE)
            found = ours(tracker, video, tracker.prompt_boxes(BOX))
        else:
            wanted = theirs(model, tracker.prepare(video), points=POINT[0].numpy() / SIDE, labels=np.array([1], np.int32))
            found = ours(tracker, video, tracker.prompt_points(POINT, torch.tensor([[1]])))
    assert sorted(wanted) == sorted(found) == list(range(FRAMES))
    apart = max(float((wanted[number] - found[number]).abs().max()) for number in wanted)
    assert apart <= 1e-5, apart
    assert all(torch.equal(wanted[number] > 0, found[number] > 0) for number in wanted)
