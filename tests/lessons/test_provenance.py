"""What shipped weights are said to be is what they are; and each way in which a README could be wrong is found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tpo_lab.errors import UsageError
from tpo_lab.lessons import provenance

README = """# weights

A model of {parameters} million parameters, in half precision ({megabytes} MB), which is small.

Made by

```
tpo-lab pretrain x --out runs/x
tpo-lab checkpoint pack runs/x --out x
```

in an hour.
"""


def made(
    folder: Path, *, parameters: str = "0.03", megabytes: str = "0.05", dtype: torch.dtype = torch.float16, text: str = README
) -> Path:
    tensors = {
        "model.vision_tower.a.weight": torch.zeros(100, 50, dtype=dtype),
        "model.language_model.b.weight": torch.zeros(20_000, dtype=dtype),
        "heads.region.bias": torch.zeros(7, dtype=torch.float32),
        "llm.lora.c": torch.zeros(3, 2, dtype=dtype),
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "README.md").write_text(text.format(parameters=parameters, megabytes=megabytes))
    return folder


def test_parts_are_counted_from_the_header(tmp_path: Path) -> None:
    found = provenance.weights(made(tmp_path))
    assert found.parts == {"vision": 5000, "llm": 20_006, "heads": 7} and found.parameters == 25_013
    assert found.half == pytest.approx(25_006 / 25_013)
    raw = (tmp_path / "model.safetensors").read_bytes()
    assert (found.size, found.sha256) == (len(raw), hashlib.sha256(raw).hexdigest())


def test_commands_are_those_under_made_by(tmp_path: Path) -> None:
    assert provenance.commands(README) == ["tpo-lab pretrain x --out runs/x", "tpo-lab checkpoint pack runs/x --out x"]
    assert provenance.commands("# x\n\n```\ntpo-lab track x\n```\n") == []


def test_a_true_readme_is_not_contradicted(tmp_path: Path) -> None:
    assert provenance.disagreements(made(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parameters": "0.04"}, "says 0.04 million parameters, the file holds 0.025"),
        ({"megabytes": "0.06"}, "says 0.06 MB, the file holds 0.05"),
        ({"dtype": torch.float32, "megabytes": "0.10"}, "says half precision, 100% of the numbers"),
        ({"text": README.replace("Made by", "See")}, 'no command under "Made by"'),
    ],
)
def test_each_false_claim_is_found(tmp_path: Path, changes: dict[str, str], told: str) -> None:
    (found,) = provenance.disagreements(made(tmp_path, **changes))  # type: ignore[arg-type]
    assert told in found


def test_folders_without_one_file_or_a_readme_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected one safetensors file, got \[\]"):
        provenance.weights(tmp_path)
    made(tmp_path)
    (tmp_path / "README.md").unlink()
    with pytest.raises(UsageError, match=r"expected a README\.md"):
        provenance.disagreements(tmp_path)


@pytest.mark.parametrize("name", provenance.NAMES)
def test_the_shipped_weights_are_what_their_readme_says(name: str) -> None:
    assert provenance.disagreements(name) == []
    assert all(command.startswith("tpo-lab ") for command in provenance.commands(provenance.readme(name)))
    assert provenance.weights(name).name == name
