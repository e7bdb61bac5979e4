"""`tpo-lab pretrain`: how the shipped nano backbone and nano SAM2 were made, from nothing, on the synthetic world."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tpo_lab.cli.command import Result, Stopped, command
from tpo_lab.cli.screen import Bars, say

EXAMPLE = "tpo-lab pretrain nano --out runs/nano --threads 4"

group = typer.Typer(help="Make a backbone, or a tracker.")


@command(group, "nano", example=EXAMPLE)
def nano(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the states, the metrics and, at the end, nano/ go.")],
    steps_tower: Annotated[int | None, typer.Option(metavar="N", min=1, help="Steps of the vision tower alone.")] = None,
    steps_language: Annotated[int | None, typer.Option(metavar="N", min=1, help="Steps of the whole on words.")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
) -> Result:
    """Pretrain the nano backbone: its vision tower first, then the whole on captions and questions.

    Called again with the same folder, it goes on from the last saved state.
    """
    import torch

    from tpo_lab.backbones.nano import PATCH, new_nano
    from tpo_lab.pretraining.language import LanguagePretraining, pretrain_language
    from tpo_lab.pretraining.tower import TowerPretraining, pretrain_tower

    if threads is not None:
        torch.set_num_threads(threads)
    tower, language = TowerPretraining(), LanguagePretraining()
    if steps_tower is not None:
        tower = dataclasses.replace(tower, steps=steps_tower)
    if steps_language is not None:
        language = language.shortened(steps_language)
    torch.manual_seed(language.seed)
    backbone = new_nano()
    try:
        say(f"the vision tower, {tower.steps} steps; progress in {out / 'tower' / 'metrics.jsonl'}")
        accuracies = pretrain_tower(backbone.model.model.vision_tower, tower, patch=PATCH, out=out / "tower")
        say(f"the whole model, {language.steps} steps; progress in {out / 'language' / 'metrics.jsonl'}")
        pretrain_language(backbone, language, out=out / "language")
    except KeyboardInterrupt:
        raise Stopped(f"Interrupted. The same command goes on from the last state in {out}.") from None
    backbone.save(out / "nano")
    document = {"backbone": str(out / "nano"), "steps": {"tower": tower.steps, "language": language.steps}, "tower_accuracies": accuracies}
    return Result(document, f"The backbone is in {out / 'nano'}; use it with: tpo-lab train --backbone {out / 'nano'}")


@command(group, "tracker", example="tpo-lab pretrain tracker --out runs/nano-sam2 --threads 2")
def tracker(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the state, the metrics and, at the end, nano-sam2/ go.")],
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Training steps, in one round; else in two.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the weights and of the clips.")] = 0,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads.")] = None,
) -> Result:
    """Pretrain the nano SAM2: it follows what boxes and points mean, and knows no words.

    Called again with the same folder, it goes on from the last saved state.
    """
    import torch

    from tpo_lab.pretraining.tracker import FIRST, TrackerPretraining, pretrain_tracker
    from tpo_lab.sam2 import nano_config, untrained

    if threads is not None:
        torch.set_num_threads(threads)
    settings = TrackerPretraining(seed=seed)
    if steps is not None:
        settings = dataclasses.replace(settings, rounds=(dataclasses.replace(FIRST, steps=steps),))
    torch.manual_seed(seed)
    sam = untrained(nano_config())
    try:
        say(f"the tracker, {settings.steps} steps; measures in {out / 'metrics.jsonl'}")
        with Bars() as bars:
            scores = pretrain_tracker(sam, settings, out=out, progress=lambda *done: bars.move("tracker", *done))
    except KeyboardInterrupt:
        raise Stopped(f"Interrupted. The same command goes on from the last state in {out}.") from None
    # half precision halves what is shipped; what is loaded computes in single precision all the same
    for parameter in sam.parameters():
        parameter.data = parameter.data.half()
    sam.save_pretrained(out / "nano-sam2")
    document = {"sam": str(out / "nano-sam2"), "settings": dataclasses.asdict(settings), "scores": scores}
    return Result(document, f"The tracker is in {out / 'nano-sam2'}; use it as the mask head's setting sam.")
