"""The rows of a stage, step by step: the same from any step on, with any number of processes that decode ahead.

Which samples a step shows is `StageData`'s; how a clip is read is `ClipLoader`'s; this decides who reads it, keeps it, or leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tpo_lab.batch import Row
from tpo_lab.clips import UnreadableClip, UnreadableFeatures, media_key
from tpo_lab.errors import TPOError
from tpo_lab.media import Frames
from tpo_lab.sample import Sample
from tpo_lab.training.rows.data import StageData
from tpo_lab.training.rows.decoding import ClipRequest, Decoders, Delivery, Request
from tpo_lab.training.rows.dropped import DropList


@dataclass(frozen=True)
class Share:
    """Which part of every batch a process computes: the part `rank` of `world` equal ones."""

    rank: int = 0
    world: int = 1


class RowSource:
    """Gives the rows of one step after the other.

    The rows are a function of data, seed and step. With `workers`, other processes decode the clips of steps to come; which process does
    so changes nothing. A clip that `frames` will keep is asked for once: it is decoded once and sent once, while there is room. So memory
    holds what `frames` may keep, and the clips of at most (workers x prefetch + 1) steps.

    A clip that cannot be read is tried once. With a list of drops its samples are left out of their batch and listed; without, it ends the
    job.

    Args:
        data: of the stage.
        frames: loads and keeps.
        share: of this process.
        workers: processes that decode; 0 decodes here, when a step needs it.
        prefetch: steps that each worker may be ahead.
        drops: None ends the job at the first clip that cannot be read.
        method: how workers start; see `tpo_lab.training.rows.decoding.start_method`.
    """

    def __init__(
        self,
        data: StageData,
        frames: Frames,
        share: Share = Share(),
        *,
        workers: int = 0,
        prefetch: int = 2,
        drops: DropList | None = None,
        method: str = "",
    ) -> None:
        self.data, self.frames, self.share, self.drops = data, frames, share, drops
        self.workers, self.prefetch, self.method = workers, prefetch, method
        self.decoders: Decoders | None = None
        self._due = -1
        self._planned: dict[int, list[list[Sample]]] = {}
        self._unreadable: dict[str, UnreadableClip] = {}

    def __enter__(self) -> RowSource:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # torch says that a worker died wherever the training is just then
        death = self.decoders.death(error) if self.decoders is not None and isinstance(error, RuntimeError) else None
        self.close()
        if death is not None:
            raise death from error

    def close(self) -> None:
        """End the workers."""
        if self.decoders is not None:
            self.decoders.close()
            self.frames.give_up_all()
        self.decoders, self._due, self._planned = None, -1, {}

    def rows(self, step: int) -> list[Row]:
        """The rows of a step, the first being 0, without those whose clips cannot be read; quickest in the order of the steps.

        Raises:
            TPOError: a clip cannot be read and may not be left out, more are left out than allowed, or a worker died.
        """
        delivery = self._delivery(step)
        planned = self._planned.pop(step, None) or self.data.batch(step, self.share.rank, self.share.world)
        found = []
        for place, samples in enumerate(planned):
            try:
                found.append(self._row(place, samples, delivery))
            except UnreadableClip as error:
                self._leave_out(step, samples, error)
        return found

    def dropped(self, step: int) -> int:
        """How many samples of a step, the first being 0, were left out, in all processes."""
        return 0 if self.drops is None else self.drops.count(step + 1)

    def _delivery(self, step: int) -> Delivery | None:
        if not self.workers:
            return None
        if step != self._due or self.decoders is None:
            self.close()
            self.decoders = Decoders(
                self.frames.loader, self._requests(step), workers=self.workers, prefetch=self.prefetch, method=self.method
            )
        self._due = step + 1
        return self.decoders.next()

    def _requests(self, first: int) -> Iterator[Request]:
        """What the workers are asked for; runs ahead of `rows`."""
        for step in range(first, self.data.total_steps):
            self._planned[step] = self.data.batch(step, self.share.rank, self.share.world)
            yield Request(step, tuple(self._wanted(self._planned[step])))

    def _wanted(self, rows: list[list[Sample]]) -> Iterator[ClipRequest]:
        for place, samples in enumerate(rows):
            first = samples[0]
            if media_key(first) not in self._unreadable and self.frames.await_clip(first):
                heads = [head for head in self.frames.heads_of(samples) if not self.frames.has_features(head, first)]
                yield ClipRequest.of(place, first, heads)

    def _row(self, place: int, samples: list[Sample], delivery: Delivery | None) -> Row:
        key = media_key(samples[0])
        if delivery is not None and place in delivery.unreadable:
            self._unreadable.setdefault(key, delivery.unreadable[place])
        if key in self._unreadable:
            self.frames.give_up(samples[0])
            raise self._unreadable[key]
        try:
            if delivery is None:
                return self.frames.row(samples)
            return self.frames.row(samples, delivery.clips.get(place), delivery.features.get(place))
        except UnreadableClip as error:
            if not isinstance(error, UnreadableFeatures):
                self._unreadable[key] = error.with_traceback(None)
            raise

    def _leave_out(self, step: int, samples: list[Sample], error: UnreadableClip) -> None:
        if self.drops is None:
            where = f"stage {self.data.stage.name}, step {step + 1}, sample {samples[0].id}"
            hint = "" if str(error).rstrip().endswith(".") else "."
            raise TPOError(f"{where}: {error}{hint} --on-bad skip leaves such samples out.") from error
        self.drops.add(step + 1, samples, error)
