"""Following from prompts of every kind and from a question: the right pixels, the right frame, and words where nothing can be followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tpo_lab as tpo
from tpo_lab import tracking
from tpo_lab.datasets.world.render import render
from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, sample_scene
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads.base import ClipInfo, Visual
from tpo_lab.heads.mask import PointingMaskHead, PointingMaskPrediction
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.prompts import spread_along
from tpo_lab.rle import decode_rle, encode_rle
from tpo_lab.sam2 import Tracker, nano_config, untrained
from tpo_lab.sam2.footage import Followed
from tpo_lab.sample import BoxPrompt, PointPrompt, Sample, ScribblePrompt
from tpo_lab.tracking import STROKE_POINTS, _chosen, pixel_prompter, to_line
from tpo_lab.video import write_clip

BOX = BoxPrompt(xyxy=(8, 8, 40, 40))


@pytest.fixture(scope="module")
def sam() -> Any:
    torch.manual_seed(0)
    made = untrained(nano_config()).eval()
    torch.nn.init.constant_(made.mask_decoder.pred_obj_score_head.proj_out.bias, 5.0)
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of the world: 16 frames of 64 x 64 pixels in 4 s."""
    path = tmp_path_factory.mktemp("clip") / "world.mp4"
    write_clip(path, render(sample_scene(1, level="easy"), list(range(FRAME_COUNT))), FRAME_RATE)
    return path


@pytest.fixture
def model(build_tiny: Callable[..., TPOModel], sam: Any) -> TPOModel:
    """A tiny model whose mask head points, with a SAM2 that sees something everywhere."""
    width = build_tiny(()).backbone
    settings = PointingMaskHead.Settings(vision_dim=width.vision_size)
    torch.manual_seed(3)
    return build_tiny(("region", PointingMaskHead(width.hidden_size, settings, sam=sam))).eval()


def told(clip: Path, question: str, answer: str) -> Sample:
    shape = encode_rle(np.ones((64, 64), bool))
    record = {
        "id": "told",
        "media": {"path": str(clip)},
        "conversation": [{"role": "user", "text": question}, {"role": "assistant", "text": answer}],
        "targets": {"mask": {"times_sec": [0.0], "rle": [shape]}} if "<mask>" in answer else {},
    }
    return Sample.model_validate(record)


def test_prompts_are_brought_to_the_square_that_sam2_sees(sam: Any) -> None:
    tracker = Tracker(sam)
    box = BoxPrompt(xyxy=(16, 6, 80, 48))
    point, stroke = PointPrompt(xy=(40, 12)), ScribblePrompt(xys=((0, 0), (79, 0)))
    made = pixel_prompter(tracker, (point, box, stroke))((48, 80))
    wanted = [
        tracker.prompt_points(torch.tensor([[[32.0, 16.0]]]), torch.tensor([[1]])),
        tracker.prompt_boxes(torch.tensor([[12.8, 8.0, 64.0, 64.0]])),
        tracker.prompt_points(torch.tensor([[[15.8 * place, 0.0] for place in range(5)]]), torch.ones(1, 5, dtype=torch.long)),
    ]
    for found, expected in zip(made, wanted, strict=True):
        torch.testing.assert_close(found.sparse, expected.sparse)
        assert found.points.tolist() == expected.points.tolist()


def test_a_stroke_is_thinned_evenly_along_its_length() -> None:
    bent = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (12, 4)]
    assert spread_along(bent, STROKE_POINTS).tolist() == [[0, 0], [0, 4], [4, 4], [8, 4], [12, 4]]
    assert spread_along([(3, 3), (3, 3)], STROKE_POINTS).tolist() == [[3, 3]] * STROKE_POINTS
    assert spread_along([(0, 0), (10, 0)], 2).tolist() == [[0, 0], [10, 0]]


def test_a_line_holds_masks_boxes_with_exclusive_edges_and_probabilities() -> None:
    logits = torch.full((3, 16, 16), -9.0)
    logits[:2, 4:8, 2:12] = 9.0
    found = Followed(7, 1.75, logits, torch.tensor([0.0, -1.0, 2.0]) + 1e-3, (16, 16))
    line = to_line(found)
    assert (line["frame"], line["time_sec"]) == (7, 1.75)
    seen, gone, empty = line["objects"]
    assert seen["xyxy"] == [2, 4, 12, 8] and decode_rle("rle", seen["rle"]).sum() == 40
    assert (seen["score"], gone["score"], empty["score"]) == pytest.approx((0.5, 0.269, 0.881), abs=1e-3)
    assert (gone["rle"], gone["xyxy"], empty["rle"], empty["xyxy"]) == (None,) * 4


