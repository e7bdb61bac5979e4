"""Questions in, answers out: those about one clip together, many in a batch, and what cannot be answered said in its place."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tpo_lab.answer import Answer, Answerer
from tpo_lab.asking import require_features
from tpo_lab.batch import Row
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.heads.sliding import Sliding
from tpo_lab.media import Frames, media_key
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.serving.questions import Line, Put, Question, put

if TYPE_CHECKING:
    from tpo_lab.backbones.base import VideoFeatures

_BATCHES_AHEAD = 16
"""Batches in which questions about one clip are brought together; so many questions are held in memory."""
_KEPT_BYTES = 1 << 30
_READERS = 2
"""Clips read at once; decoders have threads of their own."""
_LONGEST_ERROR = 500

Asked = Question | Sample | Line


@dataclass(frozen=True)
class Answered:
    """A question and what came of it.

    Attributes:
        question: as it was given.
        id: its id; None for a line that has none that can be read.
        text: what was asked last; "" where that cannot be read.
        video: as it was written; "" where that cannot be read.
        start_sec: where the clip begins in the video.
        answer: None where there is an error.
        clip: None where the video could not be read.
        error: why there is no answer, one sentence; "" where there is one.
    """

    question: Asked
    id: str | None
    text: str = ""
    video: str = ""
    start_sec: float = 0.0
    answer: Answer | None = None
    clip: ClipInfo | None = None
    error: str = ""


def ask_many(
    model: TPOModel,
    questions: Iterable[Asked],
    *,
    batch_size: int = 8,
    features: Path | None = None,
    on_corrupt: str = "raise",
    max_tokens: int = 96,
    sliding: Sliding | None = None,
    skip: Callable[[Asked], bool] = lambda question: False,
    kept_bytes: int = _KEPT_BYTES,
) -> Iterator[Answered]:
    """Answer questions about any videos, each as `tpo_lab.asking.ask` answers it alone.

    The questions are read as they are needed, `16 * batch_size` at a time. Among those, questions about one clip stand together in the
    order of the answers, and the clip is read and encoded once; the clips of the next batch are read while the model answers. A question
    that cannot be answered gives an `Answered` with an error, and the rest goes on.

    Args:
        model: in any mode; it is as before at the end.
        questions: any number of them.
        batch_size: questions answered at once.
        features: where relative folders of precomputed features start from.
        on_corrupt: what the video reader does with damaged files.
        max_tokens: most tokens of an answer.
        sliding: the windows in which the temporal head reads long clips, in place of its own.
        skip: says which questions have an answer already. It changes nothing about the others: which of them are answered together, and
            in which order, does not depend on it.
        kept_bytes: how much memory the encoded clips may take, beside those of the batch.

    Raises:
        UsageError: no batch.
    """
    if batch_size < 1:
        raise UsageError("batch_size", expected="at least 1", got=batch_size)
    clips = _Clips(model, Frames(model.backbone, features=model.feature_files, keep=False, on_corrupt=on_corrupt), kept_bytes)
    service = _Service(model, Answerer(model, max_tokens=max_tokens, sliding=sliding), clips)
    wanted = _wanted(questions, features, batch_size, skip)
    was_training = model.training
    model.eval()
    try:
        batch = next(wanted, None)
        while batch is not None:
            following = next(wanted, None)
            clips.read_ahead([*batch, *(following or ())])
            yield from (found for found in service.answer(batch) if not skip(found.question))
            batch = following
    finally:
        model.train(was_training)
        clips.close()


@dataclass(frozen=True)
class _Waiting:
    """A question on its way: put to the model, or the reason why it is not."""

    question: Asked
    put: Put | None
    error: str = ""

    @property
    def clip_name(self) -> tuple[str, str]:
        """Equal for questions that may share an encoded clip; features from files depend on the folder too."""
        return ("", "") if self.put is None else (media_key(self.put.sample), str(self.put.sample.root))


def _wanted(questions: Iterable[Asked], features: Path | None, batch_size: int, skip: Callable[[Asked], bool]) -> Iterator[list[_Waiting]]:
    """The batches in which something has no answer yet."""
    waiting = iter(questions)
    while ahead := list(islice(waiting, batch_size * _BATCHES_AHEAD)):
        if not all(map(skip, ahead)):
            yield from (batch for batch in _batches(ahead, features, batch_size) if not all(skip(each.question) for each in batch))


def _batches(ahead: Sequence[Asked], features: Path | None, size: int) -> Iterator[list[_Waiting]]:
    """All questions that were read ahead, those about one clip one after the other, in batches."""
    by_clip: OrderedDict[tuple[str, str], list[_Waiting]] = OrderedDict()
    for question in ahead:
        waiting = _understood(question, features)
        by_clip.setdefault(waiting.clip_name, []).append(waiting)
    ordered = [waiting for group in by_clip.values() for waiting in group]
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _understood(question: Asked, features: Path | None) -> _Waiting:
    try:
        return _Waiting(question, put(question, features))
    except TPOError as error:
        return _Waiting(question, None, _sentence(error))


class _Clips:
    """Reads clips while the model answers, encodes each on its own, and keeps the last ones."""

    def __init__(self, model: TPOModel, frames: Frames, limit_bytes: int) -> None:
        self.model, self.frames, self.limit_bytes = model, frames, limit_bytes
        self._kept: OrderedDict[tuple[str, str], tuple[Row, VideoFeatures]] = OrderedDict()
        self._bytes = 0
        self._coming: dict[tuple[str, str], Future[Row]] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="clips")

    def read_ahead(self, questions: Iterable[_Waiting]) -> None:
        """Begin to read the clips of questions that are asked next."""
        for waiting in questions:
            name = waiting.clip_name
            if waiting.put is not None and name not in self._kept and name not in self._coming:
                self._coming[name] = self._readers.submit(self.frames.row, [waiting.put.sample])

    def close(self) -> None:
        """Read no more."""
        self._readers.shutdown(wait=True, cancel_futures=True)

    @torch.no_grad()
    def __call__(self, name: tuple[str, str], sample: Sample) -> tuple[Row, VideoFeatures]:
        if name not in self._kept:
            coming = self._coming.pop(name, None)
            row = self.frames.row([sample]) if coming is None else coming.result()
            self._keep(name, (row, self.model.encode_video([row])[0]))
        self._kept.move_to_end(name)
        row, video = self._kept[name]
        return replace(row, samples=(sample,)), video

    def _keep(self, name: tuple[str, str], found: tuple[Row, VideoFeatures]) -> None:
        self._kept[name] = found
        self._bytes += _size(found)
        while self._bytes > self.limit_bytes and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(found: tuple[Row, VideoFeatures]) -> int:
    row, video = found
    files = sum(each.values.nbytes for each in row.features.values())
    deeper = 0 if video.deeper is None else video.deeper.nbytes
    return row.frames.nbytes + video.tokens.nbytes + video.frames.nbytes + deeper + files


class _Service:
    def __init__(self, model: TPOModel, answerer: Answerer, clips: _Clips) -> None:
        self.model, self.answerer, self.clips = model, answerer, clips

    def answer(self, batch: Sequence[_Waiting]) -> Iterator[Answered]:
        """One for each question, in their order."""
        ready: dict[int, tuple[Row, VideoFeatures]] = {}
        found: dict[int, Answered] = {}
        for place, waiting in enumerate(batch):
            if waiting.put is None:
                name = waiting.question.named() if isinstance(waiting.question, Line) else waiting.question.id
                found[place] = Answered(waiting.question, name, error=waiting.error)
                continue
            try:
                shown = self.clips(waiting.clip_name, waiting.put.sample)
                waiting.put.require_inside(shown[0].clip)
                ready[place] = shown
            # what decoders raise for damaged files has no class in common, and one file must not stop a million
            except Exception as error:
                found[place] = _failed(waiting, _sentence(error))
        found.update(zip(ready, self._answer([(batch[place], *shown) for place, shown in ready.items()]), strict=True))
        return (found[place] for place in range(len(batch)))

    def _answer(self, ready: Sequence[tuple[_Waiting, Row, VideoFeatures]]) -> list[Answered]:
        """Together; where that fails in halves, until the one that fails is alone."""
        if not ready:
            return []
        problem = ""
        try:
            answers = self.answerer.answer([row for _, row, _ in ready], video=[video for _, _, video in ready])
        except Exception as error:
            problem = _sentence(error)
        # outside of the handler, which would hold on to the memory of what failed
        if not problem:
            return [self._finished(waiting, row, answer) for (waiting, row, _), answer in zip(ready, answers, strict=True)]
        if len(ready) == 1:
            return [_failed(ready[0][0], problem, ready[0][1].clip)]
        middle = len(ready) // 2
        return self._answer(ready[:middle]) + self._answer(ready[middle:])

    def _finished(self, waiting: _Waiting, row: Row, answer: Answer) -> Answered:
        try:
            require_features(self.model, row, answer)
        except TPOError as error:
            return _failed(waiting, _sentence(error), row.clip)
        return replace(_failed(waiting, "", row.clip), answer=answer)


def _failed(waiting: _Waiting, error: str, clip: ClipInfo | None = None) -> Answered:
    assert waiting.put is not None
    sample = waiting.put.sample
    said = sample.conversation[-1].text
    return Answered(waiting.question, sample.id, said, waiting.put.video, sample.media.start_sec, None, clip, error)


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    told = text if isinstance(error, TPOError) else f"{type(error).__name__}: {text}"
    return told if len(told) <= _LONGEST_ERROR else f"{told[: _LONGEST_ERROR - 3]}..."
