"""`tpo-lab doctor`: what is installed, what each missing part costs, and whether a backbone is seen rightly."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.screen import Bars, table

EXAMPLE = """
tpo-lab doctor
tpo-lab doctor --backbone llava-hf/llava-onevision-qwen2-0.5b-ov-hf --frames 8
"""

group = typer.Typer()


@command(group, "doctor", example=EXAMPLE)
def doctor(
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Check this backbone instead: hook, slots, routes, LoRA, frames, cache.")
    ] = None,
    frames: Annotated[int | None, typer.Option(metavar="N", min=1, help="Frames of the clip that it is checked on.")] = None,
) -> Result:
    """Show versions, devices and optional parts; or check a backbone.

    Exit status 1 where something is in the way; missing optional parts are not.
    """
    if backbone is not None:
        return _checked(backbone, frames)
    from tpo_lab.doctor import examine, render
    from tpo_lab.errors import UsageError

    if frames is not None:
        raise UsageError("--frames", expected="--backbone beside it", got=frames)
    report = examine()
    return Result(report.as_dict(), render(report), 0 if report.ok else 1)


def _checked(name: str, frames: int | None) -> Result:
    from tpo_lab.backbones import load_backbone
    from tpo_lab.backbones.checks import CHECKS, Bench

    found = load_backbone(name, num_frames=frames)
    found.model.eval()
    bench = Bench.of(found)
    checks = []
    with Bars() as bars:
        for done, check in enumerate(CHECKS, 1):
            checks.append(check(bench))
            bars.count("checks", done)
    passed = all(check.passed for check in checks)
    document: dict[str, Any] = {
        "backbone": name,
        "frames": found.num_frames,
        "passed": passed,
        "checks": [asdict(check) for check in checks],
    }
    rows = [(check.name, "holds" if check.passed else "FAILS", check.found) for check in checks]
    return Result(document, table((name, "", ""), rows), 0 if passed else 1)
