"""A digest of the samples that a stage trains on, and what of them changed.

Not here: the bytes of videos. Reading a million of them again would take longer than many trainings.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpo_lab.sample import Sample
from tpo_lab.stages import Stage


@dataclass(frozen=True, eq=False)
class DataPrint:
    """The samples of a stage in the order in which it has them, task by task.

    Attributes:
        ids: a number for each sample's id, [sample].
        contents: a number for all that its record says, [sample].
    """

    ids: NDArray[np.int64]
    contents: NDArray[np.int64]

    @cached_property
    def digest(self) -> str:
        """Of all samples and their order, in 32 hexadecimal digits."""
        return hashlib.blake2b(self.ids.tobytes() + self.contents.tobytes(), digest_size=16).hexdigest()

    def to_tensors(self) -> dict[str, Tensor]:
        """To be stored."""
        return {"ids": torch.from_numpy(self.ids), "contents": torch.from_numpy(self.contents)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> DataPrint:
        """As it was stored."""
        return cls(tensors["ids"].numpy(), tensors["contents"].numpy())

    def since(self, before: DataPrint) -> str:
        """In words, how these samples differ from those before."""
        mine, theirs = Counter(self.ids.tolist()), Counter(before.ids.tolist())
        added, removed = (mine - theirs).total(), (theirs - mine).total()
        new = (Counter(self._pairs()) - Counter(before._pairs())).total()
        counts = {"added": added, "removed": removed, "changed": new - added}
        words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return words or "the same samples in another order"

    def _pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.ids.tolist(), self.contents.tolist(), strict=True))


class DataPrints:
    """The prints of a run's stages; samples that several stages share are looked at once.

    Args:
        groups: by stage, the samples of each task.
        stages: whose data is meant.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, Sequence[Sample]]], stages: Sequence[Stage]) -> None:
        self._groups = {stage.name: [groups[stage.name].get(task, ()) for task in sorted(stage.data)] for stage in stages}
        self._seen: dict[int, DataPrint] = {}
        self._made: dict[str, DataPrint] = {}

    def of(self, stage: str) -> DataPrint:
        """The print of a stage's samples."""
        if stage not in self._made:
            parts = [self._of_group(group) for group in self._groups[stage]]
            self._made[stage] = DataPrint(np.concatenate([part.ids for part in parts]), np.concatenate([part.contents for part in parts]))
        return self._made[stage]

    def summary(self) -> dict[str, dict[str, object]]:
        """By stage, the number of samples and the digest; JSON-ready."""
        return {stage: {"samples": len(self.of(stage).ids), "digest": self.of(stage).digest} for stage in self._groups}

    def _of_group(self, group: Sequence[Sample]) -> DataPrint:
        if id(group) not in self._seen:
            ids = np.array([_number(sample.id) for sample in group], dtype=np.int64)
            contents = np.array([_number(sample.model_dump_json()) for sample in group], dtype=np.int64)
            self._seen[id(group)] = DataPrint(ids, contents)
        return self._seen[id(group)]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
