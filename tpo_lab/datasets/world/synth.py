"""The synthetic world on disk: one JSONL file per split, mp4 clips beside it, there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tpo_lab._version import __version__
from tpo_lab.datasets.world.render import render
from tpo_lab.datasets.world.samples import TASKS, samples_of
from tpo_lab.datasets.world.scene import FRAME_RATE, LEVELS, SPLITS, sample_scene
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.sample import Sample, write
from tpo_lab.video import write_clip

SETTINGS_FILE = "synth.json"
CLIPS = "clips"
_SCHEMA = "tpo_lab.synth/1"
_SCENES_AT_ONCE = 4
_Record = dict[str, Any]


@dataclass(frozen=True)
class _Request:
    """Everything that decides what is written; equal requests give equal files."""

    samples: int
    seed: int
    split: str
    level: str
    tasks: tuple[str, ...]
    questions: int
    version: str = __version__

    def __post_init__(self) -> None:
        for name in ("samples", "questions"):
            if getattr(self, name) < 1:
                raise UsageError(name, expected="at least 1", got=getattr(self, name))
        for name, value, valid in (("split", self.split, SPLITS), ("level", self.level, LEVELS)):
            if value not in valid:
                raise unknown_name(name, value, valid)
        for task in self.tasks:
            if task not in TASKS:
                raise unknown_name("tasks", task, TASKS)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UsageError("tasks", expected=f"one or more of {', '.join(TASKS)}, each once", got=self.tasks)

    def as_json(self) -> _Record:
        return {**asdict(self), "tasks": list(self.tasks)}


def synthesise(
    out: str | os.PathLike[str],
    *,
    samples: int,
    seed: int = 0,
    split: str = "train",
    level: str = "standard",
    tasks: Sequence[str] = TASKS,
    questions: int = 4,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a split as `<split>.jsonl` and `clips/<scene name>.mp4` (16 frames, 4 fps, 64 x 64).

    Splits may share a folder. A finished split that was asked for in the same words is left as it is; an interrupted one leaves
    nothing behind. The clips are as faithful as H.264 with 4:2:0 colour is: 31 dB PSNR on average, 27 dB at worst, to which halving
    the resolution of colour alone limits these small saturated things (crf 4 instead of `write_clip`'s 18 gains 0.1 dB for twice the
    bytes). Brightness alone keeps 43 dB.

    Args:
        out: a folder that is new, empty, or was written by this function.
        samples: how many samples are written, exactly; one clip carries up to `questions` per task.
        seed: of the world; scenes 0, 1, 2, ... of the split are used until there are enough samples.
        tasks: what to ask for, of `samples.TASKS`.
        questions: at most so many samples per clip and task.
        processes: how many render and encode; what is written does not depend on it.
        progress: called with (samples written, `samples`) after each clip.

    Returns:
        The path of the JSONL file.

    Raises:
        UsageError: an argument is out of range or unknown, or the folder holds something else.
    """
    request = _Request(samples, seed, split, level, tuple(tasks), questions)
    if processes < 1:
        raise UsageError("processes", expected="at least 1", got=processes)
    folder = Path(out)
    target, work = folder / f"{split}.jsonl", folder / f".{split}.partial"
    made = _splits_in(folder).get(split)
    if made is not None and made["request"] != request.as_json():
        raise UsageError("out", expected=f"a folder without other {split} samples", got=str(folder), hint="Choose another folder.")
    if made is not None and _is_whole(target, made):
        return target
    is_new = not folder.exists()
    shutil.rmtree(work, ignore_errors=True)
    (work / CLIPS).mkdir(parents=True)
    try:
        write(work / target.name, _samples(request, work, processes, progress))
        _publish(request, work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
    return target


def _samples(request: _Request, work: Path, processes: int, progress: Callable[[int, int], None] | None) -> Iterator[Sample]:
    written = 0
    with closing(_scene_by_scene(request, work, processes)) as scenes:
        for found in scenes:
            wanted = found[: request.samples - written]
            yield from wanted
            written += len(wanted)
            if progress is not None:
                progress(written, request.samples)
            if written == request.samples:
                return


def _scene_by_scene(request: _Request, work: Path, processes: int) -> Generator[list[Sample], None, None]:
    """Samples of scene 0, 1, 2, ... without end; their clips are written on the way, with several processes a few ahead."""
    if processes == 1:
        yield from (found for first in count() for found in _make(request, work, first, 1))
        return
    spawn = multiprocessing.get_context("spawn")  # the caller may have threads, which a forked process would not survive
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_leave_interrupts_to_the_parent) as pool:
        ahead: deque[Future[list[list[Sample]]]] = deque()
        try:
            for first in count(0, _SCENES_AT_ONCE):
                ahead.append(pool.submit(_make, request, work, first, _SCENES_AT_ONCE))
                if len(ahead) > 2 * processes:
                    yield from ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(request: _Request, work: Path, first: int, scenes: int) -> list[list[Sample]]:
    made = []
    for index in range(first, first + scenes):
        scene = sample_scene(index, seed=request.seed, split=request.split, level=request.level)
        clip = f"{CLIPS}/{scene.name}.mp4"
        found = samples_of(scene, request.tasks, questions=request.questions, media=clip)
        if found:
            write_clip(work / clip, render(scene), FRAME_RATE)
        made.append(found)
    return made


def _publish(request: _Request, work: Path, folder: Path) -> None:
    """Move what is finished to its place. `work` marks the folder as ours until the end, so that a crash in here is repaired by a rerun."""
    jsonl = work / f"{request.split}.jsonl"
    clips = sorted({json.loads(line)["media"]["path"] for line in jsonl.read_text(encoding="utf-8").splitlines()[1:]})
    record = {"request": request.as_json(), "clips": len(clips), "sha256": _sha256(jsonl)}
    moved: list[Path] = []
    try:
        (folder / CLIPS).mkdir(exist_ok=True)
        for name in [*clips, jsonl.name]:
            moved.append(folder / name)
            os.replace(work / name, folder / name)
        settings = {"schema": _SCHEMA, "splits": {**_splits_in(folder), request.split: record}}
        (work / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        os.replace(work / SETTINGS_FILE, folder / SETTINGS_FILE)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        if not any((folder / CLIPS).iterdir()):
            (folder / CLIPS).rmdir()
        raise


def _splits_in(folder: Path) -> dict[str, _Record]:
    """The finished splits of a folder, by name.

    Raises:
        UsageError: it is not a folder, or holds what `synthesise` did not write.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise UsageError("out", expected="a folder", got=str(folder))
    settings = folder / SETTINGS_FILE
    if not settings.exists():
        names = sorted(path.name for path in folder.iterdir())
        if names and not any(f".{split}.partial" in names for split in SPLITS):
            raise UsageError("out", expected="a new or empty folder, or one made by this command", got=f"{folder} with {names[0]}")
        return {}
    try:
        found = json.loads(settings.read_text(encoding="utf-8"))
        if found["schema"] != _SCHEMA:
            raise UsageError(str(settings), expected=f"the schema {_SCHEMA!r}", got=found["schema"])
        return dict(found["splits"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(str(settings), expected="the settings of a synthetic data set", got=str(error)) from error


def _is_whole(jsonl: Path, record: _Record) -> bool:
    request = record["request"]
    clips = (jsonl.parent / CLIPS).glob(f"{request['split']}-{request['level']}-{request['seed']}-*.mp4")
    return jsonl.is_file() and _sha256(jsonl) == record["sha256"] and sum(1 for _ in clips) == record["clips"]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
