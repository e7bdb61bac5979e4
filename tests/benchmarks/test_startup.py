"""What a user waits for before anything happens: the import, and the help and the doctor of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BARE_SEC = 2.0


def python(code: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "widgets")))}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=env)


@pytest.mark.parametrize("code", ["pass", "import tpo_lab", "import tpo_widgets", "import torch"])
def test_import(code: str, measure):
    """`pass` and `import torch` are the floor and the yardstick: `import tpo_lab` has to stay near the first."""
    seconds = measure(lambda: python(code), rounds=3)
    if code == "import tpo_lab":
        assert seconds < BARE_SEC, "the import has become heavy: which module imports at its top what a function should?"


def test_examine(measure):
    from tpo_lab.doctor import examine

    measure(examine, rounds=3)
