"""What the demo shows: questions about a video file, the rows of the comparison, and the report's page filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab import report as reports
from tpo_lab.runs import read_jsonl

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_lab.model import TPOModel
    from tpo_lab.records import Record
    from tpo_lab.sample import Sample

_ASKED_OF_ANY_VIDEO = (
    "How many things are there?",
    "Where is the red ball?",
    "When does the red ball stop?",
    "Show the tracking trajectory of the red ball.",
)
_HEADLINE = ("route accuracy", "REC Acc@0.5", "R1@0.5", "QA accuracy")


def questions(video: Path | None, test: Sequence[Sample]) -> list[Sample]:
    """What to ask: about the user's video, or of the first test clip that has a question of each kind what the split asks about it."""
    from tpo_lab.sample import Media, Sample, Turn

    if video is not None:
        asked = [Turn(role="user", text=text) for text in _ASKED_OF_ANY_VIDEO]
        return [Sample(id=f"video-{number}", media=Media(path=str(video)), conversation=(turn,)) for number, turn in enumerate(asked)]
    clips: dict[str, dict[str, Sample]] = {}
    for sample in test:
        if sample.meta.get("kind") != "caption" and not sample.prompts:
            clips.setdefault(sample.media.path, {}).setdefault(str(sample.meta.get("task")), sample)
    # The first clip of those with the most tasks.
    chosen = max(clips.values(), key=len)
    return list(chosen.values())


def ask(model: TPOModel, asked: Sequence[Sample], folder: Path) -> dict[str, Any]:
    """Answer questions about a file as a user would, and store what the heads say over its frames."""
    answers = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(asked):
        question = sample.conversation[0].text
        answer = model.answer(sample.media_path, question)
        picture = folder / f"{number}.png"
        overlay(sample, answer.structured).save(picture)
        answers.append({"question": question, "picture": picture.name, **answer.to_dict()})
    return {"video": str(asked[0].media_path), "answers": answers}


def overlay(sample: Sample, structured: Mapping[str, Any]) -> Image:
    """The frames of a clip with what the heads answered, whichever were asked."""
    if "mask" in structured or sample.targets.mask is not None or sample.targets.track is not None:
        return reports.mask_picture(sample, structured.get("mask"))
    if "temporal" in structured or sample.targets.temporal is not None:
        return reports.window_picture(sample, structured.get("temporal"))
    return reports.box_picture(sample, structured.get("region"))


def rows(before: Sequence[Record], after: Sequence[Record], constant: Sequence[Record], seed: int) -> list[dict[str, Any]]:
    """The comparison as JSON."""
    return [asdict(row) for row in reports.comparison(before, after, constant=constant, seed=seed)]


def headline(result: Mapping[str, Any]) -> str:
    """The few figures that a line on the terminal has room for."""
    found = result.get("headline")
    if not isinstance(found, Mapping):
        return ""
    return "; " + ", ".join(f"{name} {found[name]:.1%}" for name in _HEADLINE if name in found)


def peak_memory(phases: Mapping[str, Mapping[str, Any]], kernels: Sequence[str]) -> float | None:
    """The most that this process and the largest kernel beside it held, in MiB."""
    peaks = {name: phase.get("peak_memory_mb") for name, phase in phases.items()}
    kernel = [peaks[name] for name in kernels]
    own = [peak for name, peak in peaks.items() if name not in kernels]
    if any(peak is None for peak in [*kernel, *own]):
        return None
    return float(max(kernel)) + float(max(own))  # type: ignore[type-var,arg-type]


