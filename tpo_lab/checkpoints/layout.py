"""The files of a checkpoint folder, and the manifest that tells whether they are those that were written.

`tpo.json` says how to build the model, `tpo.safetensors` holds its weights but LoRA's, `adapter/` LoRA in peft's form,
`outputs.safetensors` what the model in memory gave for a fixed row, `training/` what a run needs to go on. No file runs code when read.
A folder of the first version has `tpo.json` and `tpo.safetensors` alone, with LoRA among the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError
from tpo_lab.runs import write_json

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "tpo_lab.checkpoint/2"
FIRST_SCHEMA = "tpo_lab.checkpoint/1"
MANIFEST_SCHEMA = "tpo_lab.manifest/1"
MANIFEST, CONFIG, WEIGHTS, OUTPUTS = "manifest.json", "tpo.json", "tpo.safetensors", "outputs.safetensors"
ADAPTER = "adapter"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = f"{ADAPTER}/adapter_config.json", f"{ADAPTER}/adapter_model.safetensors"
TRAINING = "training"
STATE = f"{TRAINING}/state.json"


def looks_like_one(folder: Path) -> bool:
    """Whether a folder is a checkpoint, or what is left of one."""
    return (folder / CONFIG).exists() or (folder / MANIFEST).exists()


def seal(folder: Path) -> None:
    """Write the manifest: size and SHA-256 of every other file in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    entries = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    write_json(folder / MANIFEST, {"schema": MANIFEST_SCHEMA, "files": entries})


def check(folder: Path) -> None:
    """Compare every file with the manifest; a file that it does not name is nobody's business.

    Raises:
        UsageError: a file is missing or changed, or the manifest is missing, damaged or of another version.
    """
    for name, entry in read_manifest(folder).items():
        check_file(folder, name, entry)


def check_file(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Compare one file with its entry in the manifest.

    Raises:
        UsageError: it is missing, or has another size or other bytes.
    """
    path = folder / name
    if not path.is_file():
        raise _wrong(path, f"a file of {entry['bytes']} bytes", None, "The checkpoint is incomplete.")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise _wrong(path, f"{entry['bytes']} bytes, as {MANIFEST} says", size, "The file is damaged or was changed.")
    found = _sha256(path)
    if found != entry["sha256"]:
        expected = f"the SHA-256 {entry['sha256'][:12]}..., as {MANIFEST} says"
        raise _wrong(path, expected, f"{found[:12]}...", "A byte of the file was changed.")


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """File -> its size and SHA-256.

    Raises:
        UsageError: it is missing, damaged or of another version, or leaves out a file that every checkpoint has.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise _wrong(path, "a file", None, "The checkpoint is incomplete.")
    found = read_object(path)
    if found.get("schema") != MANIFEST_SCHEMA:
        raise _wrong(path, MANIFEST_SCHEMA, found.get("schema"), "Another version of TPO Lab wrote it.")
    files = found.get("files")
    if not isinstance(files, dict) or not all(_is_entry(entry) for entry in files.values()):
        raise _wrong(path, "size and SHA-256 of every file", "something else", "The file is damaged.")
    for name in (CONFIG, WEIGHTS):
        if name not in files:
            raise _wrong(path, f"an entry for {name}", sorted(files), "The manifest belongs to something else.")
    return files


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UsageError: the file holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _wrong(path, "JSON", str(error), "The file is damaged.") from error
    return found if isinstance(found, dict) else {}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UsageError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        hint = "The checkpoint is incomplete."
        raise UsageError("checkpoint", expected=f"a folder with {path.name}", got=str(path.parent), hint=hint)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _wrong(path, "a safetensors file", str(error), "The file is damaged.") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, with the schema of checkpoints in its header; folders are made."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt", "schema": SCHEMA})


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _wrong(path: Path, expected: str, got: object, hint: str) -> UsageError:
    return UsageError(f"checkpoint {path}", expected=expected, got=got, hint=hint)
