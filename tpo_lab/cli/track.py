"""`tpo-lab track`: objects followed through every frame of a video, as JSON lines, as a video and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, Stopped, command
from tpo_lab.cli.predict import parse_box, parse_points
from tpo_lab.cli.screen import Bars, say, table
from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tpo_lab.sample import Prompt
    from tpo_lab.tracking import Pursuit

EXAMPLE = """
tpo-lab track nano-sam2 clip.mp4 --box 12,30,96,120 --out followed
tpo-lab track sam2.1_hiera_tiny.pt film.mp4 --point 40,60 --at 3.5 --out followed
tpo-lab track runs/masks clip.mp4 --question "Segment the red ball." --out followed
"""

group = typer.Typer()


@command(group, "track", example=EXAMPLE)
def track(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="nano-sam2, a SAM2 folder or official .pt file, or a checkpoint or run with a mask head."),
    ],
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video, an image, a folder of images or a pattern of them.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Write tracks.jsonl, overlay.mp4, frames.png and summary.json there, over earlier ones.")
    ],
    box: Annotated[list[str], typer.Option(metavar="X0,Y0,X1,Y1", help="An object in this box, in pixels; repeatable.")] = [],
    point: Annotated[list[str], typer.Option(metavar="X,Y", help="An object at this point, in pixels; repeatable.")] = [],
    scribble: Annotated[list[str], typer.Option(metavar="X,Y,X,Y,...", help="An object under this stroke, in pixels; repeatable.")] = [],
    at: Annotated[
        float | None, typer.Option(metavar="SEC", help="When the frame that these lie on is on display; --start by default.")
    ] = None,
    question: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Let the language model say what to follow; boxes, points and scribbles then belong to the question."
        ),
    ] = None,
    start: Annotated[float, typer.Option(metavar="SEC", help="Where to begin in the video.")] = 0.0,
    end: Annotated[float | None, typer.Option(metavar="SEC", help="Where to end; its end by default.")] = None,
    on_corrupt: Annotated[str, typer.Option(metavar="raise|drop", help="What to do with damaged frames.")] = "raise",
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Draw overlay.mp4.")] = True,
) -> Result:
    """Follow objects through every frame of a video.

    Boxes are numbered first, then points, then scribbles. All times count from the start of the file.
    """
    from tpo_lab.cli.footage import FRAMES, OVERLAY, SUMMARY, TRACKS, write_frames, write_overlay, write_tracks

    prompts = _prompts(box, point, scribble, start if at is None else at)
    if question is None and not prompts:
        raise UsageError("prompts", expected="--box, --point, --scribble or --question", got="none of them")
    if question is not None and at is not None:
        hint = "The model chooses the frame; what is pointed at lies on the first one."
        raise UsageError("--at", expected="no such option beside --question", got=at, hint=hint)
    if question is not None and not question.strip():
        raise UsageError("--question", expected="some words", got=question)
    _keep_apart(video, out, (OVERLAY, FRAMES))
    from tpo_lab import tracking
    from tpo_lab.cli.models import open_follower

    pursuit = tracking.track(open_follower(model), video, prompts, question=question, start_sec=start, end_sec=end, on_corrupt=on_corrupt)
    if pursuit.answer is not None:
        say(f"the model answered: {pursuit.answer.text}")
    with Bars() as bars:
        tracks = write_tracks(iter(pursuit), out, lambda done: bars.move("frames", done, len(pursuit)))
        count = len(tracks.places)
        names = [TRACKS, *([OVERLAY] if overlay else []), FRAMES, SUMMARY]
        document: dict[str, Any] = {
            "model": model,
            "video": str(video),
            "question": question,
            "answer": None if pursuit.answer is None else pursuit.answer.text,
            "prompts": [prompt.model_dump(mode="json") for prompt in prompts],
            "prompted": {"frame": pursuit.at, "time_sec": float(pursuit.source.times_sec[pursuit.at])},
            "width": tracks.size[1],
            "height": tracks.size[0],
            "frames": count,
            "dropped": len(pursuit) - count,
            "objects": tracks.seen,
            "files": [str(out / name) for name in names],
        }
        try:
            if overlay:
                write_overlay(pursuit, tracks, out, lambda done: bars.move("overlay", done, count))
            write_frames(pursuit, tracks, out, _title(document))
        except KeyboardInterrupt:
            raise Stopped(f"Interrupted. {tracks.path} is complete, with {count} frames; not all pictures are drawn.") from None
    from tpo_lab.runs import write_json

    write_json(out / SUMMARY, document)
    return Result(document, _view(document, pursuit))


def _prompts(boxes: Sequence[str], points: Sequence[str], scribbles: Sequence[str], time_sec: float) -> list[Prompt]:
    from tpo_lab.sample import BoxPrompt, PointPrompt, ScribblePrompt

    # not validated: the frame's size is not known yet, and then one message says all that is wrong
    return [
        *(BoxPrompt.model_construct(time_sec=time_sec, xyxy=parse_box(text)) for text in boxes),
        *(PointPrompt.model_construct(time_sec=time_sec, xy=parse_points("--point", text, 1, 1)[0]) for text in points),
        *(ScribblePrompt.model_construct(time_sec=time_sec, xys=parse_points("--scribble", text, 2)) for text in scribbles),
    ]


def _keep_apart(video: Path, out: Path, names: Sequence[str]) -> None:
    """Refuse a folder that cannot be one, or in which the results would take the place of the video or join its images."""
    if out.exists() and not out.is_dir():
        raise UsageError("--out", expected="a folder", got=str(out))
    if video.resolve() in {out.resolve(), *((out / name).resolve() for name in names)}:
        raise UsageError("--out", expected="a folder apart from the video", got=str(out))


def _title(document: dict[str, Any]) -> str:
    return f"{document['question']}\n{document['answer']}" if document["question"] else str(document["video"])


def _view(document: dict[str, Any], pursuit: Pursuit) -> RenderableType:
    from rich.console import Group

    rows = [
        (
            str(place),
            pursuit.shown[place].type if pursuit.answer is None else "question",
            f"{each['frames']} of {document['frames']}",
            "-" if each["first_sec"] is None else f"{each['first_sec']:.2f} s",
            "-" if each["last_sec"] is None else f"{each['last_sec']:.2f} s",
        )
        for place, each in enumerate(document["objects"])
    ]
    told = [("answer", document["answer"])] if document["question"] else []
    told.append(("prompted", f"the frame at {document['prompted']['time_sec']:.2f} s"))
    told += [("left out", f"{document['dropped']} corrupt frames")] if document["dropped"] else []
    told += [("written", file) for file in document["files"]]
    return Group(table(("object", "by", "seen in frames", "first at", "last at"), rows, numbers=(0, 2, 3, 4)), table(("", ""), told))
