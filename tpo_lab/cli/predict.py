"""`tpo-lab predict`: a question about a video or image, answered as JSON and as pictures; or a file of questions, answered as JSONL."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, Stopped, command
from tpo_lab.cli.screen import Bars, table
from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from tpo_lab.heads.sliding import Sliding

EXAMPLE = """
tpo-lab predict runs/demo/40_joint_training/run/3b clip.mp4 "When does the red ball stop?" --out answer
tpo-lab predict runs/qvhighlights film.mp4 "When do they dance?" --features features --window 75
tpo-lab predict runs/first clip.mp4 "Where does this go?" --box 12,30,96,120 --json
tpo-lab predict runs/first clip.mp4 "Track <prompt:0> in the video." --point 40,60 --out answer
tpo-lab predict runs/first --batch questions.jsonl --out answers.jsonl --batch-size 16
"""
_BATCH_SIZE = 8

group = typer.Typer()


@command(group, "predict", example=EXAMPLE)
def predict(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or run folder, nano-tpo, or nano (untrained heads).")
    ],
    video: Annotated[
        Path | None, typer.Argument(metavar="VIDEO", help="A video, an image, a folder of images or a pattern of them.", show_default=False)
    ] = None,
    question: Annotated[
        str | None,
        typer.Argument(
            metavar="QUESTION",
            help="What to ask; may say <prompt:0> where it means the first of the boxes, points and scribbles.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        list[str], typer.Option(metavar="X0,Y0,X1,Y1", help="Point at this box, in pixels of the first frame; repeatable.")
    ] = [],
    point: Annotated[list[str], typer.Option(metavar="X,Y", help="Point at this place, in the same pixels; repeatable.")] = [],
    scribble: Annotated[list[str], typer.Option(metavar="X,Y,X,Y,...", help="Point with a line through these places; repeatable.")] = [],
    features: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where a head's relative folders of precomputed features start from.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="N", help="Read clips of more than N frames in windows of N; N as in the training of the head.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Write answer.json, frames.png and timeline.png there; with --batch: answers.jsonl, or this .jsonl file.",
        ),
    ] = None,
    on_corrupt: Annotated[str, typer.Option(metavar="raise|drop|warn", help="What to do with damaged frames.")] = "raise",
    start: Annotated[float | None, typer.Option(metavar="SEC", help="Where the clip begins in the video; at 0 by default.")] = None,
    end: Annotated[float | None, typer.Option(metavar="SEC", help="Where it ends; its end by default.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help='Ask every line: {"id", "video", "question"} with "boxes", "points", "scribbles", "history", "start_sec", "end_sec" as '
            "needed; or samples of a converted data set. Relative videos lie beside the file. The same call goes on where it was stopped.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help=f"With --batch: questions answered at once. Default: {_BATCH_SIZE}.")
    ] = None,
    max_failed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="With --batch: up to N failed questions are no failure; stop when there are more."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="With --batch: ask again what failed in an earlier call.")] = False,
    resume_anyway: Annotated[
        bool,
        typer.Option("--resume-anyway", help="With --batch: go on though model, questions or settings changed."),
    ] = False,
) -> Result:
    """Answer a question about a video, or with --batch many questions about many.

    Times in the answer count from the start of the clip, boxes are pixels of its frames.
    """
    if window is not None and window < 1:
        raise UsageError("--window", expected="1 frame or more", got=window)
    if batch is not None:
        single = {"VIDEO": video, "--box": box, "--point": point, "--scribble": scribble, "--start": start, "--end": end}
        _refuse(single, "none with --batch, where each line has its own")
        options = {"features": features, "on_corrupt": on_corrupt, "sliding": _sliding(window), "max_failed": max_failed}
        options |= {"batch_size": batch_size or _BATCH_SIZE, "retry_failed": retry_failed, "resume_anyway": resume_anyway}
        return _many(checkpoint, batch, _answers_file(batch, out), options)
    several = {"--batch-size": batch_size, "--max-failed": max_failed, "--retry-failed": retry_failed, "--resume-anyway": resume_anyway}
    _refuse(several, "none without --batch")
    if video is None or question is None:
        missing = "VIDEO" if video is None else "QUESTION"
        raise UsageError(missing, expected="a video and a question, or --batch FILE.jsonl", got=None)
    boxes = [parse_box(text) for text in box]
    strokes = [parse_points("--point", text, 1, 1) for text in point]
    strokes += [parse_points("--scribble", text, 2) for text in scribble]
    if not question.strip():
        raise UsageError("question", expected="some words", got=question)
    from tpo_lab.asking import ask
    from tpo_lab.cli.models import open_model

    start = start or 0.0
    answer, clip = ask(
        open_model(checkpoint),
        video,
        question,
        boxes=boxes,
        strokes=strokes,
        start_sec=start,
        end_sec=end,
        features=features,
        on_corrupt=on_corrupt,
        sliding=_sliding(window),
    )
    asked = {"video": str(video), "question": question, "start_sec": start, "duration_sec": clip.duration_sec}
    document: dict[str, Any] = {**answer.to_dict(), **asked}
    if out is not None:
        from tpo_lab.cli.overlays import write_overlays

        shown_sec = (start, start + clip.duration_sec)
        count = len(clip.times_sec)
        document["files"] = write_overlays(
            document, out, shown_sec, prompts=boxes, strokes=strokes, num_frames=count, on_corrupt=on_corrupt
        )
    return Result(document, _view(document))


def _refuse(given: Mapping[str, Any], expected: str) -> None:
    """Options that mean nothing in this call."""
    for name, value in given.items():
        if value is not None and value is not False and value != []:
            raise UsageError(name, expected=expected, got=str(value) if isinstance(value, Path) else value)


def _sliding(window: int | None) -> Sliding | None:
    if window is None:
        return None
    from tpo_lab.heads.sliding import Sliding

    return Sliding(frames=window, overlap=window // 2)


def _answers_file(questions: Path, out: Path | None) -> Path:
    """A .jsonl file is meant as it is, all else is a folder; beside the questions where nothing is said."""
    if out is None:
        return questions.with_name(f"{questions.stem}.answers.jsonl")
    return out if out.suffix == ".jsonl" and not out.is_dir() else out / "answers.jsonl"


def _many(checkpoint: str, questions: Path, answers: Path, options: Mapping[str, Any]) -> Result:
    """Answers a file of questions, and says how many came of it."""
    if not questions.is_file():
        raise UsageError("--batch", expected="a JSONL file of questions", got=str(questions))
    if answers.resolve() == questions.resolve():
        raise UsageError("--out", expected="another file than that of the questions", got=str(answers))
    from tpo_lab.cli.models import open_model
    from tpo_lab.serving import answer_file

    model = open_model(checkpoint)
    began = time.monotonic()
    try:
        with Bars() as bars:
            pace = _Pace(bars)
            found = answer_file(model, questions, answers, listener=pace, **options)
    except KeyboardInterrupt:
        raise Stopped(f"Interrupted. {pace.done} of {pace.total} lines are in {answers}; the same call goes on from there.") from None
    seconds = time.monotonic() - began
    new = found.answered + found.failed - found.found
    document = {
        "checkpoint": checkpoint,
        "questions": str(questions),
        "answers": str(answers),
        "total": found.total,
        "answered": found.answered,
        "failed": found.failed,
        "found": found.found,
        "new": new,
        "seconds": round(seconds, 3),
        "questions_per_sec": round(new / seconds, 3) if seconds else None,
    }
    return Result(document, _counted(document), int(found.failed > (options["max_failed"] or 0)))


class _Pace:
    """Says how far the questions have come, how fast, and how long the rest will take."""

    def __init__(self, bars: Bars) -> None:
        self.bars, self.done, self.total = bars, 0, 0
        self._began = time.monotonic()

    def __call__(self, done: int, before: int, total: int) -> None:
        self.done, self.total = done, total
        rate = (done - before) / max(time.monotonic() - self._began, 1e-3)
        left = (total - done) / rate
        self.bars.move("questions", done, total, f"{rate:.3g}/s, {_duration(left)} left")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _counted(document: Mapping[str, Any]) -> Table:
    rows = [
        ("questions", f"{document['total']:,}"),
        ("answered", f"{document['answered']:,}"),
        ("failed", f"{document['failed']:,}" + (' (their lines have an "error")' if document["failed"] else "")),
        ("found from earlier calls", f"{document['found']:,}"),
        ("answers", document["answers"]),
    ]
    return table(("", ""), rows)


def _seen(document: dict[str, Any], boxes: list[list[float] | None]) -> str:
    """In how many frames an object is seen, and where at first."""
    times = document["structured"]["mask"]["times_sec"]
    found = [(time, box) for time, box in zip(times, boxes, strict=True) if box is not None]
    if not found:
        return f"in none of {len(boxes)} frames"
    time_sec, box = found[0]
    return f"in {len(found)} of {len(boxes)} frames; at {time_sec:.2f} s at {', '.join(f'{edge:.0f}' for edge in box)}"


def parse_box(text: str) -> tuple[float, ...]:
    """`x0,y0,x1,y1` as four numbers; whether they lie in the frame is found when the frame is known.

    Raises:
        UsageError: not four finite numbers.
    """
    try:
        edges = tuple(float(piece) for piece in text.split(","))
    except ValueError:
        edges = ()
    if len(edges) != 4 or not all(math.isfinite(edge) for edge in edges):
        raise UsageError("--box", expected="x0,y0,x1,y1 in pixels, such as 12,30,96,120", got=text)
    return edges


def parse_points(option: str, text: str, least: int, most: int | None = None) -> tuple[tuple[float, float], ...]:
    """`x,y,x,y,...` as points; whether they lie in the frame is found when the frame is known.

    Raises:
        UsageError: not finite pairs, or fewer or more than asked for.
    """
    try:
        numbers = [float(piece) for piece in text.split(",")]
    except ValueError:
        numbers = []
    points = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    if len(numbers) % 2 or not all(map(math.isfinite, numbers)) or len(points) < least or (most is not None and len(points) > most):
        example = "x,y in pixels, such as 40,60" if most == 1 else "x,y,x,y,... of two points or more in pixels, such as 40,60,52,71"
        raise UsageError(option, expected=example, got=text)
    return points


def _view(document: dict[str, Any]) -> Table:
    rows = [
        ("text", document["text"] + (" ... (cut at the limit)" if document["truncated"] else "")),
        ("task", document["task"] or "plain text"),
        *(("box (pixels)", ", ".join(f"{edge:.1f}" for edge in box)) for box in document["boxes_xyxy"]),
        *(("window", f"{start:.2f} to {end:.2f} s") for start, end in document["windows_sec"]),
        *(("mask", _seen(document, boxes)) for boxes in document["track_xyxy"]),
        *(("written", file) for file in document.get("files", [])),
    ]
    return table(("", ""), rows)
