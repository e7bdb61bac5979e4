"""Published weights of other projects as folders that TPO Lab opens; who they are from decides how they are renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tpo_lab.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Conversion:
    """How weights of one kind are converted.

    Attributes:
        function: its module, a colon and its name, imported when it is used. It is called with what is published, a new folder, and the
            options by name; it leaves that folder whole or not at all, and gives the path that opens what it wrote.
        needs: folders that it must be told beside the weights: "base", of the language model that they build on.
        takes: folders that it may be told: "tokenizer".
    """

    function: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


CONVERSIONS: Mapping[str, Conversion] = MappingProxyType(
    {
        "sam2": Conversion("tpo_lab.conversions:from_sam2"),
        "videochat-tpo": Conversion("tpo_lab.backbones.videochat2_parts.conversion:convert", takes=("tokenizer",)),
        "videochat2": Conversion("tpo_lab.conversions:from_videochat2", needs=("base",)),
    }
)
"""By kind of weights."""


def convert_weights(kind: str, source: Path, folder: Path, **options: Path | None) -> dict[str, Any]:
    """Convert published weights.

    Args:
        kind: one of `CONVERSIONS`.
        source: as published.
        folder: a new folder; there is none where anything went wrong.
        options: the folders that the conversion needs or takes; None is as good as nothing.

    Returns:
        "kind", "source", "folder", "opens" (what to give to a command that wants the model), "tensors" and "parameters".

    Raises:
        UsageError: an unknown kind, no such file, `folder` exists, a missing or needless option, or the tensors are not those of that kind.
    """
    if kind not in CONVERSIONS:
        raise unknown_name("KIND", kind, CONVERSIONS)
    conversion, given = CONVERSIONS[kind], {name: path for name, path in options.items() if path is not None}
    for name in conversion.needs:
        if name not in given:
            raise UsageError(f"--{name}", expected=f"the folder that {kind} needs beside its weights", got=None)
    for name in given:
        if name not in (*conversion.needs, *conversion.takes):
            raise UsageError(f"--{name}", expected=f"none for {kind}", got=str(given[name]))
    if not source.exists():
        raise UsageError("FILE", expected=f"weights of {kind}", got=str(source), hint="There is no such file.")
    if folder.exists():
        raise UsageError("--out", expected="a new folder", got=str(folder))
    module, _, name = conversion.function.partition(":")
    opens = getattr(import_module(module), name)(source, folder, **given)
    from tpo_lab.files.tensors import read_tensor_entries

    entries = read_tensor_entries(folder)
    counts = {"tensors": len(entries), "parameters": sum(entry.parameters for entry in entries)}
    return {"kind": kind, "source": str(source), "folder": str(folder), "opens": str(opens), **counts}


def from_sam2(source: Path, folder: Path) -> Path:
    """An official SAM2 or SAM2.1 .pt file as transformers stores it; no number is changed."""
    from tpo_lab.checkpoints.atomic import new_folder
    from tpo_lab.sam2.weights import load_official

    model = load_official(source)
    with new_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
    return folder


def from_videochat2(source: Path, folder: Path, *, base: Path) -> Path:
    """The published VideoChat2 on the language model that it builds on."""
    from tpo_lab.backbones.videochat2_parts.conversion import convert_videochat2

    return convert_videochat2(source, base, folder)
