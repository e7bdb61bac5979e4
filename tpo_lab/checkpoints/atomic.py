"""A folder that is there as a whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tpo_lab.errors import TPOError

_UNFINISHED, _REPLACED, _DROPPED = ".partial", ".old", ".dropped"
SUFFIXES = (_UNFINISHED, _REPLACED, _DROPPED)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `folder`, which takes its place at the end of the block.

    All of it is on the disk before it gets its name. What was there before stays as it was until then; where the process is killed while
    two folders change places, the old one is beside it and `located` finds it.

    Raises:
        TPOError: the disk is full, or the folder cannot be written for another reason; nothing is left of the attempt.
    """
    from safetensors import SafetensorError

    partial = _beside(folder, _UNFINISHED)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        partial.mkdir()
        yield partial
        _sync_tree(partial)
        _take_place(partial, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TPOError(f"checkpoint {folder}: it could not be written: {_reason(error)}. What was there before is as it was.") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def located(folder: Path | str) -> Path:
    """Where a folder that `new_folder` writes is: itself, or what it was to replace where the process was killed in between."""
    here = Path(folder)
    old = _beside(here, _REPLACED)
    return old if old.is_dir() and not here.exists() else here


def recover(folder: Path) -> None:
    """Finish or undo what a killed process began."""
    old = _beside(folder, _REPLACED)
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    for suffix in SUFFIXES:
        shutil.rmtree(_beside(folder, suffix), ignore_errors=True)


def drop(folder: Path) -> None:
    """Remove a folder; where the process is killed meanwhile, what is left has another name."""
    dropped = _beside(folder, _DROPPED)
    shutil.rmtree(dropped, ignore_errors=True)
    os.replace(folder, dropped)
    shutil.rmtree(dropped, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some file systems do not know how to do that for a folder
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


def _take_place(partial: Path, folder: Path) -> None:
    old = _beside(folder, _REPLACED)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(partial, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _reason(error: Exception) -> str:
    """What the system says; safetensors wraps it in text of its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))
    return next((words for words in said if words in str(error)), " ".join(str(error).split()))
