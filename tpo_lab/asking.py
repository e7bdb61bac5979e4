"""One question about one video or image file, answered whole or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tpo_lab.answer import Answer, Answerer
from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.heads.sliding import Sliding
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import BoxPrompt, Media, Sample, ScribblePrompt, Turn


def ask(
    model: TPOModel,
    video: str | Path,
    question: str,
    *,
    boxes: Sequence[Sequence[float]] = (),
    strokes: Sequence[Sequence[Sequence[float]]] = (),
    history: Sequence[tuple[str, str]] = (),
    start_sec: float = 0.0,
    end_sec: float | None = None,
    features: str | Path | None = None,
    on_corrupt: str = "raise",
    max_tokens: int = 96,
    sliding: Sliding | None = None,
    on_text: Callable[[str], None] | None = None,
) -> tuple[Answer, ClipInfo]:
    """Ask one question about a video or image file.

    Args:
        question: may mention `<prompt:0>`, ..., first the boxes, then the strokes; those that it does not mention are put at its end.
        boxes: xyxy in pixels of the original first frame.
        strokes: points (x, y) in pixels of that frame, several for a scribble, one for a point.
        history: earlier (question, answer) pairs; answers as `Answer.text`.
        features: where relative folders of precomputed features start from, for heads that look at such; the current folder where None.
        sliding: the windows in which the temporal head reads a clip with more frames than it was trained with; its own setting where None.

    Raises:
        UsageError: for a file that cannot be read, an empty question or answer, a box or point outside the frame, or a clip without the
            features that a head which the model asked looks at.
    """
    sample = question_sample(video, question, boxes=boxes, strokes=strokes, history=history, start_sec=start_sec, end_sec=end_sec)
    sample = sample if features is None else sample.at(features)
    row = Frames(model.backbone, features=model.feature_files, keep=False, on_corrupt=on_corrupt).row([sample])
    require_inside(row.clip, boxes, strokes)
    was_training = model.training
    model.eval()
    try:
        tell = None if on_text is None else lambda index, piece: on_text(piece)
        answer = Answerer(model, max_tokens=max_tokens, sliding=sliding).answer([row], on_text=tell)[0]
    finally:
        model.train(was_training)
    require_features(model, row, answer)
    return answer, row.clip


def question_sample(
    video: str | Path,
    question: str,
    *,
    id: str = "question",
    boxes: Sequence[Sequence[float]] = (),
    strokes: Sequence[Sequence[Sequence[float]]] = (),
    history: Sequence[tuple[str, str]] = (),
    start_sec: float = 0.0,
    end_sec: float | None = None,
    fps: float | None = None,
) -> Sample:
    """A question as a sample that ends with the user; the arguments are those of `ask`.

    Raises:
        UsageError: a turn without text.
    """
    text = question
    for said in (question, *(said for pair in history for said in pair)):
        if not said.strip():
            raise UsageError("question", expected="some text in every turn", got=said)
    for index in range(len(boxes) + len(strokes)):
        if f"<prompt:{index}>" not in text:
            text = f"{text} <prompt:{index}>"
    turns = [turn for asked, said in history for turn in (Turn(role="user", text=asked), Turn(role="assistant", text=said))]
    # not validated: the frame's size is not known yet, and earlier answers name heads without a target
    pointed = [BoxPrompt.model_construct(xyxy=tuple(float(edge) for edge in box)) for box in boxes]
    prompts = (*pointed, *(ScribblePrompt.model_construct(xys=tuple((float(x), float(y)) for x, y in stroke)) for stroke in strokes))
    media = Media.model_construct(path=_absolute(video), start_sec=start_sec, end_sec=end_sec, fps=fps)
    return Sample.model_construct(id=id, media=media, conversation=(*turns, Turn(role="user", text=text)), prompts=prompts)


def require_inside(clip: ClipInfo, boxes: Sequence[Sequence[float]], strokes: Sequence[Sequence[Sequence[float]]]) -> None:
    """Refuses boxes and strokes that do not lie in the frame, xyxy and xy in its pixels.

    Raises:
        UsageError: one that does not.
    """
    size = f"{clip.width} x {clip.height}"
    for box in boxes:
        if len(box) != 4 or not (0 <= box[0] < box[2] <= clip.width and 0 <= box[1] < box[3] <= clip.height):
            raise UsageError("box", expected=f"x0 < x1 and y0 < y1 inside the frame of {size} pixels", got=list(box))
    for stroke in strokes:
        if not stroke or not all(0 <= x <= clip.width and 0 <= y <= clip.height for x, y in stroke):
            raise UsageError("stroke", expected=f"points x,y inside the frame of {size} pixels", got=[list(point) for point in stroke])


def require_features(model: TPOModel, row: Row, answer: Answer) -> None:
    """Refuses an answer that asks a head which looks at features from files, where the clip has none.

    Raises:
        UsageError: names the file that is missing.
    """
    for head in answer.routes:
        if head not in answer.structured:
            # there were no features when the row was made; this says which
            model.feature_files[head].load(row.samples[0], row.clip.duration_sec)


def stream(model: TPOModel, video: str | Path, question: str, **options: Any) -> Iterator[str | Answer]:
    """Like `ask`, piece by piece: yields strings as they are written and the `Answer` last; closing it stops the model."""
    import queue
    import threading

    pieces: queue.Queue[str | Answer | BaseException] = queue.Queue()
    closed = threading.Event()

    def tell(piece: str) -> None:
        if closed.is_set():
            raise GeneratorExit
        pieces.put(piece)

    def write() -> None:
        try:
            pieces.put(ask(model, video, question, on_text=tell, **options)[0])
        except BaseException as error:
            pieces.put(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        while True:
            piece = pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            yield piece
            if isinstance(piece, Answer):
                return
    finally:
        closed.set()
        writer.join()


def _absolute(video: str | Path) -> str:
    """A path that means the same from every folder; references with a scheme are kept."""
    return str(video) if "://" in str(video) else str(Path(video).absolute())