def report(out: Path, document: Mapping[str, Any], before: Sequence[Record], after: Sequence[Record]) -> str:
    """The report of a finished demo as HTML."""
    from tpo_lab.sample import read

    settings, environment = document["settings"], document["environment"]
    samples = {sample.id: sample for sample in read(out / "data" / "test.jsonl")}
    metrics = [line for path in document["losses"].values() for line in read_jsonl(out / path)]
    answers = document["video"]["answers"]
    page = reports.Page(
        title="Task Preference Optimization on the nano model",
        summary=(
            "A small video language model, pretrained on captions and questions only, goes through the paper's three stages: "
            "it learns to say which task is asked, its heads learn to answer, and then all of it is trained together."
        ),
        caution="A smoke run: a few steps that show that every part works. Its figures mean nothing." if document["smoke"] else "",
        tiles=_tiles(document),
        rows=[_row(row) for row in document["comparison"]],
        losses=reports.loss_chart(metrics),
        boxes=_examples(after, samples, "region", settings["examples"]),
        windows=_examples(after, samples, "temporal", settings["examples"]),
        masks=_examples(after, samples, "mask", settings["examples"]),
        routing=[
            reports.confusion_chart(document[when]["routing"]["labels"], document[when]["routing"]["confusion"], title)
            for when, title in (("before", "Before"), ("after", "After"))
        ],
        video=[_answered(answer, out / "video") for answer in answers],
        video_name=Path(document["video"]["video"]).name,
        durations={name: (phase["seconds"] or 0.0, phase["peak_memory_mb"]) for name, phase in document["phases"].items()},
        settings={
            **settings,
            "clips": document["data"]["clips"],
            "stages": ", ".join(f"{name}: {steps} steps" for name, steps in document["stages"].items()),
            "peak memory, this process and a kernel": _gibibytes(document["peak_memory_mb"]),
            **environment,
        },
    )
    return reports.render(page)


def _tiles(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    before, after = document["headline"]["before"], document["headline"]["after"]
    names = {
        "route accuracy": "questions sent to the right head",
        "REC Acc@0.5": "boxes with IoU of 0.5 or more",
        "R1@0.5": "moments with IoU of 0.5 or more",
        "segmentation J&F": "J&F of masks from words",
        "tracking AO": "mean overlap of tracked boxes",
        "QA accuracy": "plain questions answered exactly",
    }
    tiles = [(f"{after[name]:.0%}", f"{what}, {before.get(name, 0.0):.0%} before") for name, what in names.items() if name in after]
    unseen = document.get("compositions", {}).get("headline", {})
    if "REC Acc@0.5" in unseen:
        tiles.append((f"{unseen['REC Acc@0.5']:.0%}", "boxes of looks that no training clip shows"))
    return [*tiles, (f"{document['seconds'] / 60:.1f} min", "on " + str(document["environment"]["device"]))]


def _row(row: Mapping[str, Any]) -> reports.Row:
    """A row that may have gone through JSON, where triples are lists."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return reports.Row(**values)


def _examples(records: Sequence[Record], samples: Mapping[str, Sample], head: str, count: int) -> list[reports.Example]:
    """The first question about each of the first clips; what is asked of a head in two ways (outline it, follow it), in turn."""
    clips: dict[str, dict[str, Record]] = {}
    for record in records:
        if head in record.expected:
            clips.setdefault(record.media, {}).setdefault(next(iter(record.target)), record)
    kinds = sorted({kind for asked in clips.values() for kind in asked})
    drawn = [asked.get(kinds[place % len(kinds)]) or next(iter(asked.values())) for place, asked in enumerate(clips.values())][:count]
    found = []
    for record in drawn:
        answer = record.routed.get(head)
        picture = overlay(samples[record.id], {head: answer} if answer is not None else {})
        found.append(reports.Example(record.question, record.text, picture, reports.overlap(record, head)))
    return found


def _answered(answer: Mapping[str, Any], folder: Path) -> reports.Example:
    from PIL import Image

    with Image.open(folder / answer["picture"]) as picture:
        return reports.Example(answer["question"], answer["text"], picture.convert("RGB"))


def _gibibytes(mebibytes: float | None) -> str:
    return "not known" if mebibytes is None else f"{mebibytes / 1024:.2f} GiB"
