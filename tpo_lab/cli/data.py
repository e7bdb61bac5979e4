"""`tpo-lab data`: make samples of the synthetic world, check annotation files, look at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo_lab.cli.command import Result, command
from tpo_lab.cli.screen import Bars, plain, table

if TYPE_CHECKING:
    from rich.table import Table

    from tpo_lab.datasets.conversion import Checked, DropFile
    from tpo_lab.sample import Sample

SYNTH = """
tpo-lab data synth --out data/world --samples 200 --seed 0
tpo-lab data synth --out data/hard --samples 50 --level hard --tasks region,temporal
"""
VALIDATE = """
tpo-lab data validate train.jsonl --media
tpo-lab data validate charades_sta_train.txt --format charades-sta --dropped dropped.jsonl --max-dropped 1%
"""
SHOW = """
tpo-lab data show data/world/train.jsonl
tpo-lab data show data/world/train.jsonl --out sheet.png --limit 12
tpo-lab data show data/world/train.jsonl --stats
"""
File = Annotated[Path, typer.Argument(metavar="FILE", help="Samples as JSONL.")]

group = typer.Typer(help="Make, check and look at samples.")


@command(group, "synth", example=SYNTH)
def synth(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder, or one made by this command.")],
    samples: Annotated[int, typer.Option(metavar="N", help="How many samples.")],
    seed: Annotated[int, typer.Option(metavar="N", help="Of the world.")] = 0,
    split: Annotated[str, typer.Option(metavar="train|val|test|compositions", help="Splits share nothing.")] = "train",
    level: Annotated[
        str, typer.Option(metavar="easy|standard|hard|growing", help="How crowded and how lively the clips are.")
    ] = "standard",
    tasks: Annotated[str, typer.Option(metavar="TASK,...", help="Of conversation, region, temporal, mask, track; all if left out.")] = "",
    processes: Annotated[int, typer.Option(metavar="N", min=1, help="How many render; the files do not depend on it.")] = 1,
) -> Result:
    """Make clips of the synthetic world, with questions and exact answers."""
    from tpo_lab.datasets.world.samples import TASKS
    from tpo_lab.datasets.world.synth import synthesise

    chosen = tuple(task.strip() for task in tasks.split(",")) if tasks else TASKS
    with Bars() as bars:
        file = synthesise(
            out,
            samples=samples,
            seed=seed,
            split=split,
            level=level,
            tasks=chosen,
            processes=processes,
            progress=lambda done, total: bars.move("samples", done, total),
        )
    document = {"file": str(file), "samples": samples, "seed": seed, "split": split, "level": level, "tasks": chosen}
    return Result(document, f"{samples} samples: {file}")


@command(group, "validate", example=VALIDATE)
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Samples as JSONL; with --format official files.")],
    media: Annotated[bool, typer.Option("--media", help="Also open the media files: sizes, times.")] = False,
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="FILE is in this official format.")] = "",
    dropped: Annotated[Path | None, typer.Option(metavar="FILE", help="List every broken rule there, a JSON object a line.")] = None,
    max_dropped: Annotated[str, typer.Option(metavar="N|P%", help="How many bad records are no failure.")] = "0",
    split: Annotated[str, typer.Option(metavar="NAME", help="Of the official files.")] = "",
    variant: Annotated[str, typer.Option(metavar="NAME", help="Of the official format.")] = "",
    with_: Annotated[list[str], typer.Option("--with", metavar="NAME=PATH", help="A file beside FILE that lies elsewhere.")] = [],
) -> Result:
    """Check every record of a file; exit status 1 where there is a problem."""
    from tpo_lab.cli.convert import source_of
    from tpo_lab.datasets import conversion
    from tpo_lab.datasets.formats import format_named

    limit = conversion.Limit(max_dropped)
    with Bars() as bars, conversion.DropFile(dropped) as drops:
        if form:
            source = source_of(format_named(form), file, media=None, split=split, variant=variant, clip=False, sides=with_)
            records = conversion.check_source(format_named(form), source, drops, media=media, progress=lambda n: bars.count("records", n))
        else:
            records = conversion.check_samples(file, drops, media=media, progress=lambda n: bars.count("records", n))
    failed = limit.exceeded(records.bad, records.read)
    document = {
        "file": str(file),
        "valid": not records.bad,
        "records": records.read,
        "samples": records.read - records.bad,
        "bad_records": records.bad,
        "by_rule": dict(sorted(drops.by_rule.items())),
        "problems": [{**vars(problem), "value": plain(problem.value)} for problem in drops.first],
    }
    return Result(document, _verdict(file, records, drops), 1 if failed else 0)


@command(group, "show", example=SHOW)
def show(
    file: File,
    out: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw a contact sheet with boxes and windows to this file.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many samples to show, from the first.")] = 20,
    stats: Annotated[bool, typer.Option("--stats", help="Print the datasheet of a file of the synthetic world.")] = False,
) -> Result:
    """Show samples: as a table, as a contact sheet, or in numbers."""
    from itertools import islice

    from rich.console import Group

    from tpo_lab.sample import iter_samples

    samples = list(islice(iter_samples(file), limit))
    document: dict[str, Any] = {"file": str(file), "samples": [sample.model_dump(mode="json") for sample in samples]}
    views: list[Any] = []
    if out is not None:
        from tpo_lab.cli.sheet import contact_sheet

        out.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(samples).save(out)
        document["sheet"] = str(out)
        views.append(f"{len(samples)} samples drawn: {out}")
    if stats:
        from tpo_lab.datasets.world.datasheet import datasheet

        sheet = datasheet(iter_samples(file))
        document["stats"] = plain(vars(sheet))
        views.append(sheet.render())
    return Result(document, Group(*(views or [_listed(samples)])))


def _verdict(file: Path, records: Checked, drops: DropFile) -> str:
    """A line for each problem, as compilers write them, so that editors and grep find their way; then their number."""
    if not records.bad:
        return f"{file}: {records.read} samples, no problem"
    lines = [str(problem) for problem in drops.first]
    if drops.count > len(lines):
        rest = f"all in {drops.path}" if drops.path else "--dropped FILE lists all"
        lines.append(f"... and {drops.count - len(lines)} more; {rest}")
    rules = ", ".join(f"{rule} {count}" for rule, count in sorted(drops.by_rule.items()))
    return "\n".join([*lines, f"{drops.count} problems in {records.bad} of {records.read} records: {rules}"])


def _listed(samples: list[Sample]) -> Table:
    rows = []
    for sample in samples:
        question, answer = (next((t.text for t in reversed(sample.conversation) if t.role == role), "") for role in ("user", "assistant"))
        rows.append((sample.id, str(sample.meta.get("task", "")), sample.media.path, question, answer, ", ".join(sample.targets.names)))
    return table(("id", "task", "media", "question", "answer", "targets"), rows)
