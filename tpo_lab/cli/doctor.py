"""`tpo-lab doctor`: what is installed, and what each missing part costs."""

from __future__ import annotations

import typer

from tpo_lab.cli.command import Result, command

group = typer.Typer()


@command(group, "doctor", example="tpo-lab doctor")
def doctor() -> Result:
    """Show versions, devices and optional parts.

    Exit status 1 where something is in the way; missing optional parts are not.
    """
    from tpo_lab.doctor import examine, render

    report = examine()
    return Result(report.as_dict(), render(report), 0 if report.ok else 1)
