"""A file in the sweep's folder by which workers on other machines see that the sweep still runs, or that it wants them to stop."""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tpo_lab.notebooks.execution import RunStopped
from tpo_lab.runs import write_json

FILE = "session.json"
SILENT_SEC = 120.0
"""After so long without a sign of life a worker takes its sweep for dead."""
_BEAT_SEC = 5.0
_LOOK_SEC = 1.0
_ORPHAN_GRACE_SEC = 5.0


class Session:
    """The sweep's side: gives a sign of life, and says stop.

    Attributes:
        name: another one for each call of `rerun`.
    """

    def __init__(self, out: Path) -> None:
        self.name = secrets.token_hex(8)
        self._file = out / FILE
        self._beats, self._beaten, self._stop = 0, 0.0, False
        self._write()

    def beat(self) -> None:
        """Give a sign of life, every few seconds."""
        if time.monotonic() - self._beaten > _BEAT_SEC:
            self._write()

    def stop(self) -> None:
        """Ask all workers to interrupt what runs."""
        self._stop = True
        self._write()

    def end(self) -> None:
        """Workers that still run take their sweep for dead."""
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        self._beats, self._beaten = self._beats + 1, time.monotonic()
        write_json(self._file, {"session": self.name, "stop": self._stop, "beats": self._beats})


class Leash:
    """The worker's side: called a few times a second while a job runs.

    Args:
        out: folder of the sweep.
        session: name of the session that the job belongs to.
        silent_sec: how long there may be no sign of life.
    """

    def __init__(self, out: Path, session: str, silent_sec: float = SILENT_SEC) -> None:
        self._file, self._session, self._silent_sec = out / FILE, session, silent_sec
        self._looked = 0.0
        self._beats: int | None = None
        self._heard = time.monotonic()

    def __call__(self) -> None:
        """Look at the file.

        Raises:
            RunStopped: the sweep wants no more, has ended, or is dead.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SEC:
            return
        self._looked = now
        found = seen(self._file.parent)
        if found.get("session") == self._session:
            if found["stop"]:
                raise RunStopped("interrupted", "The sweep was stopped.")
            if found["beats"] != self._beats:
                self._beats, self._heard = found["beats"], now
        elif found:
            raise RunStopped("interrupted", "Another sweep has taken over.", grace_sec=_ORPHAN_GRACE_SEC)
        if now - self._heard > self._silent_sec:
            raise RunStopped("interrupted", "The sweep was killed.", grace_sec=_ORPHAN_GRACE_SEC)


def seen(out: Path) -> dict[str, Any]:
    """What the session file says on this machine; empty where there is none."""
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((out / FILE).read_text(encoding="utf-8"))
        return found
    return {}
