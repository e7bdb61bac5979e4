"""Exact match of short answers: the rules of normalising, counts per kind, and the blind baseline."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.qa import majority_baseline, normalise, qa_correct, qa_scores


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The  Red ball.", "red ball"),
        ("red-ball!", "red ball"),
        ("An apple a day", "apple day"),
        ("theatre", "theatre"),
        ("  \tTwo\n", "two"),
        ("“left”", "left"),
        ("3.5", "3 5"),
        ("A.", "a"),
        ("the", "the"),
        ("+", "+"),
        ("", ""),
    ],
)
def test_normalise_by_hand(answer, normal):
    assert normalise(answer) == normal


@pytest.mark.parametrize(("one", "other"), [("3.5", "35"), ("+", "-"), ("A", "B"), ("the", "a")])
def test_normalise_keeps_different_answers_apart(one, other):
    assert normalise(one) != normalise(other)


@given(text=st.text(max_size=12))
@settings(max_examples=100, deadline=None)
def test_any_text_that_is_not_blank_matches_itself_and_silence_never_matches_it(text):
    if text.strip():
        assert qa_correct([text, None, "", " "], [text] * 4).tolist() == [True, False, False, False]


@given(word=st.text(alphabet="bcdefgh ", min_size=1, max_size=12).filter(str.strip))
def test_normalise_is_idempotent_and_blind_to_case_and_articles(word):
    assert normalise(normalise(word)) == normalise(word)
    assert normalise(f"The {word.upper()}, ") == normalise(word)


def test_qa_scores_by_hand():
    predicted = ["Red", "the left", None, "3", "  "]
    expected = ["red", "left.", "left", "4", "5"]
    kinds = ["colour", "side", "side", "number", "number"]
    assert qa_correct(predicted, expected).tolist() == [True, True, False, False, False]
    assert qa_scores(predicted, expected, kinds) == pytest.approx(
        {
            "accuracy": 2 / 5,
            "missing_rate": 2 / 5,
            "count": 5,
            "accuracy/colour": 1.0,
            "count/colour": 1,
            "accuracy/side": 0.5,
            "count/side": 2,
            "accuracy/number": 0.0,
            "count/number": 2,
        }
    )
    assert set(qa_scores(predicted, expected)) == {"accuracy", "missing_rate", "count"}


@given(
    rows=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1),
    random=st.randoms(),
)
def test_qa_scores_ignore_the_order_and_the_whole_is_the_weighted_mean_of_the_kinds(rows, random):
    scores, again = (qa_scores(*map(list, zip(*order, strict=True))) for order in (rows, random.sample(rows, len(rows))))
    assert scores == pytest.approx(again)
    kinds = {kind for *_, kind in rows}
    assert sum(scores[f"accuracy/{kind}"] * scores[f"count/{kind}"] for kind in kinds) == pytest.approx(
        scores["accuracy"] * scores["count"]
    )


def test_majority_baseline_by_hand():
    train = {"colour": ["red", "Blue", "blue."], "side": ["right", "left"], "empty": []}
    scores = majority_baseline(train, ["blue", "red", "left", "right", "blue"], ["colour", "colour", "side", "side", "unseen"])
    assert scores["accuracy/colour"] == 0.5
    assert scores["accuracy/side"] == 0.5  # a tie: "left" comes first in the alphabet
    assert scores["accuracy/unseen"] == 1.0  # the commonest answer of all kinds is "blue"
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert majority_baseline({"side": ["right", "left"]}, ["left"], ["side"])["accuracy"] == 1.0


def test_qa_scores_refuse_what_cannot_be_scored():
    with pytest.raises(UsageError, match=r"predicted: .*\(expected: 2\), got 1"):
        qa_scores(["a"], ["a", "b"])
    with pytest.raises(UsageError, match=r"expected\[1\]: expected an answer, .* got ' '"):
        qa_scores(["a", "b"], ["a", " "])
    with pytest.raises(UsageError, match=r"kinds: expected one kind per answer \(2\), got 3"):
        qa_scores(["a", "b"], ["a", "b"], ["x", "x", "y"])
    with pytest.raises(UsageError, match=r"train_answers_by_kind: expected at least one answer, got \{'side': \[\]\}"):
        majority_baseline({"side": []}, ["left"], ["side"])
