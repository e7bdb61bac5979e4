"""`tpo-lab demo`: the main job, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tpo_lab.cli.command import Result, Stopped, command
from tpo_lab.cli.screen import table
from tpo_lab.errors import UsageError

group = typer.Typer()

EXAMPLE = """
tpo-lab demo
tpo-lab demo --smoke --out runs/smoke
tpo-lab demo --video clip.mp4
tpo-lab demo --long --out runs/long
"""


@command(group, "demo", example=EXAMPLE)
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes; called again, it goes on there.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(metavar="N", help="Of data, heads and training.")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="Just enough to see that every part runs; its figures mean nothing.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Three to ten times the training: an hour or two on two cores.")] = False,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="Ask about this video, not about a clip of the test split.")] = None,
) -> Result:
    """Make data, train the nano model through every stage by running the notebooks, evaluate, write report.html.

    Needs no network and no accelerator.
    """
    from tpo_lab.demo import FULL, LONG, SMOKE, run

    if smoke and long:
        raise UsageError("--long", expected="one of --smoke and --long", got="both")
    settings = SMOKE if smoke else LONG if long else FULL

    try:
        document = run(out=out, seed=seed, settings=settings, video=video)
    except KeyboardInterrupt:
        raise Stopped(f"Interrupted. The same command goes on in {out}.") from None
    return Result(document, _view(document, out))


def _view(document: dict[str, Any], out: Path) -> Any:
    from rich.console import Group

    before, after = (document["headline"][when] for when in ("before", "after"))
    rows = [(name, *(f"{scores[name]:.3f}" if name in scores else "-" for scores in (before, after))) for name in {**before, **after}]
    scores = table(("metric", "before", "after"), rows, numbers=(1, 2), title="On the test split")
    if "compositions" in document:
        rows = [(name, f"{value:.3f}") for name, value in document["compositions"]["headline"].items()]
        unseen = [table(("metric", "after"), rows, numbers=(1,), title="On looks that no training clip shows")]
    else:
        unseen = []
    note = "A smoke run: the figures mean nothing." if document["smoke"] else ""
    return Group(scores, *unseen, *([note] if note else []), f"Done in {document['seconds']:.0f} s: {out / document['report']}")
