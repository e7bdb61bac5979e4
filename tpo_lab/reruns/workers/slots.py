"""How a machine is divided among workers: threads of the processor, and one GPU for each where there are any."""

from __future__ import annotations

import os

_MOST = 4


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def default_workers() -> int:
    """One worker for each GPU; without a GPU one for each core, at most four, since each holds a model in memory."""
    return len(gpus()) or min(cores(), _MOST)


def environments(workers: int) -> list[dict[str, str]]:
    """Environment variables of the kernels of each worker.

    Threads are divided so that together they are as many as there are cores. With fewer GPUs than workers some share one.
    """
    threads = str(max(cores() // workers, 1))
    divided = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), threads)
    found = gpus()
    return [{**divided, **({"CUDA_VISIBLE_DEVICES": found[place % len(found)]} if found else {})} for place in range(workers)]
