"""Answers as samples: what each head gave becomes a target, what none gave becomes words, and the sample stays what it was."""

from __future__ import annotations

import numpy as np
import pytest

from tpo_lab.predictions import NO_WORDS, evenly, predicted_sample, predicted_samples
from tpo_lab.records import Record
from tpo_lab.rle import decode_rle, encode_rle


def record(sample, text: str = "", **routed) -> Record:
    return Record(
        id=sample.id,
        kind="",
        question="",
        expected_text="",
        text=text,
        expected=(),
        emitted=(),
        routed=routed,
        forced={},
        target={},
        media="",
    )


def test_boxes_and_their_markers(say):
    sample = say(0, "Where?", "<region>", region=[{"time_sec": 1.5, "xyxy": [1, 2, 3, 4]}])
    made = predicted_sample(sample, record(sample, region={"boxes_xyxy": [[5, 5, 9, 9], [7, 7, 7, 9], [0, 0, 2, 2]]}))
    assert [(box.time_sec, box.xyxy) for box in made.targets.region] == [(1.5, (5, 5, 9, 9)), (1.5, (0, 0, 2, 2))]
    assert made.conversation[-1].text == "<region> <region>"
    assert (made.id, made.media, made.meta["predicted"]) == (sample.id, sample.media, "routed")


def test_windows_keep_their_scores_and_saliency_its_steps(say):
    sample = say(0, "When?", "<temporal>", temporal={"windows_sec": [[0, 1]]})
    answer = {"windows_sec": [[1, 2], [0, 3]], "scores": [0.9, 0.2], "saliency": [[0.25, 0.1], [0.75, 0.8], [1.25, 0.3]]}
    made = predicted_sample(sample, record(sample, temporal=answer))
    assert made.targets.temporal.windows_sec == ((1, 2), (0, 3)) and made.meta["scores"] == [0.9, 0.2]
    assert (made.targets.temporal.saliency.step_sec, made.targets.temporal.saliency.scores) == (0.5, (0.1, 0.8, 0.3))


@pytest.mark.parametrize(("times", "count"), [([0.0, 1.0, 2.0], 3), ([0.5, 1.5, 2.5], 3), ([0.0], 1), ([0.5, 1.4, 2.6, 3.5], 4)])
def test_steps_cover_what_the_frames_cover(times, count):
    found = evenly([[time, place / 10] for place, time in enumerate(times)])
    assert len(found["scores"]) == count and found["scores"][0] == 0.0


def test_masks_of_several_objects_are_one_and_hidden_frames_stay_none(say):
    one, other = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    one[1, 1:3] = other[2, 4] = True
    sample = say(0, "Outline it", "<mask>", mask={"times_sec": [0.0], "rle": [None]})
    masks = [[encode_rle(one), encode_rle(one), None], [encode_rle(other), None, None]]
    made = predicted_sample(sample, record(sample, mask={"times_sec": [0, 1, 2], "masks": masks, "track_xyxy": []}))
    united, alone, hidden = made.targets.mask.rle
    assert (decode_rle("m", united.model_dump()) == (one | other)).all() and (decode_rle("m", alone.model_dump()) == one).all()
    assert hidden is None and made.conversation[-1].text == "<mask>"


def test_a_track_is_asked_by_its_marker(say):
    sample = say(0, "Track it", "<track>", track={"times_sec": [0.0], "xyxy": [None]})
    answer = {"times_sec": [0, 1], "masks": [[None, None]], "track_xyxy": [[[0, 0, 2, 2], None]]}
    made = predicted_sample(sample, record(sample, mask=answer))
    assert made.targets.track.xyxy == ((0, 0, 2, 2), None) and made.targets.mask is None


def test_words_are_kept_and_earlier_markers_are_plain(say):
    sample = say(0, "Where?", "<region>", "And why?", "Because.", region=[{"xyxy": [1, 2, 3, 4]}])
    made = predicted_sample(sample, record(sample, text="It <region> fell."))
    assert [turn.text for turn in made.conversation] == ["Where?", "[region]", "And why?", "It [region] fell."]
    assert predicted_sample(sample, record(sample)).conversation[-1].text == NO_WORDS
    assert not made.targets.names


def test_questions_without_a_record_are_left_out(say):
    first, second = say(0, "What?"), say(1, "What?")
    assert [each.id for each in predicted_samples([first, second], [record(second, text="A ball.")])] == [second.id]
