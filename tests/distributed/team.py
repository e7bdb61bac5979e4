"""Processes that wait for work, so that torch and transformers are imported once for all tests."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import traceback
from multiprocessing.connection import Connection
from typing import Any

import pytest

PATIENCE_SEC = 300
"""A process that has not answered by then hangs."""


def wait_for_work(rank: int, world: int, port: int, pipe: Connection) -> None:
    """Run what comes through the pipe, until it is closed. As `accelerate launch --cpu` would start it."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu")
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        try:
            jobs = importlib.import_module("tests.distributed.jobs")
            pipe.send((getattr(jobs, function)(*args), None))
        except Exception:
            pipe.send((None, traceback.format_exc()))


def unused_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Team:
    """Processes that do the same job at the same time."""

    def __init__(self, world: int) -> None:
        context = multiprocessing.get_context("spawn")
        port = unused_port()
        self.pipes, self.processes = [], []
        for rank in range(world):
            here, there = context.Pipe()
            process = context.Process(target=wait_for_work, args=(rank, world, port, there), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def __call__(self, function: str, *args: Any) -> list[Any]:
        """What the function of `jobs` gives in each process."""
        for pipe in self.pipes:
            pipe.send((function, args))
        found = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(PATIENCE_SEC):
                self.end()
                pytest.fail(f"process {rank} hangs in {function}")
            result, problem = pipe.recv()
            if problem is not None:
                self.end()
                pytest.fail(f"process {rank}: {problem}")
            found.append(result)
        return found

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
