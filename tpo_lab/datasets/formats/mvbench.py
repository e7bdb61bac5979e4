"""MVBench: 20 tasks of multiple choice about short videos, a JSON list of questions for each task.

Source: the benchmark's notebook in Ask-Anything (video_chat2/mvbench.ipynb), which holds the folder and the kind of media of each task.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.keyed import QuestionKeys, unkeyed
from tpo_lab.datasets.formats.multiple_choice import Choice, answer_of, choice_sample, options_in, right_by_text, rows_writer
from tpo_lab.datasets.formats.windows import span
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed, stream_items
from tpo_lab.sample import Sample

FRAMES_PER_SEC = 3.0


@dataclass(frozen=True)
class Task:
    """Where a task's videos lie, under video/.

    Attributes:
        root: the folder.
        bound: whether a question is about the part from `start` to `end`.
        frames: whether a video is a folder of frames, three a second.
    """

    root: str
    bound: bool = False
    frames: bool = False


TASKS = {
    "action_sequence": Task("star/Charades_v1_480", bound=True),
    "action_prediction": Task("star/Charades_v1_480", bound=True),
    "action_antonym": Task("ssv2_video"),
    "fine_grained_action": Task("Moments_in_Time_Raw/videos"),
    "unexpected_action": Task("FunQA_test/test"),
    "object_existence": Task("clevrer/video_validation"),
    "object_interaction": Task("star/Charades_v1_480", bound=True),
    "object_shuffle": Task("perception/videos"),
    "moving_direction": Task("clevrer/video_validation"),
    "action_localization": Task("sta/sta_video", bound=True),
    "scene_transition": Task("scene_qa/video"),
    "action_count": Task("perception/videos"),
    "moving_count": Task("clevrer/video_validation"),
    "moving_attribute": Task("clevrer/video_validation"),
    "state_change": Task("perception/videos"),
    "fine_grained_pose": Task("nturgbd"),
    "character_order": Task("perception/videos"),
    "egocentric_navigation": Task("vlnqa"),
    "episodic_reasoning": Task("tvqa/frames_fps3_hq", bound=True, frames=True),
    "counterfactual_inference": Task("clevrer/video_validation"),
}


def rows(source: Source) -> Iterator[Streamed]:
    """The questions of a task's file, or of every file, in the order in which the official tool asks them."""
    official = list(TASKS)
    files = task_files(source)
    return task_rows(sorted(files, key=lambda file: (official.index(file.stem) if file.stem in TASKS else len(official), file)))


def task_files(source: Source) -> list[Path]:
    """One JSON file, or those in a folder, or in its folder json/.

    Raises:
        UsageError: there is none.
    """
    if not source.path.is_dir():
        return [source.path]
    folder = source.path / "json"
    found = sorted((folder if folder.is_dir() else source.path).glob("*.json"))
    if not found:
        raise UsageError(str(source.path), expected="files <task>.json, in it or in its folder json", got="none")
    return found


def task_rows(files: list[Path]) -> Iterator[Streamed]:
    """Questions with the name of their file, their place in it, and the key by which `tpo-lab score` knows them."""
    keys = QuestionKeys()
    for file in files:
        for place, row in enumerate(stream_items(file)):
            key = "" if isinstance(row, BadRecord) else keys.of(row)
            yield (
                row
                if isinstance(row, BadRecord)
                else Record(row.where, {"task": file.stem, "place": str(place), "key": key, "row": row.fields})
            )


def sample(record: Record, source: Source) -> Sample:
    """One question; a bound one is about a part of its video."""
    row, beside = unkeyed(record)
    name = beside["task"].lower().replace("-", "_")
    task = TASKS.get(name)
    if task is None:
        raise record.bad("", "task_known", "a file named after one of the 20 tasks, as action_count.json", beside["task"])
    options = options_in(row, "candidates")
    choice = Choice(row.words("question"), options, right_by_text(row, "answer", options))
    meta = {"task_type": name, "question_id": beside["key"]}
    return choice_sample("mvbench", f"{name}-{beside['place']}", choice, _media(row, task, source), row, source, meta)


def _media(row: Record, task: Task, source: Source) -> dict[str, Any]:
    path = f"video/{task.root}/{row.words('video')}"
    media: dict[str, Any] = {"path": f"{glob.escape(path)}/*.jpg", "fps": FRAMES_PER_SEC} if task.frames else {"path": path}
    if task.bound:
        ((start, end),) = span(row, "end", row.number("start"), row.number("end"), source)
        media |= {"start_sec": start, "end_sec": end}
    return media


def _said(sample: Sample) -> str:
    """The official rule counts an empty answer as right, so silence is written as a word."""
    return answer_of(sample) or "none"


MVBENCH = Format(
    name="mvbench",
    title="MVBench",
    home="OpenGVLab, MVBench; the NTU RGB+D videos of fine_grained_pose from their own authors",
    licence="not stated",
    layout="the folder with json/<task>.json and video/, or one <task>.json, with --media for the folder that holds video/;\n"
    "frame folders of episodic_reasoning are video/tvqa/frames_fps3_hq/<video>/%05d.jpg",
    rows=rows,
    sample=sample,
    write=rows_writer("pred", _said, "video", "question", under="res_list"),
    tasks=("conversation",),
)
