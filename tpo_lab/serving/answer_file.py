"""From a file of questions to a file of answers: a line for each, appended as it is answered, so that a second call goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads.sliding import Sliding
from tpo_lab.model import TPOModel
from tpo_lab.serving.answering import Answered, Asked, ask_many
from tpo_lab.serving.origin import Origin, write_origin
from tpo_lab.serving.questions import Line, read_lines

Listener = Callable[[int, int, int], None]


@dataclass(frozen=True)
class BatchSummary:
    """What a file of answers holds.

    Attributes:
        file: where the answers are.
        total: questions in the file of questions.
        found: lines that were there before.
        answered: lines with an answer, those that were there before among them.
        failed: lines with an error, those that were there before among them.
    """

    file: Path
    total: int
    found: int
    answered: int
    failed: int


class TooManyFailed(TPOError):
    """More questions failed than were allowed; what was answered is in the file."""


def answer_file(
    model: TPOModel,
    questions: Path,
    answers: Path,
    *,
    batch_size: int = 8,
    features: Path | None = None,
    on_corrupt: str = "raise",
    max_tokens: int = 96,
    sliding: Sliding | None = None,
    max_failed: int | None = None,
    resume_anyway: bool = False,
    retry_failed: bool = False,
    listener: Listener | None = None,
) -> BatchSummary:
    """Answer every line of a JSONL file that has no answer yet.

    A line of answers has `line` and `id` of its question, and the fields of `Answer.to_dict`, or `error`. It is in the file as soon as it
    is known: a call that is stopped at any moment loses at most a batch, and the same call goes on from there and ends with the same
    file as one that was never stopped. What the answers were made with is written beside them.

    Args:
        model: that answers.
        questions: a `Question`, or a sample of the schema `tpo_lab.sample/1`, in each line; relative paths start from its folder.
        answers: is made, or appended to.
        batch_size, features, on_corrupt, max_tokens, sliding: as in `ask_many`.
        max_failed: stop when more lines than these have an error; None goes on to the end.
        resume_anyway: go on even if the model, the questions or the settings are others than those of the answers that are there.
        retry_failed: ask again what has an error.
        listener: called after each answer with how many lines are done, how many there were before, and how many there are in all.

    Raises:
        UsageError: there is no file of questions, another call writes to the answers, or the answers were made with something else.
        TooManyFailed: as `max_failed` says.
    """
    total = sum(1 for _ in read_lines(questions))
    settings = {
        "features": None if features is None else str(features),
        "on_corrupt": on_corrupt,
        "max_tokens": max_tokens,
        "sliding": None if sliding is None else [sliding.frames, sliding.overlap],
    }
    with _only_writer(answers):
        write_origin(answers, Origin.of(model, questions, settings), questions, resume_anyway=resume_anyway)
        kept = _Kept(answers, retry_failed=retry_failed)
        before = kept.count
        asked = ask_many(
            model,
            read_lines(questions),
            batch_size=batch_size,
            features=features,
            on_corrupt=on_corrupt,
            max_tokens=max_tokens,
            sliding=sliding,
            skip=kept.__contains__,
        )
        with answers.open("ab") as file:
            for found in asked:
                _append(file, found)
                kept.failed += bool(found.error)
                kept.count += 1
                if listener is not None:
                    listener(kept.count, before, total)
                if max_failed is not None and kept.failed > max_failed:
                    raise TooManyFailed(f"More than {max_failed} of the questions failed, the last one with: {found.error} Stopped.")
    return BatchSummary(answers, total, before, kept.count - kept.failed, kept.failed)


@contextmanager
def _only_writer(answers: Path) -> Iterator[None]:
    from tpo_lab.lock import Lock

    answers.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(answers.with_name(f".{answers.name}.lock"))
    if not lock.take():
        raise UsageError("answers", expected="a file that no other call writes to", got=str(answers), hint="Wait until that one is done.")
    # the lock's file stays: where it were deleted, two calls could hold locks on two files of that name
    with lock:
        yield


class _Kept:
    """Which lines are answered: a byte for each, so that a million cost a megabyte. Repairs the file where a call was killed."""

    def __init__(self, answers: Path, *, retry_failed: bool) -> None:
        self.count = self.failed = 0
        self._done = bytearray()
        _cut_half_line(answers)
        if retry_failed and answers.is_file():
            _rewrite_without_errors(answers)
        for line in _answered(answers):
            number = line["line"]
            if number < len(self._done) and self._done[number]:
                raise UsageError(f"answers {answers}", expected="one answer for each line", got=f"two for line {number}")
            self._done.extend(bytes(max(0, number + 1 - len(self._done))))
            self._done[number] = 1
            self.count += 1
            self.failed += "error" in line

    def __contains__(self, question: Asked) -> bool:
        assert isinstance(question, Line)
        return question.number < len(self._done) and bool(self._done[question.number])


def _cut_half_line(path: Path) -> None:
    """What was being written when a call was killed ends without a line end."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        place = end = file.seek(0, os.SEEK_END)
        while place:
            start = max(0, place - (1 << 16))
            file.seek(start)
            last = file.read(place - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            place = start
        else:
            end = 0
        file.truncate(end)


def _rewrite_without_errors(path: Path) -> None:
    from tpo_lab.files.writing import replaced

    with replaced(path) as unfinished, unfinished.open("wb") as kept, path.open("rb") as file:
        kept.writelines(line for line in file if "error" not in json.loads(line))


def _answered(path: Path) -> Iterable[Mapping[str, Any]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                found = json.loads(raw)
                good = isinstance(found["line"], int) and found["line"] > 0
            except (ValueError, TypeError, KeyError):
                good = False
            if not good:
                shown = raw[:80].decode("utf-8", "replace")
                raise UsageError(f"answers {path}, line {number}", expected="a line that was written here", got=shown)
            yield found


def _append(file: IO[bytes], found: Answered) -> None:
    """One write for one line, which the system has before the next answer begins."""
    assert isinstance(found.question, Line)
    record: dict[str, Any] = {"line": found.question.number, "id": found.id, "video": found.video, "question": found.text}
    if found.answer is None or found.clip is None:
        record["error"] = found.error
    else:
        record |= {"start_sec": found.start_sec, "duration_sec": found.clip.duration_sec, **found.answer.to_dict()}
    file.write(json.dumps(_finite(record), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n")
    file.flush()


def _finite(value: Any) -> Any:
    """With None in the place of numbers that are not finite, which JSON has not."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
