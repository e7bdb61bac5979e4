"""The memory that this process takes, read often and cheaply."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

_MIB = 2**20


def process_memory() -> dict[str, int]:
    """In MiB: "memory_mib", what is resident, and "cuda_mib", what torch holds of the device in use; what cannot be told is left out."""
    resident = resident_bytes()
    found = {} if resident is None else {"memory_mib": round(resident / _MIB)}
    if torch.cuda.is_available():
        found["cuda_mib"] = round(torch.cuda.memory_reserved() / _MIB)
    return found


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """Resident memory; where the system has no such file, the most that it ever was; None where it tells neither."""
    try:
        pages = int(statm.read_text().split()[1])
    except OSError:
        return _most_resident_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _most_resident_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, the others KiB
    return most if sys.platform == "darwin" else most * 1024
