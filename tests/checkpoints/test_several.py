"""Two processes that stop and go on: each has the random numbers that it had, and one of them writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from tests.checkpoints.small_runs import differences, two_stages
from tests.distributed.team import unused_port
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.sample import Sample
from tpo_lab.training import Interrupted, TrainingOptions, fit

STOPPED = 7


def work(rank: int, port: int, build: Callable[[], TPOModel], samples: list[Sample], out: Path, stop_at: int | None) -> None:
    """Train as one of two processes of `accelerate launch --cpu`."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

    def listener(name: str, step: int, total: int, report: LossReport) -> None:
        if name == "2.region" and step == stop_at and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        fit(build(), samples, two_stages(), out, resume=out.exists(), listener=listener, options=TrainingOptions())
    except Interrupted:
        os._exit(STOPPED)


def both(*args: object) -> list[int | None]:
    """What the two processes end with."""
    port = unused_port()
    processes = [multiprocessing.get_context("fork").Process(target=work, args=(rank, port, *args), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def test_two_processes_go_on_to_the_bit(build_tiny: Callable[..., TPOModel], samples: list[Sample], tmp_path: Path) -> None:
    straight, out = tmp_path / "straight", tmp_path / "run"
    assert both(build_tiny, samples, straight, None) == [0, 0]
    assert both(build_tiny, samples, out, 2) == [STOPPED, STOPPED]
    assert both(build_tiny, samples, out, None) == [0, 0]
    assert differences(straight, out, outputs=False) == []
    random = load_file(out / "checkpoints" / "2.region-4" / "training" / "random.safetensors")
    assert {name.partition(".")[0] for name in random} == {"0", "1"}
