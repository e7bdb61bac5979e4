"""Peak memory of `tpo-lab data validate` on a JSONL file of a million lines, and of the same number of records in an official format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LINES = 1_000_000
MOST_MIB = 300
_MEASURED = """
import resource, sys
from tpo_lab import cli
status = cli.run(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(status)
"""


def sample(number: int) -> dict:
    return {
        "id": f"s{number}",
        "media": {"path": f"clips/{number}.mp4"},
        "conversation": [{"role": "user", "text": f"When does number {number} happen?"}, {"role": "assistant", "text": "<temporal>"}],
        "targets": {"temporal": {"windows_sec": [[2.0, 6.5]], "saliency": {"step_sec": 2.0, "scores": [0.0, 1.0, 0.5]}}},
        "meta": {"task": "temporal"},
    }


def query(number: int) -> dict:
    windows = {"relevant_windows": [[2, 6]], "relevant_clip_ids": [1, 2], "saliency_scores": [[4, 3, 4], [2, 2, 1]]}
    return {"qid": number, "query": "a dog", "duration": 150, "vid": f"v{number}", **windows}


@pytest.mark.parametrize(("make", "options"), [(sample, []), (query, ["--format", "qvhighlights"])], ids=["samples", "qvhighlights"])
def test_a_million_lines_stay_small(tmp_path: Path, make, options: list[str]) -> None:
    path = tmp_path / "million.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(make(number)) + "\n" for number in range(LINES))
    words = [sys.executable, "-c", _MEASURED, "data", "validate", str(path), *options]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1])
    print(f"{LINES:,} lines of {path.stat().st_size / LINES:.0f} bytes: {peak} MiB")
    assert f"{LINES} samples, no problem" in done.stdout and peak <= MOST_MIB
