"""A folder that is there as a whole or not at all; and what is said where it cannot be written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tpo_lab import checkpoint
from tpo_lab.checkpoints import atomic
from tpo_lab.checkpoints.atomic import drop, located, new_folder, recover
from tpo_lab.errors import TPOError
from tpo_lab.model import TPOModel


def written(folder: Path, text: str) -> None:
    with new_folder(folder) as partial:
        (partial / "inside").mkdir()
        (partial / "inside" / "a.txt").write_text(text)


def text_of(folder: Path) -> str:
    return (located(folder) / "inside" / "a.txt").read_text()


def test_a_folder_takes_its_place_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "a"
    with new_folder(folder) as partial:
        assert not folder.exists() and partial.parent == folder.parent
        (partial / "inside").mkdir()
        (partial / "inside" / "a.txt").write_text("1")
    assert text_of(folder) == "1"
    written(folder, "2")
    assert text_of(folder) == "2" and [path.name for path in folder.parent.iterdir()] == ["a"]


def test_every_file_and_folder_is_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace = os.replace
    monkeypatch.setattr(atomic, "sync", lambda path: done.append(f"sync {path.relative_to(tmp_path)}"))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(f"rename {Path(a).name}"), replace(a, b))[1])
    written(tmp_path / "a", "1")
    *synced, renamed, last = done
    assert sorted(synced) == ["sync a.partial", "sync a.partial/inside", "sync a.partial/inside/a.txt"]
    assert (renamed, last) == ("rename a.partial", "sync .")


@pytest.mark.parametrize("kill_at", ["before", "between", "after"])
def test_a_process_killed_between_two_renames_leaves_a_folder(tmp_path: Path, kill_at: str) -> None:
    folder = tmp_path / "a"
    written(folder, "1")

    def work() -> None:
        replace, count = os.replace, [0]

        def counted(a: Any, b: Any) -> None:
            count[0] += 1
            if (kill_at, count[0]) in (("before", 1), ("between", 2)):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(a, b)
            if (kill_at, count[0]) == ("after", 2):
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = counted
        written(folder, "2")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert text_of(folder) == ("2" if kill_at == "after" else "1")
    assert folder.exists() == (kill_at != "between")
    recover(folder)
    assert text_of(folder) == ("2" if kill_at == "after" else "1")
    written(folder, "3")
    assert text_of(folder) == "3" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_dropped_folder_never_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a", "1")
    monkeypatch.setattr("shutil.rmtree", lambda path, **options: None)
    drop(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.dropped"]


def changed(model: TPOModel) -> TPOModel:
    with torch.no_grad():
        model.tokens.task["region"].fill_(3.0)
    return model


@pytest.mark.parametrize(("code", "place"), [(errno.ENOSPC, "fsync"), (errno.ENOSPC, "write_text"), (errno.EROFS, "mkdir")])
def test_a_write_that_fails_is_one_sentence_and_the_old_checkpoint_stays(
    tiny: TPOModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, place: str
) -> None:
    folder = checkpoint.save(tiny, tmp_path / "a")
    before = tiny.tokens.task["region"].detach().clone()

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os if place == "fsync" else Path, place, fail)
        with pytest.raises(
            TPOError, match=rf"^checkpoint .*a: it could not be written: {os.strerror(code)}\. What was there before is as it was\.$"
        ):
            checkpoint.save(changed(tiny), folder)
    assert torch.equal(checkpoint.load(folder).tokens.task["region"], before)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    checkpoint.save(tiny, folder)


@pytest.mark.parametrize("limit", [3000, 20_000])
def test_a_file_that_the_system_refuses_to_grow_is_one_sentence(build_tiny: Callable[..., TPOModel], tmp_path: Path, limit: int) -> None:
    """A real refusal, by a limit of the process: the first of JSON, the second of the weights, whose library says it in its own words."""
    model = build_tiny()
    folder = checkpoint.save(model, tmp_path / "a")
    said, say = multiprocessing.get_context("fork").Pipe(duplex=False)

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            checkpoint.save(changed(model), folder)
        except TPOError as error:
            say.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    assert said.poll(120)
    assert said.recv() == f"checkpoint {folder}: it could not be written: File too large. What was there before is as it was."
    process.join()
    assert not torch.all(checkpoint.load(folder).tokens.task["region"] == 3)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_place_that_is_no_folder_is_one_sentence(tiny: TPOModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TPOError, match=r"it could not be written: (Not a directory|File exists)\."):
        checkpoint.save(tiny, tmp_path / "file" / "a")
