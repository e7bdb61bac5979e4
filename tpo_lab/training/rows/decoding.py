"""Processes that decode clips ahead of the training that needs them. They get requests and give frames; they never see the data set."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tpo_lab.clips import ClipLoader, LoadedClip, UnreadableClip
from tpo_lab.errors import TPOError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.precomputed import ClipFeatures
from tpo_lab.sample import Sample


@dataclass(frozen=True)
class ClipRequest:
    """A clip that one row of a step needs.

    Attributes:
        place: of the row in its step.
        sample: of the row, without what it says: media, id and root.
        heads: whose features from files are wanted too.
    """

    place: int
    sample: Sample
    heads: tuple[str, ...] = ()

    @classmethod
    def of(cls, place: int, sample: Sample, heads: Iterable[str] = ()) -> ClipRequest:
        """The request for a sample's clip; small, whatever masks and tracks the sample holds."""
        turns = ({"role": "user", "text": "?"},)
        bare = Sample.model_validate({"id": sample.id, "media": sample.media, "conversation": turns})
        return cls(place, bare if sample.root is None else bare.at(sample.root), tuple(heads))


@dataclass(frozen=True)
class Request:
    """What one step needs that this process does not hold; the first step is 0."""

    step: int
    clips: tuple[ClipRequest, ...]


@dataclass(frozen=True)
class Delivery:
    """What came of a request, by the place of the row.

    Attributes:
        step: of the request.
        clips: what was loaded.
        features: by head, where their files could be read.
        unreadable: what could not be read.
        fault: any other error, in one sentence.
    """

    step: int
    clips: Mapping[int, LoadedClip]
    features: Mapping[int, Mapping[str, ClipFeatures]]
    unreadable: Mapping[int, UnreadableClip]
    fault: str = ""


def start_method() -> str:
    """How the processes start: by fork on Linux, which takes no time, unless this process uses CUDA, which does not survive a fork."""
    if sys.platform != "linux":
        return "spawn"
    return "forkserver" if torch.cuda.is_initialized() else "fork"  # type: ignore[no-untyped-call]


class Decoders:
    """Several processes that answer requests; answers come in the order of the requests.

    Each process has at most `prefetch` requests at a time. A process that dies ends the job with a sentence that names it and the clip that
    it was reading. All end with `close`, and with this process, however it ends; Ctrl-C is left to this process.

    Args:
        requests: endless or not; read as the processes get free.
        workers: number of processes.
        prefetch: requests that each may be ahead.
        method: see `start_method`, the default.
    """

    def __init__(self, loader: ClipLoader, requests: Iterable[Request], *, workers: int, prefetch: int, method: str = "") -> None:
        context = multiprocessing.get_context(method or start_method())
        # by worker: its process, the step it is at and the place of the row
        self._desk = context.RawArray("q", 3 * workers)
        self._sent: dict[int, Request] = {}
        self._open = True
        with _sigint_waits(), warnings.catch_warnings():
            # about fork in a process of several threads, whose locks the workers do not need, and about few cores
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            feed = DataLoader(
                _Decoding(loader, self._desk),
                sampler=_Outgoing(requests, self._sent),
                batch_size=None,
                num_workers=workers,
                prefetch_factor=prefetch,
                collate_fn=_as_it_is,  # type: ignore[arg-type]  # without batches it gets what the data set gives
                worker_init_fn=_alone,
                multiprocessing_context=context,
                # else a seed is drawn from the random numbers of the training
                generator=torch.Generator(),
            )
            self._answers: Any = iter(feed)

    def pids(self) -> list[int]:
        """The processes that have begun."""
        return [pid for pid in self._desk[::3] if pid]

    def next(self) -> Delivery:
        """The answer to the next request.

        Raises:
            TPOError: a worker died, or ran into an error that is none of the clip's.
            StopIteration: there are no more requests.
        """
        try:
            packed: _Packed = next(self._answers)
        except RuntimeError as error:
            if (death := self.death(error)) is not None:
                raise death from error
            raise
        self._sent.pop(packed.step, None)
        if packed.fault:
            raise TPOError(packed.fault)
        return packed.open()

    def death(self, error: RuntimeError) -> TPOError | None:
        """The sentence for an error by which torch says that a worker died; None for any other error."""
        said = str(error)
        if not self._open or "DataLoader worker" not in said:
            return None
        named = {int(pid) for pid in re.findall(r"\d+", ",".join(re.findall(r"pid(?:\(s\))? ([\d, ]+)", said)))}
        dead = [(place, process) for place, process in enumerate(self._answers._workers) if process.pid in named]
        posts = [
            f"Worker {place} (process {process.pid}), which reads clips, {_end(process)} {self._post(place)}" for place, process in dead
        ]
        return TPOError(f"{'; '.join(posts) or 'A worker that reads clips died'}. {_advice(said)}")

    def _post(self, worker: int) -> str:
        _, step, place = self._desk[3 * worker : 3 * worker + 3]
        request = self._sent.get(step)
        found = next((clip for clip in request.clips if clip.place == place), None) if request else None
        return "between two clips" if found is None else f"while it read sample {found.sample.id}: {_file(found.sample)} (step {step + 1})"

    def close(self) -> None:
        """End all processes and wait for them."""
        if self._open:
            self._open = False
            self._answers._shutdown_workers()


