"""The shipped model, and a few questions about the synthetic world that it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel
    from tpo_lab.sample import Sample


@pytest.fixture(scope="session")
def shipped_model() -> TPOModel:
    """The trained model that comes with the library. Whoever changes it puts it back."""
    import tpo_lab as tpo

    return tpo.load("nano-tpo")


@pytest.fixture(scope="session")
def asked(world: Any) -> list[Sample]:
    """Two scenes' questions of several kinds, about what is said, where it is and when it happens."""
    kinds = ("count", "attribute", "stops", "blinks")
    samples = [sample for scene in (0, 3) for sample in world(scene)]
    chosen = [sample for kind in kinds for sample in samples if sample.meta["kind"] == kind][:7]
    assert {sample.meta["task"] for sample in chosen} == {"conversation", "region", "temporal"}
    return chosen
