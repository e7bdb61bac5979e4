"""Weights that ship with TPO Lab: what their files hold, what their README says of them, and where the two differ."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tpo_lab.backbones import shipped
from tpo_lab.errors import UsageError

NAMES = ("nano", "nano-sam2", "nano-tpo")
"""In the order in which they were made."""
_HALF = {"F16", "BF16"}


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        name: of its folder.
        path: the file.
        parts: numbers stored, by part of the model.
        half: the share of them in half precision.
        size: of the file, bytes.
        sha256: of the file, in hexadecimal digits.
    """

    name: str
    path: Path
    parts: dict[str, int]
    half: float
    size: int
    sha256: str

    @property
    def parameters(self) -> int:
        """Numbers stored in all."""
        return sum(self.parts.values())


def weights(folder: Path | str) -> Weights:
    """What the one file of weights in a folder holds, read without loading it; a name of `NAMES` is taken for that shipped folder.

    Raises:
        UsageError: the folder has not exactly one safetensors file.
    """
    folder = shipped(str(folder)) if str(folder) in NAMES else Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise UsageError("folder", expected="one safetensors file", got=[file.name for file in files], hint=f"Looked in {folder}.")
    raw = files[0].read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    counts: Counter[str] = Counter()
    halved = 0
    for name, entry in header.items():
        if name != "__metadata__":
            number = math.prod(entry["shape"])
            counts[_part(name)] += number
            halved += number if entry["dtype"] in _HALF else 0
    share = halved / max(1, sum(counts.values()))
    return Weights(folder.name, files[0], dict(counts), share, len(raw), hashlib.sha256(raw).hexdigest())


def _part(name: str) -> str:
    """`model.vision_tower.x` as "vision", `llm.lora.x` as "llm", `heads.region.x` as "heads"."""
    pieces = name.split(".")
    inside = {"vision_tower": "vision", "multi_modal_projector": "connector", "image_newline": "connector", "language_model": "llm"}
    return inside.get(pieces[1], pieces[1]) if pieces[0] == "model" else pieces[0]


def readme(folder: Path | str) -> str:
    """The README beside weights; a name of `NAMES` is taken for that shipped folder.

    Raises:
        UsageError: there is none.
    """
    folder = shipped(str(folder)) if str(folder) in NAMES else Path(folder)
    path = folder / "README.md"
    if not path.exists():
        raise UsageError("folder", expected="a README.md", got=str(folder))
    return path.read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """The commands that a README names under "Made by"."""
    found = re.search(r"^Made by\s+```\w*\n(.*?)```", text, flags=re.MULTILINE | re.DOTALL)
    return [] if found is None else [line.strip() for line in found[1].splitlines() if line.strip()]


def disagreements(folder: Path | str) -> list[str]:
    """What the README of weights says that their file contradicts, a sentence each: how they were made, parameters, megabytes, precision.

    Raises:
        UsageError: no weights, or no README.
    """
    return list(_differences(weights(folder), readme(folder)))


def _differences(found: Weights, text: str) -> Iterator[str]:
    if not commands(text):
        yield f'{found.name}: no command under "Made by".'
    claims = (
        (r"(\d+(?:\.\d+)?) million parameters", "million parameters", found.parameters / 1e6),
        (r"\((\d+(?:\.\d+)?) MB", "MB", found.size / 1e6),
    )
    for claim, unit, value in claims:
        said = re.search(claim, text)
        if said is not None and f"{value:.{len(said[1].partition('.')[2])}f}" != said[1]:
            yield f"{found.name}: the README says {said[1]} {unit}, the file holds {value:.3f}."
    if "half precision" in text and found.half < 0.99:
        yield f"{found.name}: the README says half precision, {1 - found.half:.0%} of the numbers have another."
