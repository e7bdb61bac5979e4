"""The released run's recipe: what its stored arguments and its code say."""

from __future__ import annotations

import dataclasses

from tpo_lab.recipes.base import Recipe
from tpo_lab.recipes.paper import paper
from tpo_lab.stages import Lora, Stage, Switches

RATE = 2e-5


def official() -> Recipe:
    """The stages of the paper with the arguments stored beside the released weights.

    Those arguments belong to one run, the last. What the earlier stages had was not published: here every stage has the last one's.
    Differs in: LoRA on the output layer does not reach the new rows, which live in their own table; their output half trains instead.
    """
    reported = paper()
    return dataclasses.replace(
        reported,
        name="official",
        stages=tuple(_as_released(stage) for stage in reported.stages),
        lora=Lora(dropout=0.1, lm_head=True),
        switches=Switches(
            train_rows="output",
            assign_loss="inside_mlm",
            region_loss="official",
            mask_loss="official",
            mask_adapter_layers=2,
            mask_prompt_encoder="kept",
            prompts="box",
            saliency_weight=4.0,
            tracking_prompt="sam2",
            temporal_features="internvideo2-1b",
            normalise_features="training",
        ),
        description="What the released weights were trained with in their last run, on the paper's stages.",
        source="training_args.bin of the released weights (run of 2024-11-02); code of 2025-01-02",
    )


def _as_released(stage: Stage) -> Stage:
    losses = dict(stage.losses)
    if "temporal" in losses:
        losses["temporal"] = 0.05
    return dataclasses.replace(
        stage,
        learning_rates=dict.fromkeys(stage.learning_rates, RATE),
        losses=losses,
        epochs=1,
        batch_size=128,
        warmup_ratio=0.0,
        min_lr_ratio=0.05,
        weight_decay=0.02,
        grad_clip=1.0,
        betas=(0.9, 0.999),
        eps=1e-5,
    )
