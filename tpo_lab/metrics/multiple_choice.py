"""Which option an answer means, by the rule of each benchmark and by one strict rule."""

from __future__ import annotations

import re
from pathlib import PurePath

_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",  # pairs of entries of the official list, fused by a missing comma
    "Best answer:Best option:",
)
_STRICT = re.compile(r"\(?([A-Za-z])\)?[.:]?(?:\s.*)?", re.DOTALL)


def question_key(video: str, question: str) -> str:
    """What tells a question without an id from others: its video's name and its words, without a template "Question: ...\\nOptions:"."""
    words = question.split("\nOptions:")[0].removeprefix("Question:")
    return f"{PurePath(video).name}: {' '.join(words.split())}"


def strict_letter(answer: str) -> str | None:
    """The option in upper case if the answer *begins* with it and nothing runs on: "C", "(C)", "c.", "C) a cat"; else None.

    "A cat" reads as the option A too: an answer that begins with an article is not told apart.
    """
    found = _STRICT.fullmatch(answer.strip())
    return found.group(1).upper() if found else None


def mvbench_correct(answer: str, letter: str) -> bool:
    """Whether MVBench counts the answer as the option `letter`.

    What stands before the first blank, in lower case and without full stops, is a part of "(x)", or holds "(x)".
    So an empty answer and "(" are right,
    "(A)(C)" is C, and "The answer is C" is wrong.

    Source: MVBench, check_ans.
    """
    wanted = f"({letter.lower()})"
    first = answer.lower().split(" ")[0]
    return first.replace(".", "") in wanted or wanted in first


def video_mme_letter(answer: str) -> str:
    """The first capital A, B, C or D after the usual phrases are cut out, or "".

    More than ten words without one of the letters are no answer. Capitals of ordinary words count: "Best answer:D" is B.

    Source: Video-MME, eval_your_results.
    """
    rest = answer.strip()
    for prefix in _PREFIXES:
        rest = rest.replace(prefix, "")
    found = re.search("[ABCD]", rest)
    return found.group(0) if found else ""


def mlvu_letter(answer: str) -> str:
    """What stands before the first ")", as it is: "B) a dog" is "B", but "(B) a dog" is "(B", which is no option.

    The official prompt ends in "Best option:(", so that an answer begins with the letter.

    Source: MLVU, choice_bench.
    """
    return answer.split(")")[0]


def mmiu_letter(answer: str) -> str | None:
    """The answer if it is one letter A to N, else None, where the official tool asks a language model.

    Source: MMIU, evaluate.
    """
    stripped = answer.strip().upper()
    return stripped if re.fullmatch("[A-N]", stripped) else None
