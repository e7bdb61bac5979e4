"""The manifest: one byte, one file, one entry that does not fit is named in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tpo_lab import checkpoint
from tpo_lab.checkpoints.layout import check, read_manifest, seal
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.stages import Lora


@pytest.fixture(scope="module")
def made(build_tiny: Callable[..., TPOModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_tiny(("region",))
    model.add_lora(Lora(rank=2, targets=("q_proj",)))
    return checkpoint.save(model, tmp_path_factory.mktemp("made") / "a", outputs=checkpoint.fixed_outputs(model))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "a"))


FILES = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "outputs.safetensors", "tpo.json", "tpo.safetensors"]


def test_the_manifest_names_every_other_file_with_size_and_hash(folder: Path) -> None:
    entries = read_manifest(folder)
    assert sorted(entries) == FILES
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {*FILES, "manifest.json"}
    assert all(entry["bytes"] == (folder / name).stat().st_size and len(entry["sha256"]) == 64 for name, entry in entries.items())
    assert not [path for path in folder.rglob("*") if path.suffix not in ("", ".json", ".safetensors")], "no file that runs code"


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_found(folder: Path, name: str, place: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[round(place * (len(content) - 1))] ^= 4
    (folder / name).write_bytes(content)
    with pytest.raises(
        UsageError, match=rf"{name}: expected the SHA-256 \w{{12}}\.\.\., as manifest\.json says, got '\w{{12}}\.\.\.'\. A byte"
    ):
        check(folder)
    with pytest.raises(UsageError) as error:
        checkpoint.load(folder)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UsageError, match=rf"{name}: expected a file of \d+ bytes, got None\. The checkpoint is incomplete"):
        check(folder)
    with pytest.raises(UsageError, match=Path(name).name):
        checkpoint.load(folder)


def test_a_cut_file_is_named_with_its_sizes(folder: Path) -> None:
    path = folder / "tpo.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        UsageError, match=rf"tpo\.safetensors: expected {size} bytes, as manifest\.json says, got {size - 3}\. The file is damaged"
    ):
        checkpoint.load(folder)


def test_half_a_folder_is_incomplete(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    for read in (checkpoint.load, checkpoint.read_config):
        with pytest.raises(UsageError, match=r"manifest\.json: expected a file, got None\. The checkpoint is incomplete"):
            read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{half", r"manifest\.json: expected JSON, got '.*'\. The file is damaged"),
        (
            '{"schema": "tpo_lab.manifest/9"}',
            r"expected tpo_lab\.manifest/1, got 'tpo_lab\.manifest/9'\. Another version of TPO Lab wrote it",
        ),
        ('{"schema": "tpo_lab.manifest/1", "files": 3}', r"expected size and SHA-256 of every file"),
        ('{"schema": "tpo_lab.manifest/1", "files": {"tpo.json": {"bytes": 3}}}', r"expected size and SHA-256 of every file"),
        (
            '{"schema": "tpo_lab.manifest/1", "files": {}}',
            r"expected an entry for tpo\.json, got \[\]\. The manifest belongs to something else",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        checkpoint.load(folder)


def test_what_people_put_beside_the_files_is_left_alone(folder: Path) -> None:
    (folder / "README.md").write_text("the good one")
    checkpoint.load(folder)


def test_a_sealed_folder_passes(folder: Path) -> None:
    config = json.loads((folder / "tpo.json").read_text())
    (folder / "tpo.json").write_text(json.dumps({**config, "half": True}))
    seal(folder)
    check(folder)
    assert checkpoint.read_config(folder)["half"] is True
