"""Moved, misread and drawn prompts: hand-computed boxes, and what of a model they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tpo_lab.boxes import box_iou, order_corners
from tpo_lab.errors import UsageError
from tpo_lab.lessons.prompts import (
    MISREADINGS,
    Sweep,
    batch_of,
    between,
    kinds_understood,
    pairs_in_clips,
    pointed_at,
    pointing_questions,
    read_prompts,
    sizes_wh,
    sweep,
    three_ways,
    true_boxes,
)
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample

WHOLE = {"times_sec": [0.0, 3.5]}


def tracked(say: Callable[..., Sample], scene: int, start: list[float], end: list[float] | None) -> Sample:
    return say(scene, "Track <prompt:0>.", "<track>", boxes=[start], track={**WHOLE, "xyxy": [start, end]})


@pytest.fixture
def questions(say: Callable[..., Sample]) -> list[Sample]:
    """Two about one clip and one about another."""
    places = [
        (0, [4.0, 8.0, 20.0, 24.0], [8.0, 8.0, 24.0, 40.0]),
        (0, [32, 40, 48, 60], [40, 30, 56, 50]),
        (1, [1, 2, 9, 12], [2, 3, 10, 13]),
    ]
    return pointing_questions([tracked(say, scene, list(map(float, a)), list(map(float, b))) for scene, a, b in places])


class TestQuestions:
    def test_the_tracks_last_box_is_the_answer(self, questions: list[Sample]):
        asked = questions[0]
        assert asked.conversation[0].text == "Where is <prompt:0> at the end?" and asked.conversation[1].text == "<region>"
        assert asked.targets.names == ("region",)
        assert (
            asked.targets.region is not None and asked.targets.region[0].xyxy == (8, 8, 24, 40) and asked.targets.region[0].time_sec == 3.5
        )
        assert asked.prompts[0].type == "box" and asked.prompts[0].xyxy == (4, 8, 20, 24)

    def test_others_are_left_out(self, say: Callable[..., Sample], world: Callable[..., list[Sample]]):
        gone = tracked(say, 0, [1.0, 1.0, 9.0, 9.0], None)
        drawn = say(0, "Track <prompt:0>.", "<track>", strokes=[[[3.0, 3.0], [5.0, 6.0]]], track={**WHOLE, "xyxy": [[1, 1, 9, 9]] * 2})
        assert pointing_questions([gone, drawn, *world(0, "conversation")]) == []

    def test_pairs_are_about_one_clip(self, questions: list[Sample]):
        assert pairs_in_clips(questions) == [(questions[0], questions[1])]
        assert pairs_in_clips(questions[1:]) == []


class TestBatch:
    def test_boxes_are_shares_of_the_frame(self, tiny: TPOModel, questions: list[Sample]):
        batch = batch_of(tiny, questions)
        assert sizes_wh(batch).tolist() == [[64.0, 64.0]] * 3
        torch.testing.assert_close(batch.prompts.boxes_xyxy[0], torch.tensor([4, 8, 20, 24]) / 64)
        torch.testing.assert_close(true_boxes(questions, batch)[1], torch.tensor([40, 30, 56, 50]) / 64)

    def test_other_prompts_stand_in_the_same_places_and_the_batch_stays(self, tiny: TPOModel, questions: list[Sample]):
        batch = batch_of(tiny, questions)
        before = batch.prompts.boxes_xyxy.clone()
        moved = pointed_at(batch, [[[0.5, 0.25]], [[0.1, 0.2, 0.3, 0.4]], [[0.0, 0.5], [1.0, 0.5]]])
        assert torch.equal(moved.prompts.token, batch.prompts.token) and torch.equal(batch.prompts.boxes_xyxy, before)
        assert moved.prompts.is_box.tolist() == [False, True, False]
        torch.testing.assert_close(moved.prompts.boxes_xyxy[1], torch.tensor([0.1, 0.2, 0.3, 0.4]))
        torch.testing.assert_close(pointed_at(batch, before).prompts.drawn, batch.prompts.drawn)

    def test_as_many_as_there_are(self, tiny: TPOModel, questions: list[Sample]):
        with pytest.raises(UsageError, match="prompts: expected 3, as many as the batch has, got 1"):
            pointed_at(batch_of(tiny, questions), torch.zeros(1, 4))


class TestMisreadings:
    BOX, SIZE = torch.tensor([[0.1, 0.2, 0.5, 0.8]]), torch.tensor([[100.0, 50.0]])

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("as it should be", [0.1, 0.2, 0.5, 0.8]),
            ("pixels, not divided", [10.0, 10.0, 50.0, 40.0]),
            ("thousandths", [100.0, 200.0, 500.0, 800.0]),
            ("centre and size", [0.3, 0.5, 0.4, 0.6]),
            ("x and y swapped", [0.2, 0.1, 0.8, 0.5]),
        ],
    )
    def test_what_arrives(self, name: str, found: list[float]):
        torch.testing.assert_close(MISREADINGS[name](self.BOX, self.SIZE), torch.tensor([found]))

    def test_all_are_here(self):
        assert len(MISREADINGS) == 5

    @pytest.mark.parametrize("understood", ["box", "drawn"])
    def test_each_of_them_gives_a_finite_answer_that_is_not_that_of_the_right_one(
        self, build_tiny: Any, questions: list[Sample], understood: Any
    ):
        model = with_prompts(build_tiny(), understood)
        batch = batch_of(model, questions)
        right = read_prompts(model, batch).embedded
        for name, change in MISREADINGS.items():
            found = read_prompts(model, pointed_at(batch, change(batch.prompts.boxes_xyxy, sizes_wh(batch))))
            assert found.boxes_xyxy.isfinite().all()
            assert torch.allclose(found.embedded, right) is (name == "as it should be"), name


def with_prompts(model: TPOModel, understood: Any) -> TPOModel:
    from tpo_lab.prompts import PromptEncoder

    torch.manual_seed(1)
    model.prompts = PromptEncoder(model.backbone.hidden_size, understood)
    return model.eval()


class TestReading:
    def test_it_is_what_the_model_gives_for_the_same_batch(self, tiny: TPOModel, questions: list[Sample]):
        batch = batch_of(tiny, questions)
        with torch.no_grad():
            forward = tiny(batch)
        reading = read_prompts(tiny, batch)
        torch.testing.assert_close(reading.task_embedding, forward.task_embeddings["region"])
        torch.testing.assert_close(reading.boxes_xyxy, forward.predictions["region"].boxes_xyxy)
        torch.testing.assert_close(reading.embedded, tiny.prompts.box(batch.prompts.boxes_xyxy))

    def test_the_place_is_all_that_differs(self, tiny: TPOModel, questions: list[Sample]):
        batch = batch_of(tiny, [questions[0]] * 2)
        same = read_prompts(tiny, batch)
        torch.testing.assert_close(same.task_embedding[0], same.task_embedding[1])
        moved = read_prompts(tiny, pointed_at(batch, torch.tensor([[0.1, 0.1, 0.2, 0.2], [0.6, 0.6, 0.9, 0.9]])))
        assert not torch.allclose(moved.task_embedding[0], moved.task_embedding[1])

    def test_one_prompt_for_each_question(self, tiny: TPOModel, questions: list[Sample], world: Callable[..., list[Sample]]):
        with pytest.raises(UsageError, match="with one prompt each"):
            read_prompts(tiny, batch_of(tiny, world(0, "conversation")[:1]))
        plain = next(sample for sample in world(0, "region") if not sample.prompts and "<region>" in sample.conversation[-1].text)
        with pytest.raises(UsageError, match="2 questions, 1 prompts"):
            read_prompts(tiny, batch_of(tiny, [questions[0], plain]))


class TestSweep:
    def test_it_goes_in_equal_steps(self):
        found = between(torch.tensor([0.0, 0.0, 0.2, 0.4]), torch.tensor([0.4, 0.8, 0.6, 0.8]), 3)
        torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.2, 0.4], [0.2, 0.4, 0.4, 0.6], [0.4, 0.8, 0.6, 0.8]]))

    def test_its_ends_are_the_two_questions_answers(self, tiny: TPOModel, questions: list[Sample]):
        found = sweep(tiny, [(questions[0], questions[1])], 4)
        batch = batch_of(tiny, questions[:2])
        ends, truth = read_prompts(tiny, batch).boxes_xyxy, true_boxes(questions[:2], batch)
        torch.testing.assert_close(found.answers_xyxy[0, [0, -1]], ends, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.first[0, 0], box_iou(order_corners(ends[0]), truth[0]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.second[0, -1], box_iou(order_corners(ends[1]), truth[1]), atol=1e-5, rtol=1e-4)
        assert found.share.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1]) and found.prompts_xyxy.shape == (1, 4, 4)
        assert found.alike[0, 0].item() == pytest.approx(1.0, abs=1e-5) and found.alike[0, -1] < 1

    def test_the_clearest_pair_changes_sides(self):
        one, none = torch.ones(2), torch.zeros(2)
        first, second = torch.stack([one, torch.tensor([0.9, 0.1]), none]), torch.stack([none, torch.tensor([0.0, 0.8]), one])
        assert Sweep(one, one, one, first, second, one).clearest() == 1

    @pytest.mark.parametrize(("pairs", "steps"), [(0, 4), (1, 1)])
    def test_it_needs_a_pair_and_two_steps(self, tiny: TPOModel, questions: list[Sample], pairs: int, steps: int):
        with pytest.raises(UsageError, match=f"got '{pairs} pairs, {steps} steps'"):
            sweep(tiny, [(questions[0], questions[1])][:pairs], steps)


def test_three_ways_lie_in_the_box_and_around_its_middle():
    ways = three_ways([10.0, 20.0, 30.0, 60.0])
    assert ways["box"] == [[10, 20, 30, 60]] and ways["point"] == [[20, 40]]
    assert len(ways["scribble"]) == 4 and all(10 < x < 30 and 20 < y < 60 for x, y in ways["scribble"])


def test_what_a_model_understands(tiny: TPOModel):
    assert kinds_understood(with_prompts(tiny, "box")) == ("box",)
    assert (
        kinds_understood(with_prompts(tiny, "drawn")) == kinds_understood(with_prompts(tiny, "box+stroke")) == ("box", "point", "scribble")
    )
