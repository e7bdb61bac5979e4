"""`tpo-lab checkpoint`: what is in a file, whether all that was trained was saved, and copies: half the size, merged, converted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.models import checkpoint_folder
from tpo_lab.cli.screen import table
from tpo_lab.conversions import CONVERSIONS
from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from tpo_lab.files.tensor_entry import TensorEntry

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A checkpoint or run folder, or nano-tpo.")]

_INSPECTED = """
tpo-lab checkpoint inspect runs/first
tpo-lab checkpoint inspect downloads/pytorch_model.bin
"""
_WEAK = ": little more than what merging changed; --dtype fp32 keeps it"
_NUMBER = re.compile(r"\.\d+\.")
_TOLD = {
    "adapter_config.json": ("peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules"),
    "config.json": ("model_type", "architectures", "dtype", "torch_dtype", "tie_word_embeddings"),
}
"""Of the JSON files that other programs write beside weights: what a reader wants to know first."""

group = typer.Typer(help="Look into a checkpoint, or copy it for others.")


@command(group, "inspect", example=_INSPECTED)
def inspect(
    place: Annotated[
        str,
        typer.Argument(metavar="FILE|DIR", help="A checkpoint or run folder, nano-tpo, or any file or folder of weights."),
    ],
) -> Result:
    """Show what is in it: of a checkpoint its backbone, heads, LoRA and stages, and of any file every tensor.

    No model is loaded, and no code of a file is run: not even that of a pickle (.pt, .pth, .bin).
    """
    from tpo_lab.files.tensors import read_tensor_entries

    path = Path(place) if Path(place).is_file() else checkpoint_folder(place)
    facts = _facts(path)
    entries = read_tensor_entries(path)
    parts: dict[str, dict[str, int]] = {}
    for entry in entries:
        row = parts.setdefault(_part_of(entry), {"tensors": 0, "parameters": 0, "bytes": 0})
        row["tensors"] += 1
        row["parameters"] += entry.parameters
        row["bytes"] += entry.bytes
    total = {name: sum(row[name] for row in parts.values()) for name in ("tensors", "parameters", "bytes")}
    document = {**facts, "parts": parts, "total": total, "tensors": _by_name(entries)}
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
    outputs = found["outputs"]
    if outputs["against"] is not None:
        verdict += f"; of outputs for a fixed row, against those of the model that was saved: {outputs['difference']:g}"
    equal = (
        "The reloaded model equals the one in memory." if found["equals_memory"] else "The reloaded model differs from the one in memory."
    )
    return Result({"folder": str(path), **found}, Group(_parts(found["parts"]), verdict, equal))


@command(group, "pack", example="tpo-lab checkpoint pack runs/first --out shared/first")
def pack(folder: Folder, out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the copy.")]) -> Result:
    """Copy a checkpoint in half precision, for sharing: half the size, and the file that training goes on from is left alone."""
    from tpo_lab import checkpoint

    path = checkpoint_folder(folder)
    if out.exists():
        raise UsageError("--out", expected="a new folder", got=str(out))
    packed = checkpoint.save(checkpoint.load(path), out, half=True)
    sizes = {"bytes_before": _bytes(path), "bytes": _bytes(packed)}
    view = f"{packed}: {sizes['bytes'] / 1e6:.1f} MB, before {sizes['bytes_before'] / 1e6:.1f} MB"
    return Result({"folder": str(path), "out": str(packed), **sizes}, view)


@command(group, "merge", example="tpo-lab checkpoint merge runs/first --out merged --dtype bf16")
def merge(
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the merged model.")],
    dtype: Annotated[str | None, typer.Option(metavar="fp32|bf16|fp16", help="Of the merged weights. Default: as they were.")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0.0,
            help="Largest difference of two logits, as a share of the largest logit. Default: 1e-4 for fp32, 0.01 for fp16, 0.05 for bf16.",
        ),
    ] = None,
    untie: Annotated[
        bool, typer.Option("--untie", help="Give the output layer a matrix of its own, where LoRA lies on one shared with the embedding.")
    ] = False,
) -> Result:
    """Merge LoRA into the weights: a folder that plain transformers opens for its text side, and TPO Lab as a backbone or a checkpoint.

    The logits of a fixed row are compared before and after; where they differ by more than the tolerance nothing is written.
    """
    from dataclasses import asdict

    from tpo_lab import merging

    if out.exists():
        raise UsageError("--out", expected="a new folder", got=str(out))
    found = merging.merge(checkpoint_folder(folder), out, dtype=dtype, tolerance=tolerance, untie=untie)
    document = {**asdict(found), "folder": str(found.folder), "bytes": _bytes(found.folder)}
    return Result(document, _merged(document))


def _merged(document: dict[str, Any]) -> Table:
    share = f"{document['relative_difference']:.2g} of the largest logit ({document['largest_logit']:.4g})"
    rows = [
        ("folder", f"{document['folder']}, {document['bytes'] / 1e6:,.1f} MB"),
        ("merged", f"{document['layers']} layers, {document['dtype']}{', output layer untied' if document['untied'] else ''}"),
        ("largest logit difference", f"{document['logit_difference']:.3g}, {share}; {document['tolerance']:g} is allowed"),
        ("what LoRA does to logits", f"{document['lora_effect']:.3g}{_WEAK if _is_weak(document) else ''}"),
        ("lost by rounding", f"{document['rounding']:.2%} of what LoRA adds"),
    ]
    return table(("", ""), rows)


@command(group, "convert", example="tpo-lab checkpoint convert sam2 sam2.1_hiera_small.pt --out sam2.1-small")
def convert(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"Whose weights they are: {', '.join(CONVERSIONS)}.")],
    file: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Weights as their authors publish them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For videochat-tpo: a folder with the tokenizer.json of Mistral-7B-Instruct-v0.2.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For videochat2: the folder of Mistral-7B-Instruct-v0.2, which it builds on.")
    ] = None,
) -> Result:
    """Rename the tensors of published weights by a strict map, and write the folder that TPO Lab opens.

    Every tensor must find its place, and every place its tensor. No code of the file is run.
    """
    from tpo_lab.conversions import convert_weights

    document = convert_weights(kind, file, out, tokenizer=tokenizer, base=base)
    rows = [(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)) for name, value in document.items()]
    return Result(document, table(("", ""), rows))


def _is_weak(document: dict[str, Any]) -> bool:
    """Whether rounding may have taken as much as training gave."""
    return bool(document["layers"] and document["logit_difference"] > document["lora_effect"] / 2)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _facts(path: Path) -> dict[str, Any]:
    """What JSON files beside the tensors say of them; of a checkpoint all but the fingerprints."""
    if path.is_file():
        return {"file": str(path)}
    if (path / "tpo.json").exists() or not any(path.rglob("*.*")):
        from tpo_lab.checkpoint import read_config

        return {"folder": str(path), **{name: value for name, value in read_config(path).items() if name != "fingerprints"}}
    from tpo_lab.files import read_json

    found: dict[str, Any] = {"folder": str(path)}
    for file, names in _TOLD.items():
        if (path / file).is_file():
            told = read_json(path / file)
            found |= {name: told[name] for name in names if isinstance(told, dict) and told.get(name) is not None}
    return found


def _by_name(entries: Sequence[TensorEntry]) -> dict[str, dict[str, Any]]:
    """By name; names that several files have with the file before them."""
    count = Counter(entry.name for entry in entries)
    return {
        entry.name if count[entry.name] == 1 else f"{entry.file}: {entry.name}": {
            "shape": list(entry.shape),
            "dtype": entry.dtype,
            "bytes": entry.bytes,
            **({"file": entry.file} if entry.file else {}),
        }
        for entry in entries
    }


def _part_of(entry: TensorEntry) -> str:
    """The part of a model that a tensor belongs to, as its file and its name say it."""
    folder, _, file = entry.file.rpartition("/")
    if folder == "adapter":
        return "llm.lora"
    if folder == "training":
        return f"{folder}/{file.removesuffix('.safetensors')}"
    if entry.file == "outputs.safetensors":
        return "outputs"
    pieces = entry.name.removeprefix("base_model.model.").split(".")
    if pieces[0] in ("llm", "heads"):
        return ".".join(pieces[:2])
    if pieces[0] in ("vision", "connector", "tokens", "prompts"):
        return pieces[0]
    named = list(takewhile(lambda piece: not piece.isdigit(), pieces[:-1]))
    return ".".join(named[:2]) or pieces[0]


def _parts(parts: dict[str, dict[str, int]]) -> Table:
    columns = list(dict.fromkeys(column for row in parts.values() for column in row))
    rows = [(name, *(f"{row.get(column, 0):,}" for column in columns)) for name, row in parts.items()]
    return table(("part", *columns), rows, numbers=range(1, len(columns) + 1))


def _inspected(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    facts = _checkpoint_facts(document) if "trained_backbone_parts" in document else _plain_facts(document)
    total = document["total"]
    facts.append(("in all", f"{total['tensors']:,} tensors, {total['parameters']:,} parameters, {total['bytes'] / 1e6:,.1f} MB"))
    tensors = _alike(document["tensors"])
    return Group(table(("", ""), facts), _parts(document["parts"]), table(("tensors", "how many", "shape", "type"), tensors, numbers=(1,)))


def _checkpoint_facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    lora = document["lora"]
    return [
        ("folder", document["folder"]),
        ("backbone", f"{document['backbone']}, {document['num_frames']} frames"),
        *((f"head {head['name']}", _settings(head, without="name")) for head in document["heads"]),
        ("LoRA", "none" if lora is None else _settings(lora)),
        ("trained backbone", ", ".join(document["trained_backbone_parts"]) or "none"),
        ("stages", "\n".join(_settings(stage) for stage in document["history"]) or "none"),
    ]


def _plain_facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    names = [name for name in document if name not in ("parts", "total", "tensors")]
    return [(name.replace("_", " "), _shown(document[name])) for name in names]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _alike(tensors: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for all tensors that differ in the numbers of their layers alone."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, tensor in tensors.items():
        shape = " x ".join(map(str, tensor["shape"])) or "scalar"
        groups.setdefault((_NUMBER.sub(".*.", name), shape, tensor["dtype"]), []).append(name)
    return [(names[0] if len(names) == 1 else name, str(len(names)), *rest) for (name, *rest), names in groups.items()]


def _settings(values: dict[str, Any], without: str = "") -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name != without)
