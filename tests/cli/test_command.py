"""The frame around every command: help with examples that are valid calls, one JSON document, exit statuses, and light start."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from rich.console import Group
from typer.main import get_command

from tpo_lab import cli, doctor
from tpo_lab.cli import screen
from tpo_lab.cli.command import Result, command, spread
from tpo_lab.errors import TPOError

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "demo",
    "data synth",
    "data validate",
    "data show",
    "data convert",
    "data formats",
    "data mixture",
    "train",
    "evaluate",
    "predict",
    "track",
    "checkpoint inspect",
    "checkpoint audit",
    "checkpoint pack",
    "checkpoint merge",
    "checkpoint convert",
    "pretrain nano",
    "pretrain tracker",
    "score",
    "rerun",
    "runs table",
    "runs show",
    "runs diff",
    "runs open",
    "doctor",
}


def leaves(node, path=()):
    """Every command that can be called, by its words."""
    if hasattr(node, "commands"):
        for name, child in node.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield " ".join(path), node


def examples(leaf) -> list[str]:
    return [line.strip().replace(r"\[", "[") for line in leaf.epilog.split("\n\n")[1:]]


def python(*words: str, **options) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=400, **options)


def test_commands_are_the_ones_of_the_design_that_exist():
    assert {name for name, _ in leaves(get_command(cli.app))} == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_an_example_and_both_common_options(call, name: str):
    done = call(*name.split(), "--help")
    assert done.status == 0
    assert "Example" in done.words
    assert f"tpo-lab {name}" in done.words.partition("Example")[2]
    assert "--json" in done.out and "--debug" in done.out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_example_is_a_call_that_parses(name: str):
    root = get_command(cli.app)
    leaf = dict(leaves(root))[name]
    seen = []
    leaf.callback = lambda **arguments: seen.append(arguments)
    for line in examples(leaf):
        # several processes are started by `accelerate launch ... -m tpo_lab`
        words = shlex.split(re.sub(r"^accelerate launch .* -m tpo_lab ", "tpo-lab ", line))
        assert words[0] == "tpo-lab"
        root.main(words[1:], prog_name="tpo-lab", standalone_mode=False)
    assert len(seen) == len(examples(leaf)) >= 1


def test_help_loads_neither_torch_nor_numpy():
    code = "import sys, json; from tpo_lab.cli import run; run(['--help']); json.dump(sorted(sys.modules), sys.stderr)"
    done = python("-c", code)
    loaded = set(json.loads(done.stderr))
    assert "tpo_lab.cli.train" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "accelerate", "numpy", "pydantic", "av", "PIL"})


def test_no_words_show_the_help(call):
    assert call().out == call("--help").out


def test_version(call):
    assert call("--version").out == f"tpo-lab {cli.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train', 'pretrain', 'track'? See `tpo-lab --help`."),
        (["data", "valid"], "No such command 'valid'. Did you mean 'validate'? See `tpo-lab data --help`."),
        (["data"], "Missing command. See `tpo-lab data --help`."),
        (["doctor", "--jsno"], "No such option: --jsno"),
        (["evaluate", "nano"], "Missing option '--data'. See `tpo-lab evaluate --help`."),
        (["train", "--threads", "0"], "Invalid value for '--threads': "),
        (["data", "show", "x.jsonl", "--limit", "many"], "Invalid value for '--limit': "),
    ],
)
def test_wrong_call_is_a_sentence_and_status_2(call, words: list[str], message: str):
    done = call(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert message in done.err


def test_json_of_a_wrong_call_is_one_document_and_the_sentence_stays_on_stderr(call):
    done = call("data", "validate", "absent.jsonl", "--json")
    error = done.document["error"]
    assert done.status == 2
    assert (error["kind"], error["status"], error["got"]) == ("usage", 2, "absent.jsonl")
    assert done.err == f"error: {error['message']}\n"
    assert call("evaluate", "--json").document["error"]["kind"] == "usage"


def test_json_may_stand_before_the_command_but_not_behind_two_dashes(call):
    assert call("--json", "data", "validate", "absent.jsonl").document["error"]["got"] == "absent.jsonl"
    assert call("data", "validate", "--", "--json").out == ""


def test_json_holds_numbers_that_are_not_finite_as_null_and_paths_as_text():
    found = screen.plain({"a": float("nan"), 2: (float("inf"), 1.5, None, True), "path": Path("x") / "y"})
    assert found == {"a": None, "2": [None, 1.5, None, True], "path": str(Path("x") / "y")}


def test_what_a_library_prints_goes_to_stderr_beside_the_document(call, monkeypatch: pytest.MonkeyPatch):
    def noisy():
        print("a library speaks")
        return doctor.Report("1", "3", "here", (), (), (), (), ("a problem",))

    monkeypatch.setattr(doctor, "examine", noisy)
    done = call("doctor", "--json")
    assert (done.status, done.document["problems"]) == (1, ["a problem"])
    assert "a library speaks" in done.err


def test_doctor_shows_its_report_and_its_status(call, monkeypatch: pytest.MonkeyPatch):
    part = doctor.Part("mcp", "missing", None, "No agents.", "pip install 'tpo-lab[mcp]'")
    monkeypatch.setattr(doctor, "examine", lambda: doctor.Report("1.2", "3.0", "here", (), (), (part,), (), ()))
    done = call("doctor")
    assert done.status == 0 and "TPO Lab 1.2" in done.words and "No problems found." in done.words
    assert "mcp │ missing │ No agents." in done.words and "pip install 'tpo-lab[mcp]'" in done.out


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (TPOError("stage 1: the loss\nis not finite"), 1, "error: stage 1: the loss is not finite\n"),
        (
            KeyError("left"),
            1,
            "error: This is a bug in tpo-lab (KeyError: 'left'). Call it again with --debug and report what it prints.\n",
        ),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (OSError(28, "No space left on device", "runs/a"), 1, "error: No space left on device: runs/a\n"),
        (NotADirectoryError(20, "Not a directory", "a.txt"), 2, "error: Not a directory: a.txt\n"),
        (MemoryError(), 1, "error: The memory did not suffice. A smaller --micro-batch needs less and trains the same.\n"),
    ],
)
def test_exception_becomes_status_and_paragraph(call, monkeypatch: pytest.MonkeyPatch, error, status: int, message: str):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "examine", fail)
    done = call("doctor")
    assert (done.status, done.out, done.err) == (status, "", message)
    kind = call("doctor", "--json").document["error"]["kind"]
    assert kind == {130: "interrupted", 2: "usage"}.get(status, "bug" if isinstance(error, KeyError) else "failed")


def test_debug_adds_the_traceback(call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "examine", lambda: {}["left"])
    assert "Traceback" not in call("doctor").err
    for words in (("doctor", "--debug"), ("--debug", "doctor")):
        done = call(*words)
        assert "Traceback" in done.err and "KeyError: 'left'" in done.err
        assert done.err.splitlines()[-1].startswith("error: This is a bug")


def test_warnings_are_lines_and_deprecations_are_silent(call, monkeypatch: pytest.MonkeyPatch):
    import warnings

    def warn():
        warnings.warn("a frame was lost", stacklevel=1)
        warnings.warn("old name", FutureWarning, stacklevel=1)
        return doctor.Report("1", "3", "here", (), (), (), (), ())

    monkeypatch.setattr(doctor, "examine", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert call("doctor").err == "warning: a frame was lost\n"


def test_only_the_first_of_several_processes_prints(call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "examine", lambda: doctor.Report("1", "3", "here", (), (), (), (), ()))
    monkeypatch.setenv("RANK", "1")
    assert call("doctor", "--json").out == ""
    monkeypatch.setenv("RANK", "0")
    assert call("doctor", "--json").document["ok"] is True


def test_main_exits_with_the_status():
    with pytest.raises(SystemExit) as stopped:
        cli.main(["trian"])
    assert stopped.value.code == 2


def test_reader_that_goes_away_is_no_error(tmp_path: Path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("no json\n" * 3000)
    script = f"{shlex.quote(sys.executable)} -m tpo_lab data validate {shlex.quote(str(bad))} --json | head -c 5"
    done = subprocess.run(["bash", "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=400)
    assert (done.stdout, done.stderr) == ('{\n  "', "")


def test_python_m_and_missing_file_in_a_process_of_its_own(tmp_path: Path):
    done = python("-m", "tpo_lab", "data", "validate", "absent.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: samples: expected a JSONL file of samples, got 'absent.jsonl'.\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--data a.jsonl b.jsonl --out x", "--data a.jsonl --data b.jsonl --out x"),
        ("--out x --data a b.jsonl c.jsonl", "--out x --data a --data b.jsonl --data c.jsonl"),
        ("--data a.jsonl runs/first", "--data a.jsonl runs/first"),
        ("--data a.jsonl runs/first c.jsonl", "--data a.jsonl runs/first c.jsonl"),
        ("--data a.jsonl --data b.jsonl", "--data a.jsonl --data b.jsonl"),
        ("--out a.jsonl b.jsonl", "--out a.jsonl b.jsonl"),
        ("--data a.jsonl -- b.jsonl", "--data a.jsonl -- b.jsonl"),
        ("", ""),
    ],
)
def test_several_files_after_one_option(words: str, expected: str):
    assert spread(words.split(), {"--data"}) == expected.split()


def test_existing_file_of_any_name_continues_the_list(tmp_path: Path):
    (tmp_path / "more.txt").touch()
    found = spread(["--data", "a", str(tmp_path / "more.txt"), str(tmp_path / "absent.txt")], {"--data"})
    assert found == ["--data", "a", "--data", str(tmp_path / "more.txt"), str(tmp_path / "absent.txt")]


def test_command_passes_its_own_arguments_and_keeps_brackets_of_its_example():
    app = typer.Typer()

    @command(app, "say", example="tpo-lab say [bold] word")
    def say(word: str, times: int = 2) -> Result:
        """Says it."""
        return Result({"said": [word] * times}, word)

    found = get_command(app)
    assert found.main(["x", "--times", "3", "--json"], standalone_mode=False).document == {"said": ["x"] * 3}
    assert examples(found) == ["tpo-lab say [bold] word"]
    assert say("y").document == {"said": ["y", "y"]}


def terminal(monkeypatch: pytest.MonkeyPatch, **options):
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, color_system=None, **options)
    monkeypatch.setattr(screen, "screen", lambda: console)
    return console.file


def test_bars_in_a_log_say_a_line_at_every_tenth(monkeypatch: pytest.MonkeyPatch):
    log = terminal(monkeypatch)
    with screen.Bars() as bars:
        for step in range(1, 41):
            bars.move("stage 1", step, 40, f"mlm {step}")
        bars.move("samples", 3, 3)
    lines = log.getvalue().splitlines()
    assert lines[:2] == ["stage 1: 4/40 mlm 4", "stage 1: 8/40 mlm 8"]
    assert (len(lines), lines[-1]) == (11, "samples: 3/3")


def interrupted(then: type[Exception] | None) -> None:
    """A callback of compiled code in which Ctrl-C arrives, and which makes another error of it, or none."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        if then is not None:
            raise then from None


