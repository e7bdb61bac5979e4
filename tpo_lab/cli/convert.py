"""`tpo-lab data convert` and `data formats`: official annotation files as samples, and predictions as official submissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.screen import Bars, plain, table
from tpo_lab.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from tpo_lab.datasets.formats import Dropped, Format, Source
    from tpo_lab.datasets.mixture import Mixture

CONVERT = """
tpo-lab data convert qvhighlights highlight_train_release.jsonl --media videos --split train --out qvh.jsonl
tpo-lab data convert refcoco refcoco --split testA --with images=coco/instances.json --out refcoco.jsonl
tpo-lab data convert qvhighlights answers.jsonl --back --out submission.jsonl
"""
FORMATS = """
tpo-lab data formats
tpo-lab data formats lasot
"""

group = typer.Typer()

MIXTURE = """
tpo-lab data mixture paper --root /data/video
tpo-lab data mixture mine.yaml --stage 2.temporal --out mixed
"""

MediaFolder = Annotated[Path | None, typer.Option(metavar="DIR", help="Where videos or images lie. Default: as the layout says.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="Which split; written into every sample.")]
Variant = Annotated[str, typer.Option(metavar="NAME", help="What may be read differently; `data formats NAME` lists it.")]
Clip = Annotated[bool, typer.Option("--clip", help="Cut windows at the end of their video.")]
With = Annotated[list[str], typer.Option("--with", metavar="NAME=PATH", help="A file beside SRC that lies elsewhere; repeatable.")]
DropsTo = Annotated[Path | None, typer.Option(metavar="FILE", help="List records that break a rule there, a JSON object a line.")]
MaxDropped = Annotated[str, typer.Option(metavar="N|P%", help="Fail (exit status 1) where more records break a rule.")]


@command(group, "convert", example=CONVERT)
def convert(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="For example qvhighlights; `tpo-lab data formats` lists all.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The annotation file, or the data set's folder.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The samples as JSONL; with --back the submission, a file or a folder.")],
    media: MediaFolder = None,
    split: Split = "",
    variant: Variant = "",
    clip: Clip = False,
    with_: With = [],
    dropped: DropsTo = None,
    max_dropped: MaxDropped = "",
    raw: Annotated[bool, typer.Option("--raw/--no-raw", help="Keep each raw record in meta.raw; --back needs it.")] = True,
    back: Annotated[bool, typer.Option("--back", help="SRC holds predictions as samples: write the official submission.")] = False,
) -> Result:
    """Turn official annotation files into samples, or samples with predictions into an official submission."""
    from tpo_lab.datasets.conversion import Limit, converted, submitted
    from tpo_lab.datasets.formats import format_named

    chosen = format_named(form)
    if back:
        with Bars() as bars:
            count = submitted(chosen, source, out, progress=lambda done: bars.count("predictions", done))
        return Result({"format": form, "file": str(out), "predictions": count}, f"{count} predictions: {out}")
    where = source_of(chosen, source, media=media, split=split, variant=variant, clip=clip, sides=with_)
    with Bars() as bars:
        counts, first = converted(
            chosen,
            where,
            out,
            dropped=dropped,
            limit=Limit(max_dropped),
            keep_raw=raw,
            progress=lambda done: bars.count("records", done),
        )
    document = {"format": form, "file": str(out), "split": split, "variant": where.variant, **counts, "first_dropped": shown(first)}
    return Result(document, f"{summary(counts, first, dropped)}\n{counts['samples']} samples: {out}")


@command(group, "formats", example=FORMATS)
def formats(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One format; all if left out.")] = "",
) -> Result:
    """List the official formats: data sets, layouts, splits, variants, homes and licences."""
    from tpo_lab.datasets.formats import FORMATS, format_named

    if not name:
        rows = [(each.name, each.title, ", ".join(each.tasks), "yes" if each.write else "") for each in FORMATS.values()]
        listed = table(("format", "data sets", "asks for", "submission"), rows)
        return Result({"formats": [about(each) for each in FORMATS.values()]}, listed)
    chosen = format_named(name)
    facts = [(key, ", ".join(value) if isinstance(value, list) else str(value)) for key, value in about(chosen).items() if value != []]
    return Result(about(chosen), table(("", ""), facts))


@command(group, "mixture", example=MIXTURE)
def mixture(
    name: Annotated[str, typer.Argument(metavar="MIXTURE", help="A YAML file, or paper: the data sets of the paper's Table 17.")],
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Where its files lie. Default: beside the YAML file, else here.")] = None,
    stage: Annotated[str, typer.Option(metavar="NAME", help="One stage; all if left out.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the samples of each stage to DIR/STAGE.jsonl.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of what is chosen where not everything is taken.")] = 0,
) -> Result:
    """Say which files of a mixture are there and which are missing (exit status 1); with --out, write its samples."""
    from tpo_lab.datasets import mixture as mixtures

    chosen = mixtures.mixture(name, root=root)
    names, missing = chosen.names(stage), chosen.missing(stage)
    absent = {each.dataset for each in missing}
    stages = [stage] if stage else list(chosen.stages)
    rows = [_row(chosen, each, stages, each in absent) for each in names]
    document: dict[str, Any] = {
        "mixture": chosen.name,
        "root": str(chosen.root),
        "datasets": rows,
        "missing": [{"dataset": each.dataset, "what": each.what, "path": str(each.path)} for each in missing],
    }
    if out is not None:
        for each in stages:
            chosen.require(each)
        document["files"] = {each: _write_stage(chosen, each, out / f"{each}.jsonl", seed) for each in stages}
    view = table(("data set", "format", "file or folder", "there", "stages"), [tuple(map(str, row.values())) for row in rows])
    return Result(document, _found(view, document), 1 if missing else 0)


def _row(chosen: Mixture, name: str, stages: Sequence[str], is_absent: bool) -> dict[str, str]:
    entry = chosen.datasets[name]
    return {
        "name": name,
        "format": entry.format or "samples",
        "path": str(chosen.root / entry.path),
        "there": "no" if is_absent else "yes",
        "stages": ", ".join(stage for stage in stages if name in chosen.names(stage)),
    }


def _write_stage(chosen: Mixture, stage: str, path: Path, seed: int) -> dict[str, Any]:
    from tpo_lab.sample import write

    with Bars() as bars:
        samples = chosen.samples(stage, seed=seed, progress=bars.count)
    return {"file": str(path), "samples": write(path, samples)}


def _found(view: Any, document: Mapping[str, Any]) -> Any:
    from rich.console import Group

    lines = [f"missing: {each['path']} ({each['dataset']}, {each['what']})" for each in document["missing"]]
    lines += [f"stage {stage}: {found['samples']} samples: {found['file']}" for stage, found in document.get("files", {}).items()]
    return Group(view, *lines)


def about(form: Format) -> dict[str, Any]:
    """What a person wants to know of a format, JSON-ready."""
    return {
        "name": form.name,
        "title": form.title,
        "asks_for": list(form.tasks),
        "layout": form.layout,
        "splits": list(form.splits),
        "variants": list(form.variants),
        "with": list(form.sides),
        "submission": form.write is not None,
        "home": form.home,
        "licence": form.licence,
    }


def source_of(form: Format, path: Path, *, media: Path | None, split: str, variant: str, clip: bool, sides: Sequence[str]) -> Source:
    """The source that a call names.

    Raises:
        UsageError: there is no such file, or the format knows no such split, variant or side file.
    """
    from tpo_lab.datasets.formats import Source

    if not path.exists():
        raise UsageError("SRC", expected="an existing file or folder", got=str(path))
    if media is not None and not media.is_dir():
        raise UsageError("--media", expected="an existing folder", got=str(media))
    if variant and variant not in form.variants:
        if not form.variants:
            raise UsageError("--variant", expected=f"none: {form.name} has no variants", got=variant)
        raise unknown_name("--variant", variant, form.variants)
    if form.splits and split and split not in form.splits:
        raise unknown_name("--split", split, form.splits)
    named = _named(form, sides)
    return Source(path, media=media, split=split, variant=variant or (form.variants or ("",))[0], clip=clip, side=named)


def _named(form: Format, sides: Sequence[str]) -> Mapping[str, Path]:
    found = {}
    for side in sides:
        name, equals, path = side.partition("=")
        if not (name and equals and path):
            raise UsageError("--with", expected="NAME=PATH", got=side)
        if name not in form.sides:
            if not form.sides:
                raise UsageError("--with", expected=f"none: {form.name} is read from SRC alone", got=name)
            raise unknown_name("--with", name, form.sides)
        found[name] = Path(path)
    return found


def summary(counts: Mapping[str, Any], first: Sequence[Dropped], listed: Path | None) -> str:
    """What was read and what was not, as a person reads it."""
    lines = [str(each) for each in first]
    if counts["dropped"] > len(first):
        lines.append(f"... and {counts['dropped'] - len(first)} more" + (f", all in {listed}" if listed else "; --dropped FILE lists all"))
    lines += [f"{what}: {count}" for what, count in counts["adjusted"].items()]
    rules = ", ".join(f"{rule} {count}" for rule, count in counts["dropped_by_rule"].items())
    lines.append(f"{counts['records']} records, {counts['dropped']} dropped" + (f" ({rules})" if rules else ""))
    return "\n".join(lines)


def shown(first: Sequence[Dropped]) -> list[dict[str, Any]]:
    """Dropped records, JSON-ready."""
    return [{**vars(each), "value": plain(each.value)} for each in first]
