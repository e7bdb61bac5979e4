"""The laptop's recipe: the paper's stages at a size that a CPU finishes in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tpo_lab.recipes.base import Recipe
from tpo_lab.stages import ALL_TASKS, ASSIGNMENT, CONVERSATION, LORA, WITH_CONVERSATION, CurriculumPart, Lora, Stage, Switches, head_stage

LORA_RATE = 2e-3
JOINT_LORA_RATE = 1e-3
HEAD_RATE = 2e-3
TOKEN_RATE = 2e-3
JOINT_TEMPORAL_RATE = 5e-4
"""Of the temporal head and its token once all tasks are trained together: at the others' rate, few clips a step undo what it learned."""
VISION_RATES = {"vision.*": 1e-4, "connector.*": 2e-4}
HEADS = ("temporal", "mask", "region")
GROWING = tuple(CurriculumPart(until=until, difficulty=things) for until, things in ((0.1, 1), (0.3, 2), (0.5, 3)))
"""Clips of one thing at first: with several from the start, the region head learns to point at any of them and stays there."""
SALIENCY_WEIGHT = 0.2
"""At 1, the first steps' gradient of the saliency terms is fifty times that of the glance, and AdamW remembers it for the whole stage."""
CROWDED = 2
"""Fewest things in the clips of the joint stages, as in those that are evaluated: with one thing, questions tell their answers."""
POINTING = {"tokens.task.temporal": "tokens.task.region"} | {
    f"heads.temporal.{part}.*": f"heads.region.{part}.*" for part in ("where", "what")
}
"""Which thing a question means is learned by the region head, from boxes; the temporal head, which has none, starts from there."""
OUTLINING = {"tokens.task.mask": "tokens.task.region"} | {
    f"heads.mask.adapter.{part}.*": f"heads.region.{part}.*" for part in ("where", "what", "when", "mlp", "asked")
}
"""And the mask head, which prompts SAM2 with the box at the patch pointed at."""
LEARNING = {"mask": "heads.mask.adapter.*"}
"""What of a head learns, where that is not all of it."""

_stage = partial(
    Stage,
    batch_size=8,
    max_questions=8,
    warmup_ratio=0.1,
    min_lr_ratio=0.05,
    weight_decay=0.02,
    grad_clip=1.0,
    precision="fp32",
)


def nano() -> Recipe:
    """Few steps at high rates, for a small backbone pretrained on the synthetic world.

    Differs in: rates and lengths; stage 3b leaves the vision side as 3a made it, whose features it then keeps, so that its steps take
    half the time; the region head learns by a curriculum over the number of things, and points at a patch and reads the box there,
    since nano's pretraining showed it no places finer than words; the temporal head's stage moves LoRA half as fast, so as not to
    undo what the region head's has taught, and sees more clips a step with fewer questions about each, since moments of one clip say
    much the same; the joint stages see no clips of a single thing, which training has for the region head's curriculum and evaluation has
    not; the mask head points, and its stage sees more clips with fewer questions too; every head's stage trains the prompt encoders,
    since all of the world's tasks point at things, and boxes are drawn, not told by their numbers; what is pointed at enters beside the
    task token as well; the temporal head sees the backbone's own features.
    """
    return Recipe(
        name="nano",
        stages=(
            _stage(
                name=ASSIGNMENT,
                title="task assignment: the language model learns which task is asked",
                learning_rates={LORA: LORA_RATE},
                data=dict.fromkeys(HEADS, 1.0),
                losses={"mlm": 1.0, "assign": 1.0},
                steps=40,
            ),
            _one_head("temporal", steps=200, lora_rate=JOINT_LORA_RATE, starts_from=POINTING, batch_size=16, max_questions=3),
            _one_head("mask", steps=150, lora_rate=JOINT_LORA_RATE, starts_from=OUTLINING, batch_size=16, max_questions=3),
            _one_head("region", steps=420, curriculum=GROWING),
            _joint(ALL_TASKS, "all tasks together", {**dict.fromkeys(HEADS, 1.0), "region": 2.0}, steps=20, more=VISION_RATES),
            _joint(
                WITH_CONVERSATION,
                "all tasks and conversation",
                {"temporal": 4.0, "mask": 2.0, "region": 3.0, CONVERSATION: 5.0},
                steps=1200,
            ),
        ),
        lora=Lora(rank=16, alpha=32.0, dropout=0.0),
        switches=Switches(
            region_loss="official",
            region_head="dense",
            temporal_head="cg-detr-pointing",
            mask_head="sam2-pointing",
            prompts="drawn",
            task_input="token+prompts",
            temporal_size="nano",
            temporal_features="backbone",
            saliency_weight=SALIENCY_WEIGHT,
        ),
        frames=8,
        resolution=64,
        description="Offline on a CPU, on the synthetic world.",
        source="chosen for the nano backbone",
    )


def nano_long() -> Recipe:
    """As `nano`, with three to ten times its steps: for `tpo-lab demo --long`, which makes the shipped "nano-tpo"."""
    lengths = {"1": 100, "2.temporal": 600, "2.mask": 2000, "2.region": 4500, "3a": 100, "3b": 2500}
    return nano().replace(
        name="nano-long",
        description="Offline on a CPU, on the synthetic world, for hours.",
        **{f"{stage}.steps": steps for stage, steps in lengths.items()},
    )


def _one_head(
    head: str,
    *,
    steps: int,
    lora_rate: float = LORA_RATE,
    curriculum: tuple[CurriculumPart, ...] = (),
    starts_from: Mapping[str, str] | None = None,
    batch_size: int = 8,
    max_questions: int = 8,
) -> Stage:
    return _stage(
        name=head_stage(head),
        title=f"the {head} head and its task token",
        learning_rates={LORA: lora_rate, _learning(head): HEAD_RATE, f"tokens.task.{head}": TOKEN_RATE, "prompts.*": HEAD_RATE},
        data={head: 1.0},
        losses={"mlm": 1.0, "assign": 1.0, head: 1.0},
        steps=steps,
        curriculum=curriculum,
        starts_from=starts_from or {},
        batch_size=batch_size,
        max_questions=max_questions,
    )


def _learning(head: str) -> str:
    return LEARNING.get(head, f"heads.{head}.*")


def _joint(name: str, title: str, data: Mapping[str, float], *, steps: int, more: Mapping[str, float] | None = None) -> Stage:
    heads = {_learning(head): HEAD_RATE for head in HEADS} | {"heads.temporal.*": JOINT_TEMPORAL_RATE}
    tokens = {f"tokens.task.{head}": TOKEN_RATE for head in HEADS} | {"tokens.task.temporal": JOINT_TEMPORAL_RATE}
    return _stage(
        name=name,
        title=title,
        learning_rates={**(more or {}), LORA: JOINT_LORA_RATE, **heads, **tokens, "prompts.*": HEAD_RATE},
        data=data,
        losses={"mlm": 1.0, "assign": 1.0, **dict.fromkeys(HEADS, 1.0)},
        steps=steps,
        easiest=CROWDED,
    )
