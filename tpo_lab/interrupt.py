"""Ctrl-C that loses nothing: the first one is a flag that a loop looks at after each step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tpo_lab.errors import TPOError

SAME_SEC = 1.0
"""Signals this close after the first are no second wish."""


class Interrupted(TPOError):
    """Training was stopped by the user; everything is saved."""


@contextmanager
def stop_on_interrupt(*others: signal.Signals) -> Iterator[threading.Event]:
    """Turns the first Ctrl-C, or other such signal, into a flag that the loop looks at after each step; a later one interrupts at once.

    One that comes within a second is the same one: a terminal sends it to every process of a job, and so does what started them.

    Args:
        others: signals that stop the loop as Ctrl-C does.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    first: list[float] = []

    def stop(number: int, frame: object) -> None:
        first.append(time.monotonic())
        if first[-1] - first[0] > SAME_SEC:
            raise KeyboardInterrupt
        stopped.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, *others)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
