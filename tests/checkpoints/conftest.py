"""Tiny models with all three heads, samples for them, and the audit of every checkpoint that a run writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel
    from tpo_lab.sample import Sample


@pytest.fixture(scope="session")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from tpo_lab.sam2 import nano_config, untrained

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam")
    untrained(nano_config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def build_all(build_tiny: Callable[..., TPOModel], tiny_sam: Path) -> Callable[..., TPOModel]:
    """Makes equal tiny models with a region, a temporal and a mask head."""
    spec = {"name": "mask", "head": "sam2-pointing", "sam": str(tiny_sam), "train_frames": 2}

    def build(seed: int = 0) -> TPOModel:
        vision = build_tiny(()).backbone.vision_size
        return build_tiny(("region", "temporal", {**spec, "vision_dim": vision}), seed=seed)

    return build


@pytest.fixture(scope="session")
def samples(world: Callable[..., list[Sample]]) -> list[Sample]:
    return [sample for index in range(4) for sample in world(index, "conversation", "region", "temporal", "mask")]


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Audits every checkpoint that is written, against the model in memory; gives what was found."""
    from tpo_lab import checkpoint

    found: list[dict[str, Any]] = []
    save = checkpoint.save

    def save_and_audit(model: TPOModel, folder: Path | str, **options: Any) -> Path:
        path = save(model, folder, **options)
        found.append(checkpoint.audit(path, model))
        return path

    monkeypatch.setattr(checkpoint, "save", save_and_audit)
    yield found
    assert found, "nothing was saved"
    for audit in found:
        assert audit["equals_memory"] and audit["reload_difference"] == 0
        assert audit["outputs"] == {"against": "memory", "difference": 0.0}
