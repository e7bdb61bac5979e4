"""Metrics of short answers: normalised exact match, overall and per kind of question, and what guessing the commonest answer gets."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

ABSENT_KINDS = frozenset({"absent"})
"""Kinds of questions that are put like a task's, and to which no route is right: what they ask for is not in the video."""
ARTICLES = frozenset({"a", "an", "the"})


def normalise(answer: str) -> str:
    """`answer` in lower case, without punctuation and articles, words one blank apart.

    Punctuation becomes a blank, so that "3.5" is not "35"; articles stay where nothing else is left (the option letter "A"), and an
    answer of punctuation only stays as it is, so that "+" is not "-".
    """
    lowered = unicodedata.normalize("NFKC", answer).lower()
    words = "".join(" " if unicodedata.category(character)[0] in "PS" else character for character in lowered).split()
    return " ".join([word for word in words if word not in ARTICLES] or words or lowered.split())


def qa_correct(predicted: Sequence[str | None], expected: Sequence[str]) -> NDArray[np.bool_]:
    """Whether [sample] each answer equals the expected one after `normalise`; None (no answer) is wrong.

    Raises:
        UsageError: the lengths differ, there is no sample, or an expected answer is blank.
    """
    if len(predicted) != len(expected) or not expected:
        raise UsageError("predicted", expected=f"one answer per expected one, at least one (expected: {len(expected)})", got=len(predicted))
    for index, answer in enumerate(expected):
        if not answer.strip():
            raise UsageError(f"expected[{index}]", expected="an answer, since a blank one would reward silence", got=answer)
    pairs = zip(predicted, expected, strict=True)
    return np.array([given is not None and normalise(given) == normalise(answer) for given, answer in pairs])


def qa_scores(predicted: Sequence[str | None], expected: Sequence[str], kinds: Sequence[str] | None = None) -> dict[str, float]:
    """Exact match: `accuracy`, `missing_rate` (None or blank), `count`; with kinds also `accuracy/<kind>` and `count/<kind>`.

    Raises:
        UsageError: as `qa_correct`, or there is not one kind per answer.
    """
    correct = qa_correct(predicted, expected)
    scores = {
        "accuracy": float(correct.mean()),
        "missing_rate": sum(answer is None or not answer.strip() for answer in predicted) / len(correct),
        "count": float(len(correct)),
    }
    if kinds is None:
        return scores
    if len(kinds) != len(correct):
        raise UsageError("kinds", expected=f"one kind per answer ({len(correct)})", got=len(kinds))
    for kind in sorted(set(kinds)):
        of_kind = correct[np.array([each == kind for each in kinds])]
        scores |= {f"accuracy/{kind}": float(of_kind.mean()), f"count/{kind}": float(len(of_kind))}
    return scores


def majority_baseline(
    train_answers_by_kind: Mapping[str, Sequence[str]], expected: Sequence[str], kinds: Sequence[str]
) -> dict[str, float]:
    """`qa_scores` of always giving the commonest training answer of the question's kind: what a blind model reaches.

    A kind without training answers gets the commonest answer of all kinds. Equally common answers: the first in alphabetical order.

    Raises:
        UsageError: as `qa_scores`, or there is no training answer at all.
    """
    every = [answer for answers in train_answers_by_kind.values() for answer in answers]
    if not every:
        raise UsageError("train_answers_by_kind", expected="at least one answer", got=dict(train_answers_by_kind))
    overall = _commonest(every)
    of_kind = {kind: _commonest(answers) for kind, answers in train_answers_by_kind.items() if answers}
    return qa_scores([of_kind.get(kind, overall) for kind in kinds], expected, kinds)


def _commonest(answers: Iterable[str]) -> str:
    counts = Counter(normalise(answer) for answer in answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))
