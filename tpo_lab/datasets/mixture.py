"""A mixture: which data sets a stage trains on, how much of each, and where their files lie. Written as YAML; "paper" is Table 17.

name: mine
datasets:
  didemo: {format: didemo, path: didemo/train_data.json, media: didemo/videos, split: train}
  own: {path: own/train.jsonl}                       # samples of ours need no format
stages:
  "2.temporal":
    - {of: {didemo: 1.0, own: 2.0}, samples: 50000}  # own twice an epoch; 50,000 of them all
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tpo_lab.datasets.formats import FORMATS, Reading, Source, format_named
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.sample import Sample, explain, iter_samples

_PRESETS = "tpo_lab.datasets.mixtures"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class DataSet(_Strict):
    """One data set: its files and how they are read.

    Attributes:
        path: the annotation file or folder, from the mixture's root.
        format: an official format; "" for samples as JSONL.
        media: the folder of its videos or images, from the root; "" as the format's layout says.
        split, variant, clip: as in `Source`.
        beside: files beside `path` that lie elsewhere, from the root; written `with`.
        as_video: shows each image for that many frames and asks to follow its box, see `as_video`, and leaves out samples without exactly
            one; 0 leaves images as they are.
    """

    path: str
    format: str = ""
    media: str = ""
    split: str = ""
    variant: str = ""
    clip: bool = False
    beside: dict[str, str] = Field(default_factory=dict, alias="with")
    as_video: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_names(self) -> DataSet:
        if self.format and self.format not in FORMATS:
            raise PydanticCustomError("format", f"one of {', '.join(FORMATS)}")
        known = FORMATS[self.format].variants if self.format else ()
        if self.variant and self.variant not in known:
            raise PydanticCustomError("variant", f"a variant of {self.format}: {', '.join(known) or 'it has none'}")
        return self


class Group(_Strict):
    """Some data sets together.

    Attributes:
        of: their names, each with how often an epoch visits it: 2 twice, 0.5 half of it, always the same half.
        samples: how many of all of these an epoch has; None for all.
    """

    of: dict[str, Annotated[float, Field(gt=0)]]
    samples: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _list_as_once_each(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("of"), list):
            return {**value, "of": dict.fromkeys(value["of"], 1.0)}
        return value


class Mixture(_Strict):
    """What the stages of a recipe train on.

    Attributes:
        name, source: of the mixture, for people.
        datasets: by name.
        stages: by the stage's name, the groups that it trains on.
        root: the folder that all paths start from.
    """

    name: str
    source: str = ""
    datasets: dict[str, DataSet]
    stages: dict[str, list[Group]]
    root: Path = Path()

    @model_validator(mode="after")
    def _check_names(self) -> Mixture:
        for stage, groups in self.stages.items():
            for place, group in enumerate(groups):
                for name in group.of:
                    if name not in self.datasets:
                        raise PydanticCustomError("dataset", f"stages.{stage}[{place}].of: one of {', '.join(self.datasets)}, not {name}")
        return self

    def names(self, stage: str = "") -> list[str]:
        """The data sets of a stage; of all stages for ""."""
        chosen = [stage] if stage else list(self.stages)
        return list(dict.fromkeys(name for each in chosen for group in self._groups(each) for name in group.of))

    def missing(self, stage: str = "") -> list[Missing]:
        """The files and folders of a stage's data sets that are not there."""
        found = []
        for name in self.names(stage):
            entry = self.datasets[name]
            wanted = [("path", entry.path), *((f"with.{key}", path) for key, path in entry.beside.items())]
            wanted += [("media", entry.media)] if entry.media else []
            found += [Missing(name, what, self.root / path) for what, path in wanted if not (self.root / path).exists()]
        return found

    def require(self, stage: str = "") -> None:
        """Raises `UsageError` where a file of the stage is missing; all are named, with what belongs there."""
        missing = self.missing(stage)
        if missing:
            listed = "; ".join(f"{each.path} ({each.dataset}, {each.what})" for each in missing)
            hint = "`tpo-lab data formats NAME` says what belongs there and whose it is; --root DIR looks under another folder."
            raise UsageError(f"mixture {self.name}", expected="all of its files", got=f"{len(missing)} missing: {listed}", hint=hint)

    def samples(self, stage: str, *, seed: int = 0, progress: Callable[[str, int], None] | None = None) -> list[Sample]:
        """The samples of one epoch of a stage.

        Args:
            stage: its name.
            seed: of what is chosen where not everything is taken.
            progress: hears the data set's name and how many of its records were read.
        """
        made: list[Sample] = []
        for group in self._groups(stage):
            visits = (visit for name, times in group.of.items() for visit in self._visits(name, times, seed, progress))
            if group.samples is None:
                made += [sample for _, sample in visits]
            else:
                # the smallest hashes are a sample that no order of the files changes, in the memory of what is kept
                made += [
                    sample for _, _, sample in heapq.nsmallest(group.samples, ((key, n, each) for n, (key, each) in enumerate(visits)))
                ]
        return made

    def _groups(self, stage: str) -> Sequence[Group]:
        if stage not in self.stages:
            raise unknown_name(f"stage of mixture {self.name}", stage, self.stages)
        return self.stages[stage]

    def _visits(self, name: str, times: float, seed: int, progress: Callable[[str, int], None] | None) -> Iterator[tuple[int, Sample]]:
        """Every sample of a data set as often as an epoch visits it, with a number that says in which order they are chosen."""
        whole, part = int(times), times - int(times)
        for sample in self.read(name, progress=progress):
            for visit in range(whole + 1):
                key = _hashed(f"{seed}|{name}|{visit}|{sample.id}")
                if visit < whole or key < part * _HASHES:
                    yield key, sample if not visit else sample.model_copy(update={"id": f"{sample.id}#{visit + 1}"})

    def read(self, name: str, *, progress: Callable[[str, int], None] | None = None) -> Iterator[Sample]:
        """The samples of one data set, one at a time."""
        entry = self.datasets[name]
        if not entry.format:
            found: Iterator[Sample] = iter_samples(self.root / entry.path)
        else:
            source = Source(
                self.root / entry.path,
                media=self.root / entry.media if entry.media else None,
                split=entry.split,
                variant=entry.variant or (format_named(entry.format).variants or ("",))[0],
                clip=entry.clip,
                side={key: self.root / path for key, path in entry.beside.items()},
            )
            heard = None if progress is None else lambda count: progress(name, count)
            found = iter(Reading(format_named(entry.format), source, on_record=heard))
        return _expanded(found, entry.as_video) if entry.as_video else found


