"""Tensors of published weights, read one at a time from safetensors files that are never in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tpo_lab.errors import UsageError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class PublishedWeights(Mapping[str, Tensor]):
    """The tensors in a folder of safetensors files by name. What is read is mapped from the disk, not copied.

    Args:
        folder: with `model.safetensors`, or with several files and their index.

    Raises:
        UsageError: it has neither, a file is missing or damaged, or the index names tensors that a file does not have.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._open: dict[str, Any] = {}
        self._files = self._read_index()

    def __getitem__(self, name: str) -> Tensor:
        return self._opened(self._files[name]).get_tensor(name)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, from the file's header alone."""
        return tuple(self._opened(self._files[name]).get_slice(name).get_shape())

    def _read_index(self) -> dict[str, str]:
        single, index = self.folder / SINGLE, self.folder / INDEX
        if not index.exists():
            if not single.exists():
                raise UsageError("weights", expected=f"a folder with {SINGLE} or {INDEX}", got=str(self.folder))
            return dict.fromkeys(self._opened(SINGLE).keys(), SINGLE)
        try:
            files = {str(name): str(file) for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(f"weights {index}", expected="an index of tensors and files", got=str(error), hint="It is damaged.") from error
        held = {name for file in sorted(set(files.values())) for name in self._opened(file).keys()}  # noqa: SIM118 - no mapping
        absent = sorted(set(files) - held)
        if absent:
            raise UsageError(f"weights {self.folder}", expected="every tensor of the index", got=f"{len(absent)} missing: {absent[0]}")
        return files

    def _opened(self, file: str) -> Any:
        from safetensors import SafetensorError, safe_open

        if file not in self._open:
            try:
                self._open[file] = safe_open(self.folder / file, framework="pt")
            except (OSError, SafetensorError) as error:
                hint = "It is missing or damaged."
                raise UsageError(f"weights {self.folder / file}", expected="a safetensors file", got=str(error), hint=hint) from error
        return self._open[file]
