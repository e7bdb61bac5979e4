"""What a run would do, before it does anything: steps, what trains, what data it sees how often, and the memory that it takes.

Nothing is trained or decoded, and no weight is needed: the model may be an outline on torch's meta device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from tpo_lab import freeze
from tpo_lab.clips import media_key
from tpo_lab.conversation import Kind
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample, has_media
from tpo_lab.stages import Stage
from tpo_lab.training.cost.memory import TrainingMemory, estimate_stage
from tpo_lab.training.rows.data import StageData

LOOKED_FOR = 20_000
"""So many clips of a data set are looked for at most, evenly spread: on a file server each takes a while."""
MEASURED_ROWS = 256
"""So many rows of a stage are tokenised at most."""
ASSUMED_WORDS = 100
"""Tokens of a row beside its clip, where there is no data to count them in."""


@dataclass(frozen=True)
class DataSetShare:
    """The samples of one data set that one task of a stage shows.

    Attributes:
        task: that the samples ask for.
        source: the data set, as its samples name it.
        samples: of it.
        rows: that they make in one epoch, as far as they begin one.
        share: of the stage's rows, in [0, 1].
        epochs: how often the stage sees each sample.
        clips: how many different ones.
        looked_for: of these, how many were looked for on the disk.
        missing: of those, how many are not there.
        hours: of the clips whose length is known from their samples.
        unknown_length: how many others there are.
    """

    task: str
    source: str
    samples: int
    rows: int
    share: float
    epochs: float
    clips: int
    looked_for: int
    missing: int
    hours: float
    unknown_length: int


@dataclass(frozen=True)
class RowSize:
    """The longest of some rows.

    Attributes:
        tokens: of the clip and of all that is said about it.
        learned: how many of them are learned.
        rows: how many were looked at; 0 where the size is an assumption.
    """

    tokens: int
    learned: int
    rows: int


@dataclass(frozen=True)
class Resources:
    """What a step is cut into.

    Attributes:
        processes: that share a batch.
        micro_batch: rows at once in each; None takes all of its rows.
        checkpointing: whether layers are computed again in the backward pass.
        sharded: whether each process holds a piece of the frozen language model only.
        device: "cuda" or "cpu", which keep dropout's choices in other sizes.
    """

    processes: int = 1
    micro_batch: int | None = None
    checkpointing: bool = False
    sharded: bool = False
    device: str = "cuda"

    def rows_of(self, stage: Stage) -> int:
        """Rows at once on one device.

        Raises:
            UsageError: the processes cannot share the stage's batch equally.
        """
        if stage.batch_size % self.processes:
            expected = f"a number that divides the batch of {stage.batch_size} of stage {stage.name}"
            raise UsageError("processes", expected=expected, got=self.processes)
        share = stage.batch_size // self.processes
        return min(share, self.micro_batch or share)


def groups_trained(model: TPOModel, stage: Stage) -> list[dict[str, Any]]:
    """What trains, by the stage's patterns: pattern, learning_rate, parameters. JSON-ready."""
    named = model.named_parts()
    return [
        {
            "pattern": pattern,
            "learning_rate": rate,
            "parameters": sum(weight.numel() for name, weight in named.items() if fnmatchcase(name, pattern)),
        }
        for pattern, rate in stage.learning_rates.items()
    ]


def mixture_of(data: StageData) -> list[DataSetShare]:
    """The data sets of a stage, task by task."""
    weight = sum(data.stage.data.values())
    found = []
    for task, part in data.stage.data.items():
        packed = data.rows_of(task)
        share = part / weight
        epochs = data.total_steps * data.stage.batch_size * share / len(packed)
        rows = Counter(samples[0].source for samples in packed)
        by_source: dict[str, list[Sample]] = {}
        for sample in data.whole.samples[task]:
            by_source.setdefault(sample.source, []).append(sample)
        for source, samples in by_source.items():
            found.append(_share_of(task, source, samples, rows[source], share * rows[source] / len(packed), epochs))
    return found


def _share_of(task: str, source: str, samples: Sequence[Sample], rows: int, share: float, epochs: float) -> DataSetShare:
    clips = list({media_key(sample): sample for sample in samples}.values())
    looked_for = clips[:: -(-len(clips) // LOOKED_FOR)]
    missing = sum(not has_media(sample) for sample in looked_for)
    lengths = [length for sample in clips if (length := sample.media.duration_sec) is not None]
    return DataSetShare(
        task=task,
        source=source or "-",
        samples=len(samples),
        rows=rows,
        share=share,
        epochs=epochs,
        clips=len(clips),
        looked_for=len(looked_for),
        missing=missing,
        hours=sum(lengths) / 3600,
        unknown_length=len(clips) - len(lengths),
    )


def row_size(model: TPOModel, data: StageData | None) -> RowSize:
    """The longest row among some that are spread over the steps of a stage; an assumption where there is no data."""
    times = [float(second) for second in range(model.backbone.num_frames)]
    clip = len(model.collate.prefix(times))
    if data is None:
        return RowSize(clip + ASSUMED_WORDS, ASSUMED_WORDS, 0)
    steps = range(0, data.total_steps, -(-data.total_steps * data.stage.batch_size // MEASURED_ROWS))
    rows = [samples for step in steps for samples in data.batch(step)][:MEASURED_ROWS]
    encoded = [[model.encoder.encode([(turn.role, turn.text) for turn in sample.conversation]) for sample in row] for row in rows]
    tokens = max(sum(len(each.ids) for each in row) for row in encoded)
    learned = max(sum(kind in (Kind.TEXT, Kind.ROUTE) for each in row for kind in each.kinds) for row in encoded)
    return RowSize(clip + tokens, learned, len(rows))


def memory_of(model: TPOModel, stage: Stage, size: RowSize, resources: Resources) -> TrainingMemory:
    """The memory that a step takes in each process; see `tpo_lab.training.cost.memory.estimate_stage`."""
    rows = resources.rows_of(stage)
    return estimate_stage(
        model,
        stage,
        rows=rows,
        tokens=size.tokens,
        learned=rows * size.learned,
        checkpointing=resources.checkpointing,
        shards=resources.processes if resources.sharded else 1,
        device=resources.device,
    )


def stage_plan(model: TPOModel, stage: Stage, data: StageData | None, resources: Resources) -> dict[str, Any]:
    """All that is known of a stage before it runs, JSON-ready; bytes and counts are those of one process.

    Returns:
        name, title, steps (None where only data can say) and batch_size; parts, trained and total as `tpo_lab.freeze.shape` has them;
        groups as in `groups_trained`; mixture (fields of `DataSetShare`); and memory: fields of `TrainingMemory` in bytes, their total,
        and what they were counted for (rows, precision, fields of `Resources`, and `row`, a `RowSize`).

    Raises:
        UsageError: a freeze pattern that matches nothing, or processes that cannot share a batch.
    """
    size = row_size(model, data)
    memory = memory_of(model, stage, size, resources)
    counted_for = {"rows": resources.rows_of(stage), "row": asdict(size), "precision": stage.precision, **asdict(resources)}
    return {
        "name": stage.name,
        "title": stage.title,
        "steps": stage.steps if data is None else data.total_steps,
        "batch_size": stage.batch_size,
        **freeze.shape(freeze.FreezePlan.of(stage), model.named_parts()),
        "groups": groups_trained(model, stage),
        "mixture": [] if data is None else [asdict(each) for each in mixture_of(data)],
        "memory": {**asdict(memory), "total": memory.total, **counted_for},
    }
