"""The command under `accelerate launch`, as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tpo_lab import checkpoint
from tpo_lab.sample import Sample


def launch(port: int, *arguments: str) -> subprocess.Popen[str]:
    """Two processes on CPU; accelerate's own launcher for several of them believes in GPUs."""
    words = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "--main_process_port", str(port)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*words, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def data(world: Callable[..., list[Sample]], tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(sample.model_dump_json() + "\n" for index in range(3) for sample in world(index)))
    return path


@pytest.mark.slow
def test_fsdp_is_read_from_accelerates_own_configuration(data: Path, tiny_base: Path, tmp_path: Path, free_port: int) -> None:
    settings = ["--stage", "1", "--set", "1.steps=3", "--set", "1.batch_size=3", "--head", "region", "--head", "temporal"]
    command = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--backbone", str(tiny_base), "--checkpointing", "--json"]
    process = launch(free_port, "--use_fsdp", "--fsdp_version", "2", "-m", "tpo_lab", *command, *settings)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    document: dict[str, Any] = json.loads(out)
    assert [(stage["name"], stage["steps"]) for stage in document["stages"]] == [("1", 3)]
    assert err.count("stage 1:") > 0 and err.count("stage 1: 3/3") <= 1, "one process speaks"
    assert checkpoint.load(tmp_path / "run" / "checkpoint").lora is not None


@pytest.mark.slow
def test_ctrl_c_at_the_launcher_saves_and_says_so_once(data: Path, tiny_base: Path, tmp_path: Path, free_port: int) -> None:
    settings = ["--stage", "1", "--set", "1.steps=5000", "--head", "region", "--head", "temporal"]
    command = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--backbone", str(tiny_base)]
    process = launch(free_port, "--multi_gpu", "-m", "tpo_lab", *command, *settings)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert err.count("Stopped in stage 1 after step") == 1, err
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