def _end(process: Any) -> str:
    process.join(timeout=5)
    code = process.exitcode
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def _advice(said: str) -> str:
    if "Bus error" in said or "shared memory" in said:
        return "Frames travel through shared memory (/dev/shm): make it larger, or use fewer --workers."
    return (
        "If it was killed from outside, there was too little memory: use fewer --workers. "
        "If it crashed on the clip, try that file with --workers 0, or take the sample out. --resume goes on."
    )


def _file(sample: Sample) -> str:
    return str(sample.media_path) if sample.media.is_file else sample.media.path


class _Outgoing:
    """Requests, remembered until they are answered."""

    def __init__(self, requests: Iterable[Request], sent: dict[int, Request]) -> None:
        self.requests, self.sent = requests, sent

    def __iter__(self) -> Iterator[Request]:
        for request in self.requests:
            self.sent[request.step] = request
            yield request


@dataclass(frozen=True)
class _Packed:
    """A delivery for the way between processes: all frames in one tensor, since each tensor takes an open file of its own."""

    step: int
    pixels: Tensor
    clips: Sequence[tuple[int, tuple[int, ...], ClipInfo, str]]
    features: Mapping[int, Mapping[str, tuple[NDArray[Any], tuple[float, ...]]]]
    unreadable: Mapping[int, UnreadableClip]
    fault: str = ""

    def open(self) -> Delivery:
        pieces = torch.split(self.pixels, [prod(shape) for _, shape, _, _ in self.clips]) if self.clips else ()
        clips = {
            place: LoadedClip(piece.view(shape), clip, stamp) for piece, (place, shape, clip, stamp) in zip(pieces, self.clips, strict=True)
        }
        features = {
            place: {head: ClipFeatures(torch.from_numpy(values), times) for head, (values, times) in heads.items()}
            for place, heads in self.features.items()
        }
        return Delivery(self.step, clips, features, self.unreadable)


class _Decoding(Dataset[_Packed]):
    """What runs in the workers."""

    def __init__(self, loader: ClipLoader, desk: Any) -> None:
        self.loader, self.desk = loader, desk

    def __getitem__(self, request: Request) -> _Packed:
        loaded: dict[int, LoadedClip] = {}
        features: dict[int, dict[str, tuple[NDArray[Any], tuple[float, ...]]]] = {}
        unreadable: dict[int, UnreadableClip] = {}
        fault = ""
        for clip in request.clips:
            self._sign(request.step, clip.place)
            try:
                loaded[clip.place] = self.loader.clip(clip.sample)
                features[clip.place] = self._features(clip, loaded[clip.place])
            except UnreadableClip as error:
                unreadable[clip.place] = error
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                fault = f"sample {clip.sample.id}: {_file(clip.sample)} could not be read ({reason})."
                break
        self._sign(request.step, -1)
        pixels = [found.frames.reshape(-1) for found in loaded.values()]
        clips = [(place, tuple(found.frames.shape), found.clip, found.stamp) for place, found in loaded.items()]
        return _Packed(request.step, torch.cat(pixels) if pixels else torch.empty(0), clips, features, unreadable, fault)

    def _features(self, clip: ClipRequest, found: LoadedClip) -> dict[str, tuple[NDArray[Any], tuple[float, ...]]]:
        held = {}
        for head in clip.heads:
            try:
                read = self.loader.features_of(head, clip.sample, found.clip.duration_sec)
            except UnreadableClip:
                # whoever makes the row looks for them again, and says so
                continue
            held[head] = (read.values.numpy(), read.times_sec)
        return held

    def _sign(self, step: int, place: int) -> None:
        info = torch.utils.data.get_worker_info()
        if info is not None:
            self.desk[3 * info.id : 3 * info.id + 3] = [os.getpid(), step, place]


def _as_it_is(packed: _Packed) -> _Packed:
    return packed


def _alone(worker: int) -> None:
    """In a worker, before its first request: Ctrl-C is not meant for it, and it does not outlive the process that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    info = torch.utils.data.get_worker_info()
    info.dataset._sign(-1, -1)  # type: ignore[union-attr]
    threading.Thread(target=_leave_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _leave_with(parent: Any) -> None:
    # torch's own watch looks at the process that forked this one, which is not always the training
    parent.join()
    os._exit(1)


@contextmanager
def _sigint_waits() -> Iterator[None]:
    """Processes that start within the block inherit that Ctrl-C does not reach them; this one gets it after the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
