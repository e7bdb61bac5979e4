"""The command `tpo-lab`: one module per group of commands; this one runs them and turns what happens into output and an exit status.

Nothing here imports torch: a command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.main import get_command

from tpo_lab._version import __version__
from tpo_lab.cli import checkpoint, convert, data, demo, doctor, evaluate, predict, pretrain, rerun, runs, score, track, train
from tpo_lab.cli.command import AsJson, Debug, Result
from tpo_lab.cli.failures import explain
from tpo_lab.cli.screen import plain, show

app = typer.Typer(
    name="tpo-lab",
    help="The workbench for Task Preference Optimization. Every command has --help with an example, and --json for programs.",
    epilog="Exit status: 0 done, 1 the job failed, 2 the call was wrong, 130 interrupted.",
    rich_markup_mode="rich",
    add_completion=False,
)
data.group.add_typer(convert.group)
for module in (demo, train, evaluate, score, predict, track, rerun, doctor):
    app.add_typer(module.group)
for module in (data, checkpoint, pretrain, runs):
    app.add_typer(module.group, name=module.__name__.rpartition(".")[2])


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tpo-lab {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    json: AsJson = False,
    debug: Debug = False,
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
) -> None:
    """Options that may also stand before a command's name; `run` reads them from the words themselves."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: runs one command and exits with its status."""
    status = run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = _nobody_reads()
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Runs one command and prints what it returns, or why it could not be done.

    Returns:
        The exit status: 0 done, 1 the job failed, 2 the call was wrong, 130 interrupted.
    """
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    # Read here and not by typer, since they must hold for calls that typer cannot parse.
    as_json, debug = "--json" in words, "--debug" in words
    try:
        with warnings.catch_warnings(), _stdout_kept_for_the_document(as_json):
            warnings.showwarning = _warn
            result: Any = get_command(app).main(arguments or ["--help"], prog_name="tpo-lab", standalone_mode=False)
        if not isinstance(result, Result):
            return result if isinstance(result, int) else 0
        if _is_first_process():
            _print(plain(result.document)) if as_json else show(result.view)
        return result.status
    except BrokenPipeError:
        return _nobody_reads()
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        failure = explain(error)
        if as_json and _is_first_process():
            _print(plain({"error": failure.document()}))
        if _is_first_process() or not (failure.kind in ("usage", "interrupted") or getattr(error, "common", False)):
            print(f"{'' if failure.kind == 'interrupted' else 'error: '}{failure.message}", file=sys.stderr)
        return failure.status


def _print(document: Any) -> None:
    print(json.dumps(document, indent=2, allow_nan=False), flush=True)


def _stdout_kept_for_the_document(as_json: bool) -> contextlib.AbstractContextManager[Any]:
    """Sends to stderr whatever a library prints while a command runs whose stdout is to be one JSON document."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Deprecations are for the authors of libraries, not for the person at the terminal.
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        print(f"warning: {message}", file=sys.stderr)


def _is_first_process() -> bool:
    """Whether this process speaks for all that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


def _nobody_reads() -> int:
    """The reader of a pipe has gone: no message, and nothing left that the interpreter could fail to flush."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
