"""A run folder that another process may be writing: what is new in it, read without ever holding it up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tpo_lab.recipes import Recipe
from tpo_lab.runs import METRICS, PROBES

_BEFORE = 64
"""Bytes before the place of reading that must still be the same."""


class Tail:
    """The whole lines of a growing JSONL file, each once.

    A file that was cut or replaced, as a resumed run does, is read again from its beginning.

    Attributes:
        broken: lines that were no JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.broken = path, 0
        self._place, self._before = 0, b""

    def read(self) -> tuple[list[Any], bool]:
        """New records, and whether they begin anew. A missing file has none; an unfinished last line waits until it is whole."""
        try:
            with self.path.open("rb") as file:
                began = self._place > 0 and not self._goes_on(file)
                if began:
                    self._place, self._before, self.broken = 0, b"", 0
                file.seek(self._place)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return [], False
        self._place += len(whole) + len(newline)
        self._before = (self._before + whole + newline)[-_BEFORE:]
        return [record for line in whole.split(b"\n") if line.strip() for record in self._parsed(line)], began

    def _goes_on(self, file: Any) -> bool:
        file.seek(self._place - len(self._before))
        return bool(file.read(len(self._before)) == self._before)

    def _parsed(self, line: bytes) -> list[Any]:
        """The record of a line, if it is one."""
        try:
            return [json.loads(line)]
        except ValueError:
            self.broken += 1
            return []


class RunFiles:
    """What a run folder tells.

    Attributes:
        folder: may come into being later.
        recipe: of config.json, once it is there.
        stages: names of the stages that the run was asked for; empty where it does not tell.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics, self.probes = Tail(folder / METRICS), Tail(folder / PROBES)
        self.recipe: Recipe | None = None
        self.stages: tuple[str, ...] = ()
        self.problem = ""
        self._seen = b""

    @property
    def label(self) -> str:
        """The folder as people call it: the last two names of its path."""
        return "/".join(self.folder.parts[-2:])

    @property
    def is_finished(self) -> bool:
        """Whether training has written its model, after its last step: one that goes on may have that of an earlier part."""
        try:
            written = max(file.stat().st_mtime for file in (self.folder / "checkpoint").iterdir())
            return written >= self.metrics.path.stat().st_mtime
        except (OSError, ValueError):
            return False

    def read_config(self) -> bool:
        """Look for the recipe; whether there is another one than before."""
        try:
            text = (self.folder / "config.json").read_bytes()
        except OSError:
            return False
        if text == self._seen:
            return False
        self._seen = text
        try:
            config = json.loads(text)
            self.recipe = Recipe.from_dict(config["recipe"])
            self.stages = tuple(stage.name for stage in self.recipe.stage(config.get("stage", "all")))
            self.problem = ""
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.problem = f"config.json holds no recipe that can be read: {' '.join(str(error).split())[:200]}"
            return False
        return True
