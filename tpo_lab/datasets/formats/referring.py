"""An image and what an expression refers to in it, a box or a mask: as a sample, and as the row of a file that `tpo-lab score` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.boxes import Size
from tpo_lab.datasets.formats.submission import raw_of, write_lines
from tpo_lab.datasets.formats.turns import mask_turns, region_turns
from tpo_lab.sample import Sample


@dataclass(frozen=True)
class Referring:
    """One expression.

    Attributes:
        name: the sample's id.
        source: name of the format.
        split: which part of the data set.
        image: path of the image.
        size: of the image.
        expression: as the data set has it.
        dataset: name of the set that scores are averaged over, as "refcoco_unc_testA".
        raw: the record.
        xyxy: the box in pixels, where boxes are asked for.
        rle: the mask's run lengths, where masks are asked for.
    """

    name: str
    source: str
    split: str
    image: str
    size: Size
    expression: str
    dataset: str
    raw: Mapping[str, Any]
    xyxy: tuple[float, float, float, float] | None = None
    rle: Mapping[str, Any] | None = None

    def sample(self) -> Sample:
        """A question about the whole image, answered by its one box, or by its one mask at 0 s."""
        is_mask = self.rle is not None
        target: dict[str, Any] = {"mask": {"times_sec": [0.0], "rle": [self.rle]}} if is_mask else {"region": [{"xyxy": self.xyxy}]}
        return Sample.model_validate(
            {
                "id": self.name,
                "source": self.source,
                "split": self.split,
                "media": {"path": self.image},
                "conversation": (mask_turns if is_mask else region_turns)(self.name, self.expression),
                "targets": target,
                "meta": {
                    "task": "mask" if is_mask else "region",
                    "size": list(self.size),
                    "expression": self.expression,
                    "dataset_name": self.dataset,
                    "raw": dict(self.raw),
                },
            }
        )


def write(samples: Iterable[Sample], path: Path) -> int:
    """Rows for the scores of boxes and of masks, one JSON object a line; written of the true samples they are the ground truth.

    A row has the sample's `id`, or, where the record comes in the form of Shikra, `img_path` and `expression`, by which that file itself is
    the ground truth. `bbox` is the box xyxy in pixels, `mask` the run lengths; null where the model gave none.
    """
    return write_lines(path, (json.dumps(_row(each)) for each in samples))


def _row(sample: Sample) -> dict[str, Any]:
    raw = raw_of(sample)
    if "img_path" in raw:
        row = {name: raw_of(sample, "expression")[name] for name in ("img_path", "expression")}
    else:
        row = {"id": sample.id, **{name: raw[name] for name in ("sent_id", "ref_id") if name in raw}}
    row["dataset_name"] = sample.meta.get("dataset_name", "")
    if sample.meta.get("task") == "mask":
        target = sample.targets.mask
        rle = target.rle[0] if target is not None else None
        return {**row, "mask": None if rle is None else rle.model_dump(mode="json")}
    return {**row, "bbox": list(sample.targets.region[0].xyxy) if sample.targets.region else None}