@pytest.mark.parametrize("then", [None, ValueError])
def test_ctrl_c_that_a_library_swallows_still_stops_the_work(then: type[Exception] | None):
    before, done = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), screen.Bars() as bars:
        for number in range(3):
            bars.count("records", number)
            done.append(number)
            interrupted(then)
    assert done == [0] and signal.getsignal(signal.SIGINT) is before


def test_an_error_that_no_ctrl_c_caused_stays_itself():
    with pytest.raises(ValueError, match="mine"), screen.Bars():
        raise ValueError("mine")


def test_bars_on_a_terminal_show_losses_per_part(monkeypatch: pytest.MonkeyPatch):
    import torch

    shown = terminal(monkeypatch, force_terminal=True)
    losses = {"mlm": torch.tensor(2.5, requires_grad=True), "region": torch.tensor(0.125)}
    with screen.Bars() as bars:
        bars.listen("2.region", 7, 9, SimpleNamespace(per_head=lambda: losses))
    assert "stage 2.region" in shown.getvalue() and "7/9" in shown.getvalue()
    assert "mlm 2.5  region 0.125" in shown.getvalue()


def test_tables_show_texts_that_look_like_markup(capsys: pytest.CaptureFixture[str]):
    screen.show(screen.table(("name", "count"), [("[red]", "[/x]")], numbers=(1,)))
    assert "[red]" in capsys.readouterr().out
    screen.show(screen.table(("", ""), [("text", "[bold] <region>")]))
    assert capsys.readouterr().out.split() == ["text", "[bold]", "<region>"]
    screen.show(Group("[red] a", Group("[/x]")))
    assert capsys.readouterr().out == "[red] a\n[/x]\n"