@dataclass(frozen=True)
class Missing:
    """A file or folder that a mixture names and that is not there: of which data set, which of its settings, where."""

    dataset: str
    what: str
    path: Path


def _expanded(samples: Iterable[Sample], count: int) -> Iterator[Sample]:
    from tpo_lab.datasets.formats.expanded import as_video

    for sample in samples:
        with contextlib.suppress(UsageError):
            yield as_video(sample, count)


_HASHES = 1 << 64


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def presets() -> list[str]:
    """The names of the mixtures that are shipped."""
    return sorted(file.name.removesuffix(".yaml") for file in resources.files(_PRESETS).iterdir() if file.name.endswith(".yaml"))


def is_mixture(name: str) -> bool:
    """Whether a word names a mixture: a YAML file, or a preset."""
    return name.endswith((".yaml", ".yml")) or (name in presets() and not Path(name).exists())


def mixture(name: str | Path, *, root: Path | None = None) -> Mixture:
    """A mixture from a YAML file, or a preset by its name.

    Args:
        name: the file or the preset.
        root: where its files lie; by default beside the YAML file, and for presets the current folder.

    Raises:
        UsageError: no such file or preset, or a setting that is wrong; the message names it.
    """
    import yaml

    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError("mixture", expected="an existing YAML file", got=str(path))
        text, where = path.read_bytes(), root or path.parent
    else:
        if str(name) not in presets():
            raise unknown_name("mixture", str(name), presets())
        text, where = (resources.files(_PRESETS) / f"{name}.yaml").read_bytes(), root or Path()
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(str(name), expected="YAML in UTF-8", got=" ".join(str(error).split())[:200]) from None
    if not isinstance(document, dict):
        raise UsageError(str(name), expected="a mapping with name, datasets and stages", got=document)
    try:
        return Mixture.model_validate({**document, "root": where})
    except ValidationError as error:
        first = next(iter(explain(error)))
        raise UsageError(f"{name}, {first.field}" if first.field else str(name), expected=first.message, got=first.value) from None
