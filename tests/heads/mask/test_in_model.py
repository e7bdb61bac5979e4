"""The mask head in a model: samples of the world, training, checkpoints that name SAM2, answers, and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tpo_lab import checkpoint
from tpo_lab.answer import Answerer
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.evaluation import evaluate
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.record_scores import score
from tpo_lab.records import Record, mask_qualities, outlines, track_ious
from tpo_lab.rle import decode_rle
from tpo_lab.sam2 import nano_config, untrained
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import fit


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam")
    untrained(nano_config()).save_pretrained(folder)
    return folder


@pytest.fixture
def model(build_tiny: Callable[..., TPOModel], sam: Path) -> TPOModel:
    vision = build_tiny(()).backbone.vision_size
    spec = {"name": "mask", "head": "sam2-pointing", "sam": str(sam), "vision_dim": vision, "train_frames": 2}
    return build_tiny(("region", spec)).eval()


def asked(*tasks: str) -> list[Any]:
    return [sample for index in range(3) for sample in samples_of(sample_scene(index, level="easy"), tasks, questions=2)]


def recipe(**changes: Any) -> Recipe:
    rates = {"llm.lora.*": 1e-3, "heads.mask.adapter.*": 1e-3, "tokens.task.mask": 1e-3, "prompts.*": 1e-3, **changes}
    losses = {"mlm": 1.0, "assign": 1.0, "mask": 1.0}
    steps = {"steps": 2, "batch_size": 2, "max_questions": 2, "precision": "fp32"}
    stage = Stage(name="2.mask", title="masks", learning_rates=rates, data={"mask": 1.0}, losses=losses, **steps)
    return Recipe(name="small", stages=(stage,), lora=Lora(rank=2, targets=("q_proj",)), frames=4, resolution=64)


def test_the_world_asks_for_masks_and_tracks_and_they_are_exact() -> None:
    scene = sample_scene(1)
    from tpo_lab.datasets.world.facts import Facts

    facts = Facts(scene)
    masks, tracks = (samples_of(scene, (task,), questions=3) for task in ("mask", "track"))
    assert masks and tracks
    for sample in masks:
        thing = sample.meta["things"][0]
        for frame, rle in enumerate(sample.targets.mask.rle):
            seen = facts.visible[thing, frame]
            assert (rle is None) == (not seen.any())
            if rle is not None:
                assert (decode_rle("rle", rle.model_dump()) == seen).all()
    for sample in tracks:
        thing = sample.meta["things"][0]
        boxes = [None if box is None else tuple(box) for box in sample.targets.track.xyxy]
        assert boxes == [facts.box(thing, frame) for frame in range(16)]
        assert sample.meta["task"] == "mask" and sample.conversation[-1].text == "<track>"


def test_a_track_is_asked_of_the_mask_head(model: TPOModel) -> None:
    frames = Frames(model.backbone)
    rows = [frames.row([sample]) for sample in (asked("track")[0], asked("mask")[0])]
    batch = model.collate(rows)
    assert list(batch.slots) == ["mask"] and batch.slots["mask"].row.tolist() == [0, 1]
    assert [sorted(each) for each in batch.slots["mask"].annotations] == [["times_sec", "xyxy"], ["rle", "times_sec"]]
    with torch.no_grad():
        forward = model(batch)
        report = model.losses(batch, forward)
    assert {"mask/bce", "mask/dice", "mask/there", "mask/patches", "mask/box"} <= set(report.terms)
    assert torch.isfinite(report.total)


def test_training_leaves_sam2_alone_and_checkpoints_name_it(model: TPOModel, tmp_path: Path, sam: Path) -> None:
    before = {name: value.clone() for name, value in model.head("mask").sam.state_dict().items()}
    adapter = {name: value.clone() for name, value in model.head("mask").adapter.state_dict().items()}
    run = fit(model, asked("mask", "track"), recipe(), tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in model.head("mask").sam.state_dict().items())
    assert any(not torch.equal(value, adapter[name]) for name, value in model.head("mask").adapter.state_dict().items())
    saved = checkpoint.changed_parts(model)
    assert not any(name.startswith("heads.mask.sam.") for name in saved) and any(name.startswith("heads.mask.adapter.") for name in saved)
    again = checkpoint.load(run.path / "checkpoint")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    found = checkpoint.audit(run.path / "checkpoint")
    assert found["equals_memory"] and found["parts"]["heads.mask"]["changed"] == found["parts"]["heads.mask"]["saved"]


def test_a_trained_decoder_is_saved(model: TPOModel, tmp_path: Path) -> None:
    run = fit(model, asked("mask"), recipe(**{"heads.mask.sam.mask_decoder.*": 1e-3}), tmp_path / "run")
    again = checkpoint.load(run.path / "checkpoint")
    for name, value in model.head("mask").state_dict().items():
        assert torch.equal(value, again.head("mask").state_dict()[name]), name
    assert "heads.mask.sam." in again.trained_backbone_parts
    assert checkpoint.audit(run.path / "checkpoint")["equals_memory"]


def test_an_answer_holds_masks_and_boxes(model: TPOModel, script: Callable[..., None]) -> None:
    frames = Frames(model.backbone)
    sample = asked("mask")[0]
    script(model, [frames.row([sample])])
    question = sample.model_copy(update={"conversation": sample.conversation[:-1]})
    answer = Answerer(model).answer([frames.row([question])])[0]
    assert answer.task == "mask" and answer.text == "<mask>"
    document = answer.to_dict()
    assert len(document["masks"]) == len(document["track_xyxy"]) == 1
    assert len(document["masks"][0]) == len(document["track_xyxy"][0]) == model.backbone.num_frames
    with torch.no_grad():
        batch = model.collate([frames.row([sample])])
        forward = model(batch)
        decoded = model.head("mask").decode(forward.predictions["mask"], list(batch.slots["mask"].clips), batch.slots["mask"].answer)
    assert decoded[0]["masks"] == document["masks"], "inference and teacher forcing see the same"


def test_evaluation_scores_masks_and_tracks(model: TPOModel) -> None:
    found = evaluate(model, asked("mask", "track"))
    assert {"mask", "track", "routing"} <= set(found.scores)
    assert found.scores["mask"]["routed"]["j&f"] <= found.scores["mask"]["teacher_forced"]["j&f"] + 1e-9
    assert 0 <= found.scores["track"]["teacher_forced"]["ao"] <= 1 and 0 <= found.scores["track"]["direct"]["ao"] <= 1
    assert all(bool(record.direct) == (record.kind == "box") for record in found.records)
    assert {"segmentation J&F", "tracking AO"} <= set(found.headline())


def record(target: dict[str, Any], answer: dict[str, Any] | None, kind: str = "colour") -> Record:
    routed = {} if answer is None else {"mask": answer}
    return Record("a", kind, "?", "<mask>", "<mask>", ("mask",), ("mask",), routed, routed, target, "a.mp4")


def square(*corner: int) -> dict[str, Any]:
    import numpy as np

    from tpo_lab.rle import encode_rle

    mask = np.zeros((40, 40), bool)
    mask[corner[1] : corner[1] + 10, corner[0] : corner[0] + 10] = True
    return encode_rle(mask)


def test_masks_count_at_the_frames_that_were_answered_for() -> None:
    target = {"mask": {"times_sec": [0.0, 1.0, 2.0, 3.0], "rle": [square(0, 0), square(5, 0), None, None]}}
    answer = {"times_sec": [0.1, 1.4, 2.0, 3.0, 9.0], "masks": [[square(0, 0), square(0, 0), None, square(0, 0), square(0, 0)]]}
    assert [frame.time_sec for frame in outlines(record(target, answer), "routed", "mask")] == [0.1, 1.4, 2.0, 3.0]
    region, contour = mask_qualities([record(target, answer)], "routed")[0]
    assert region == pytest.approx((1 + 50 / 150 + 1 + 0) / 4) and 0.5 < contour < 1
    assert mask_qualities([record(target, None)], "routed")[0].tolist() == [0.5, 0.5], "two of four frames show nothing, rightly"
    scores = score([record(target, answer), record(target, None, "motion")], ("mask",))["mask"]["routed"]
    assert scores["j&f/motion"] == 0.5 and scores["hidden"]["count"] == 2
    assert scores["j&f"] == pytest.approx((scores["j&f/colour"] + 0.5) / 2)


def test_tracks_count_after_the_first_frame_where_the_object_can_be_seen() -> None:
    target = {"track": {"times_sec": [0.0, 1.0, 2.0, 3.0], "xyxy": [[0, 0, 10, 10], [0, 0, 10, 10], None, [0, 0, 10, 10]]}}
    boxes = [[30, 30, 40, 40], [0, 0, 10, 20], [1, 1, 2, 2], None]
    answer = {"times_sec": [0.0, 1.0, 2.0, 3.0], "track_xyxy": [boxes]}
    assert track_ious(record(target, answer), "routed").tolist() == [0.5, 0.0]
    scores = score([record(target, answer)], ("mask",))["track"]["routed"]
    assert (scores["ao"], scores["sr@0.5"], scores["hidden_told"], scores["hidden_count"]) == (0.25, 0.0, 0.0, 1.0)
    assert track_ious(record(target, None), "routed").tolist() == [0.0, 0.0]
