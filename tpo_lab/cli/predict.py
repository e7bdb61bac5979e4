"""`tpo-lab predict`: one question about one video or image, answered as JSON and as pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.screen import table
from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

EXAMPLE = """
tpo-lab predict runs/demo/40_joint_training/run/3b clip.mp4 "When does the red ball stop?" --out answer
tpo-lab predict runs/qvhighlights film.mp4 "When do they dance?" --features features --window 75
tpo-lab predict runs/first clip.mp4 "Where does this go?" --box 12,30,96,120 --json
tpo-lab predict runs/first clip.mp4 "Track <prompt:0> in the video." --point 40,60 --out answer
"""

group = typer.Typer()


@command(group, "predict", example=EXAMPLE)
def predict(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint or run folder, nano-tpo, or nano (untrained heads).")
    ],
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video, an image, a folder of images or a pattern of them.")],
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help="What to ask; may say <prompt:0> where it means the first of the boxes, points and scribbles."
        ),
    ],
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
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write answer.json, frames.png and timeline.png there.")] = None,
    on_corrupt: Annotated[str, typer.Option(metavar="raise|drop|warn", help="What to do with damaged frames.")] = "raise",
    start: Annotated[float, typer.Option(metavar="SEC", help="Where the clip begins in the video.")] = 0.0,
    end: Annotated[float | None, typer.Option(metavar="SEC", help="Where it ends; its end by default.")] = None,
) -> Result:
    """Answer a question about a video.

    Times in the answer count from the start of the clip, boxes are pixels of its frames.
    """
    boxes = [parse_box(text) for text in box]
    strokes = [parse_points("--point", text, 1, 1) for text in point]
    strokes += [parse_points("--scribble", text, 2) for text in scribble]
    if not question.strip():
        raise UsageError("question", expected="some words", got=question)
    from tpo_lab.asking import ask
    from tpo_lab.cli.models import open_model
    from tpo_lab.heads.sliding import Sliding

    model = open_model(checkpoint)
    if window is not None and window < 1:
        raise UsageError("--window", expected="1 frame or more", got=window)
    sliding = None if window is None else Sliding(frames=window, overlap=window // 2)
    answer, clip = ask(
        model,
        video,
        question,
        boxes=boxes,
        strokes=strokes,
        start_sec=start,
        end_sec=end,
        features=features,
        on_corrupt=on_corrupt,
        sliding=sliding,
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
