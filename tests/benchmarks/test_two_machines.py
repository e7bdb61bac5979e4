"""One job on two machines that share a folder, as torchrun starts it on each; both are this one.

Not among the tests of `make test`: of some thirty runs one ended with SIGABRT in a process, beside a busy suite, and why is not
known.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.team import unused_port
from tpo_lab import checkpoint
from tpo_lab.sample import Sample


@pytest.fixture
def data(world: Callable[..., list[Sample]], tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(sample.model_dump_json() + "\n" for index in range(3) for sample in world(index)))
    return path


def test_two_machines_that_share_a_folder_train_as_one_job(data: Path, tiny_base: Path, tmp_path: Path) -> None:
    settings = ["--stage", "1", "--set", "1.steps=3", "--set", "1.batch_size=3", "--head", "region", "--head", "temporal"]
    command = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--backbone", str(tiny_base), *settings]
    where = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(unused_port())]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *where, "--node_rank", str(rank), "-m", "tpo_lab", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    assert "stage 1:" in said[0] and "stage 1:" not in said[1], "one process speaks, though each is the first on its machine"
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert checkpoint.load(tmp_path / "run" / "checkpoint").lora is not None
