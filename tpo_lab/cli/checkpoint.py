"""`tpo-lab checkpoint`: what is in a checkpoint, whether all that was trained was saved, and a copy of half the size."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.models import checkpoint_folder
from tpo_lab.cli.screen import table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A checkpoint or run folder, or nano-tpo.")]

_NUMBER = re.compile(r"\.\d+\.")

group = typer.Typer(help="Look into a checkpoint, or copy it for others.")


@command(group, "inspect", example="tpo-lab checkpoint inspect runs/first")
def inspect(folder: Folder) -> Result:
    """Show backbone, heads, LoRA, the stages it went through, and every tensor; loads no model."""
    from tpo_lab.checkpoint import read_config

    path = checkpoint_folder(folder)
    config = {name: value for name, value in read_config(path).items() if name != "fingerprints"}
    tensors = _tensors(path)
    parts: dict[str, dict[str, int]] = {}
    for name, tensor in tensors.items():
        row = parts.setdefault(_part(name), {"tensors": 0, "parameters": 0})
        row["tensors"] += 1
        row["parameters"] += math.prod(tensor["shape"])
    document = {"folder": str(path), **config, "parts": parts, "tensors": tensors}
    return Result(document, _inspected(document))


@command(group, "audit", example="tpo-lab checkpoint audit runs/first")
def audit(folder: Folder) -> Result:
    """Reload it and compare with what was in memory when it was saved; exit status 1 where something was lost."""
    from rich.console import Group

    from tpo_lab import checkpoint

    path = checkpoint_folder(folder)
    found = checkpoint.audit(path)
    precision = "stored in half precision; " if found["half"] else ""
    verdict = f"{precision}largest difference after reloading: {found['reload_difference']:g}"
    equal = (
        "The reloaded model equals the one in memory." if found["equals_memory"] else "The reloaded model differs from the one in memory."
    )
    return Result({"folder": str(path), **found}, Group(_parts(found["parts"]), verdict, equal))


@command(group, "pack", example="tpo-lab checkpoint pack runs/first --out shared/first")
def pack(folder: Folder, out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the copy.")]) -> Result:
    """Copy a checkpoint in half precision, for sharing: half the size, and the file that training goes on from is left alone."""
    from tpo_lab import checkpoint
    from tpo_lab.errors import UsageError

    path = checkpoint_folder(folder)
    if out.exists():
        raise UsageError("--out", expected="a new folder", got=str(out))
    packed = checkpoint.save(checkpoint.load(path), out, half=True)
    sizes = {"bytes_before": _bytes(path), "bytes": _bytes(packed)}
    view = f"{packed}: {sizes['bytes'] / 1e6:.1f} MB, before {sizes['bytes_before'] / 1e6:.1f} MB"
    return Result({"folder": str(path), "out": str(packed), **sizes}, view)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> shape and type, from the headers of the weight files alone."""
    from safetensors import SafetensorError, safe_open

    from tpo_lab.errors import UsageError

    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    part = opened.get_slice(name)
                    found[name] = {"shape": list(part.get_shape()), "dtype": str(part.get_dtype())}
        except SafetensorError as error:
            raise UsageError(f"checkpoint {file}", expected="a safetensors file", got=str(error), hint="The file is damaged.") from error
    return found


def _part(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first in ("llm", "heads") else first


def _parts(parts: dict[str, dict[str, int]]) -> Table:
    columns = list(dict.fromkeys(column for row in parts.values() for column in row))
    rows = [(name, *(f"{row.get(column, 0):,}" for column in columns)) for name, row in parts.items()]
    return table(("part", *columns), rows, numbers=range(1, len(columns) + 1))


def _inspected(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    lora = document["lora"]
    facts = [
        ("folder", document["folder"]),
        ("backbone", f"{document['backbone']}, {document['num_frames']} frames"),
        *((f"head {head['name']}", _settings(head, without="name")) for head in document["heads"]),
        ("LoRA", "none" if lora is None else _settings(lora)),
        ("trained backbone", ", ".join(document["trained_backbone_parts"]) or "none"),
        ("stages", "\n".join(_settings(stage) for stage in document["history"]) or "none"),
    ]
    tensors = _alike(document["tensors"])
    return Group(table(("", ""), facts), _parts(document["parts"]), table(("tensors", "how many", "shape", "type"), tensors, numbers=(1,)))


def _alike(tensors: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for all tensors that differ in the numbers of their layers alone."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, tensor in tensors.items():
        shape = " x ".join(map(str, tensor["shape"])) or "scalar"
        groups.setdefault((_NUMBER.sub(".*.", name), shape, tensor["dtype"]), []).append(name)
    return [(names[0] if len(names) == 1 else name, str(len(names)), *rest) for (name, *rest), names in groups.items()]


def _settings(values: dict[str, Any], without: str = "") -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name != without)