def test_track_follows_the_prompted_frame_and_then_both_ways(sam: Any, clip: Path) -> None:
    prompts = [BoxPrompt(time_sec=1.1, xyxy=(8, 8, 40, 40)), PointPrompt(time_sec=1.1, xy=(50, 20))]
    pursuit = tpo.track(sam, clip, prompts, start_sec=0.5, end_sec=2.0)
    found = list(pursuit)
    assert [each.frame for each in found] == [4, 5, 6, 7, 3, 2] and len(pursuit) == 6
    assert [each.time_sec for each in found] == pytest.approx([1.0, 1.25, 1.5, 1.75, 0.75, 0.5])
    assert all(each.masks().shape == (2, 64, 64) for each in found) and pursuit.objects == 2
    again = list(pursuit)
    assert torch.equal(again[-1].logits, found[-1].logits), "each iteration begins anew"


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({}, range(16)),
        ({"end_sec": 99.0}, range(16)),
        ({"end_sec": 0.0}, range(1)),
        ({"start_sec": 0.0, "end_sec": 0.5}, range(2)),
        ({"start_sec": 0.3, "end_sec": 0.6}, range(1, 3)),
    ],
)
def test_a_part_of_a_video_has_the_frames_on_display_in_it(sam: Any, clip: Path, options: dict[str, float], frames: range) -> None:
    at = BoxPrompt(time_sec=options.get("start_sec", 0.0), xyxy=BOX.xyxy)
    pursuit = tpo.track(sam, clip, [at], **options)
    assert (pursuit.first, pursuit.last) == (frames[0], frames[-1])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            BoxPrompt(xyxy=(8, 8, 65, 40)),
            r"box: expected x0 < x1 and y0 < y1 inside the frame of 64 x 64 pixels, got \[8.0, 8.0, 65.0, 40.0\]",
        ),
        (BoxPrompt.model_construct(xyxy=(8, 40, 40, 8)), "box: expected x0 < x1"),
        (PointPrompt(xy=(64, 3)), r"point: expected points inside the frame of 64 x 64 pixels, got \[64.0, 3.0\]"),
        (ScribblePrompt(xys=((3, 3), (5, 70))), r"scribble: expected points inside .* got \[5.0, 70.0\]"),
    ],
)
def test_prompts_outside_of_the_frame_are_refused(sam: Any, clip: Path, prompt: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        next(iter(tpo.track(sam, clip, [prompt])))


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "prompts: expected a box, a point, a stroke or a question"),
        ([BOX, PointPrompt(time_sec=1, xy=(3, 3))], {}, r"one time for all.* got \[0.0, 1.0\]"),
        ([BOX], {"start_sec": 1.0}, r"from 1.000 s and before 4.000 s.* got \[0.0\]"),
        ([BoxPrompt(time_sec=4, xyxy=BOX.xyxy)], {}, r"got \[4.0\]"),
        ([BOX], {"start_sec": 4.0}, "start_sec: expected a time from 0 s, before the end of .* at 4.000 s, got 4.0"),
        ([BOX], {"start_sec": -1.0}, "start_sec"),
        ([BOX], {"start_sec": float("nan")}, "start_sec"),
        ([BOX], {"end_sec": float("nan")}, "end_sec"),
        ([BOX], {"on_corrupt": "warn"}, "on_corrupt: expected one of drop, raise, got 'warn'"),
        ([BOX], {"question": "Where?"}, "question: expected a checkpoint with a mask head"),
    ],
)
def test_what_cannot_be_followed_is_refused(sam: Any, clip: Path, prompts: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tpo.track(sam, clip, prompts, **options)


def test_a_truncated_file_is_refused_unless_its_rest_will_do(sam: Any, tmp_path: Path, real: Path) -> None:
    whole = (real / "videos" / "pysot_bag.avi").read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    point = [PointPrompt(xy=(30, 30))]
    with pytest.raises(UsageError, match=r"half\.avi: expected a complete file, got 'truncated"):
        tpo.track(sam, tmp_path / "half.avi", point)
    pursuit = tpo.track(sam, tmp_path / "half.avi", point, end_sec=0.2, on_corrupt="drop")
    assert 1 <= len(list(pursuit)) <= len(pursuit)


def test_a_model_with_a_mask_head_lends_its_sam2(model: TPOModel, sam: Any, clip: Path) -> None:
    model.train()
    ours, plain = (list(tpo.track(each, clip, [BOX], end_sec=1.0)) for each in (model, sam))
    assert not model.training and not model.head("mask").tracker.soft
    for found, wanted in zip(ours, plain, strict=True):
        assert torch.equal(found.logits, wanted.logits)


def test_a_question_is_answered_and_what_the_head_says_prompts_sam2(model: TPOModel, clip: Path, script: Callable[..., None]) -> None:
    script(model, [Frames(model.backbone).row([told(clip, "Which one?", "<mask>")])])
    pursuit = tpo.track(model, clip, question="Which one?")
    assert pursuit.answer is not None and pursuit.answer.text == "<mask>" and pursuit.objects == 1
    answered = pursuit.answer.structured["mask"]
    assert pursuit.source.times_sec[pursuit.at] == pytest.approx(answered["prompted_sec"][0])
    found = {each.frame: each for each in pursuit}
    assert len(found) == 16, "every frame, of which the model saw 4"
    place = answered["times_sec"].index(answered["prompted_sec"][0])
    assert to_line(found[pursuit.at])["objects"][0]["rle"] == answered["masks"][0][place], "SAM2 sees the same pixels with the same prompt"
    assert not model.head("mask")._forward_hooks


def test_a_question_about_a_part_prompts_in_it(model: TPOModel, clip: Path, script: Callable[..., None]) -> None:
    sample = told(clip, "Which one?", "<mask>")
    part = sample.model_copy(update={"media": sample.media.model_copy(update={"start_sec": 2.0, "end_sec": 3.0})})
    script(model, [Frames(model.backbone).row([part])])
    pursuit = tpo.track(model, clip, question="Which one?", start_sec=2.0, end_sec=3.0)
    assert pursuit.answer is not None
    assert pursuit.source.times_sec[pursuit.at] == pytest.approx(2.0 + pursuit.answer.structured["mask"]["prompted_sec"][0])
    assert [each.frame for each in pursuit] == [*range(pursuit.at, 12), *range(pursuit.at - 1, 7, -1)]


def test_a_model_that_does_not_ask_its_mask_head_is_quoted(model: TPOModel, clip: Path, script: Callable[..., None]) -> None:
    script(model, [Frames(model.backbone).row([told(clip, "Which one?", "it is gone.")])])
    with pytest.raises(TPOError, match=r"nothing to follow: the model answered 'it is gone\.' and did not ask its mask head") as raised:
        tpo.track(model, clip, question="Which one?")
    assert not isinstance(raised.value, UsageError) and not model.head("mask")._forward_hooks


def test_models_without_a_mask_head_are_refused(tiny: TPOModel, clip: Path) -> None:
    for options in ({"prompts": [BOX]}, {"question": "Which one?"}):
        with pytest.raises(UsageError, match="a checkpoint with a mask head, got 'a checkpoint with region, temporal'"):
            tpo.track(tiny, clip, **options)


def test_what_is_pointed_at_belongs_to_the_question(model: TPOModel, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    def ask(model: TPOModel, video: Path, question: str, **options: Any) -> Any:
        heard.append((question, options["boxes"], options["strokes"]))
        return tracking_ask(model, video, question, **options)

    tracking_ask = tracking.ask
    monkeypatch.setattr(tracking, "ask", ask)
    pointed = [PointPrompt(xy=(3, 3)), BOX, ScribblePrompt(xys=((1, 2), (3, 4)))]
    with pytest.raises(TPOError, match="did not ask its mask head"):
        tpo.track(model, clip, pointed, question="Which one?")
    assert heard == [("Which one?", [BOX.xyxy], [((3, 3),), ((1, 2), (3, 4))])]


def test_objects_that_begin_on_different_frames_are_prompted_on_one_of_those(model: TPOModel) -> None:
    head = model.head("mask")
    assert isinstance(head, PointingMaskHead)
    slots, frames, backbone = 2, 4, model.backbone
    chance = torch.Generator().manual_seed(4)
    visual = Visual(
        times_sec=torch.arange(frames).repeat(slots, 1).float(),
        frame_valid=torch.ones(slots, frames, dtype=torch.bool),
        duration_sec=torch.full((slots,), 4.0),
        size_wh=torch.full((slots, 2), 64.0),
        answer=torch.zeros(slots, dtype=torch.long),
        frames=torch.randint(0, 256, (1, frames, 3, 64, 64), dtype=torch.uint8, generator=chance).expand(slots, -1, -1, -1, -1),
        frame_features=torch.randn(slots, frames, 16, backbone.vision_size, generator=chance),
        frame_states=torch.randn(slots, frames, 16, backbone.hidden_size, generator=chance),
        clip=torch.zeros(slots, dtype=torch.long),
    )
    clip = ClipInfo(64, 32, 4.0, (0.5, 1.5, 2.5, 3.5))
    with torch.no_grad():
        prediction = head.predict(torch.randn(slots, backbone.hidden_size, generator=chance), visual)
        assert isinstance(prediction, PointingMaskPrediction)
        apart = replace(prediction, condition=torch.tensor([3, 1]))
        frame, tokens, shown = _chosen(apart, clip)
        there = apart.dense()[1].min(0).values
        assert frame == (3 if there[3] > there[1] else 1)
        wanted = prediction.pointed(torch.tensor([frame, frame]))
    assert torch.equal(tokens, wanted.tokens)
    assert [box.xyxy for box in shown] == [pytest.approx(box) for box in (wanted.boxes_xyxy * torch.tensor([64, 32, 64, 32])).tolist()]
