"""What holds for every test: one compute thread per worker, and torch seeded before each test. Nothing else is set."""

from __future__ import annotations

import os
import sys

import pytest

# Read when torch is first imported, so this stands before any test module.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _seed_torch():
    """A test that never loads torch does not pay for loading it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
