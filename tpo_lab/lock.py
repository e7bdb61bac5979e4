"""A lock on a file that ends with the processes that hold it, however they end (POSIX; elsewhere nothing is locked)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

_POLL_SEC = 0.1


class Lock:
    """An exclusive lock. It is kept by every process that inherited the open file, so a worker's lock lasts as long as its kernel.

    Args:
        path: of a file that stays; its content means nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Take it where it is free; False where another process has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab")
        if not _locked(file):
            file.close()
            return False
        self._file = file
        return True

    def wait(self, seconds: float, watch: Callable[[], None] = lambda: None) -> bool:
        """Take it as soon as it is free; False where it is not within so many seconds. `watch` may raise to give up."""
        until = time.monotonic() + seconds
        while not self.take():
            watch()
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SEC)
        return True

    @property
    def fds(self) -> tuple[int, ...]:
        """What a child inherits to hold the lock too."""
        return () if self._file is None else (self._file.fileno(),)

    def release(self) -> None:
        """Give it up; children that inherited it keep it."""
        if self._file is not None:
            # an explicit unlock would take it from the children as well
            self._file.close()
            self._file = None

    def __exit__(self, *_: object) -> None:
        self.release()

    def __enter__(self) -> Lock:
        return self


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on this file."""
    if not path.exists():
        return False
    with Lock(path) as probe:
        return not probe.take()


def _locked(file: IO[bytes]) -> bool:
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
