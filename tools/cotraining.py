"""What the mask head gives the region head, or takes from it: joint training with and without it, paired by test sample.

    python tools/cotraining.py runs/demo0 runs/demo1 runs/demo2 --out data/evidence

Takes folders that `tpo-lab demo --seed S --out runs/demoS` has finished. From each one's checkpoint before the mask head, the joint stages
are trained once more, as long and at the same rates, without questions to the mask head. What is compared is the region head's Acc@0.5 on
the demo's test split, answered as the model routes. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import tpo_lab as tpo
from tpo_lab import records as of
from tpo_lab.metrics import Interval, over_seeds, paired_difference
from tpo_lab.recipes import Recipe
from tpo_lab.runs import environment, write_json

STAGES = ("3a", "3b")
BEFORE, JOINT = Path("21_temporal_head/run/2.temporal/checkpoint"), Path("40_joint_training/run/3b/checkpoint")


def main() -> None:
    """Train, evaluate, and write cotraining.json and cotraining.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", metavar="DEMO", help="folders of finished demos, one per seed")
    parser.add_argument("--out", type=Path, default=Path("data/evidence"), help="folder of the table")
    arguments = parser.parse_args()
    for demo in arguments.demos:
        if not (demo / JOINT).is_dir():
            parser.error(f"{demo}: expected a finished demo, with {JOINT}")
    rows = [compared(demo) for demo in arguments.demos]
    document = {"rows": rows, "environment": environment()}
    if len(rows) > 1:
        apart = over_seeds([row["difference"]["estimate"] for row in rows])
        document["over_seeds"] = _plain(apart)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "cotraining.json", document)
    (arguments.out / "cotraining.md").write_text(table(document), encoding="utf-8")
    print(table(document))


def compared(demo: Path) -> dict[str, Any]:
    """Region Acc@0.5 of one demo with and without the mask head, on the same samples."""
    settings = json.loads((demo / "settings.json").read_text())
    recipe = without_masks(tpo.recipe(settings["recipe"]))
    trained = tpo.load(demo / BEFORE)
    train = tpo.read(demo / "data/train.jsonl")
    for stage in STAGES:
        options = tpo.TrainingOptions(seed=settings["seed"])
        tpo.fit(trained, train, recipe, demo / "without_masks" / stage, stage=stage, resume=True, options=options)
    samples = [sample for sample in tpo.read(demo / "data/test.jsonl") if sample.targets.region]
    hits = {}
    for name, model in (("with", tpo.load(demo / JOINT)), ("without", trained)):
        found = [record for record in tpo.evaluate(model, samples).records if of.has_box(record)]
        hits[name] = {record.id: float(iou >= 0.5) for record, iou in zip(found, of.box_ious(found, of.ROUTED), strict=True)}
    shared = sorted(hits["with"])
    values = {name: np.array([hit[sample] for sample in shared]) for name, hit in hits.items()}
    return {
        "seed": settings["seed"],
        "boxes": len(shared),
        **{name: float(each.mean()) for name, each in values.items()},
        "difference": _plain(paired_difference(values["with"], values["without"])),
    }


def without_masks(recipe: Recipe) -> Recipe:
    """The recipe whose joint stages ask the mask head nothing."""
    stages = []
    for stage in recipe.stages:
        data, losses = ({name: weight for name, weight in weights.items() if name != "mask"} for weights in (stage.data, stage.losses))
        stages.append(replace(stage, data=data, losses=losses) if stage.name in STAGES else stage)
    return replace(recipe, stages=tuple(stages))


def table(document: dict[str, Any]) -> str:
    """The rows as markdown."""
    lines = [
        "# Does the mask head help the region head?",
        "",
        "Region Acc@0.5, routed, on the demo's test split, after joint training with and without the mask head: the same steps and rates.",
        "The run with it has had the mask head's own stage before. Intervals: 95 percent, a bootstrap paired by sample; over seeds",
        "Student's t.",
        "",
        "| seed | boxes | with | without | with - without |",
        "|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        lines.append(f"| {row['seed']} | {row['boxes']} | {row['with']:.3f} | {row['without']:.3f} | {_written(row['difference'])} |")
    if "over_seeds" in document:
        lines.append(f"| all | | | | {_written(document['over_seeds'])} |")
    return "\n".join([*lines, "", "Made by", "", "```", (__doc__ or "").split("\n")[2].strip(), "```", ""])


def _plain(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def _written(interval: dict[str, float]) -> str:
    return f"{interval['estimate']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


if __name__ == "__main__":
    main()
