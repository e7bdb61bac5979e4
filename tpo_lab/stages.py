"""A stage as data: what is trained, how fast, on what, for how long; and the settings that stages share.

The only module that spells a stage's name. Recipes, the lists of stages, are in `tpo_lab.recipes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tpo_lab import knobs
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.knobs import Count, NonNegative, Positive, Share, ShareBelowOne

ASSIGNMENT = "1"
ALL_TASKS = "3a"
WITH_CONVERSATION = "3b"
WORDS = (ASSIGNMENT, "2", ALL_TASKS, WITH_CONVERSATION, "all")

CONVERSATION = "conversation"
TEXT_LOSSES = ("mlm", "assign")
LORA = "llm.lora.*"
NEW_ROWS = {"both": "tokens.rows.*", "output": "tokens.rows.output"}


def head_stage(head: str) -> str:
    """The name of the stage that trains one head with its token."""
    return f"2.{head}"


def selects(word: str, name: str) -> bool:
    """Whether the command line's word means the stage of that name: "2" means every head's stage, "all" every one."""
    return word in ("all", name, name.partition(".")[0])


def position(name: str) -> int:
    """Where a stage stands in the order of training; stages of single heads share one place."""
    return next(index for index, word in enumerate(WORDS) if selects(word, name))


@dataclass(frozen=True, kw_only=True)
class CurriculumPart:
    """The first part of a stage's steps, in which only easy samples are seen.

    Args:
        until: the share of the stage's steps at which the part ends.
        difficulty: samples whose `meta["difficulty"]` is higher wait; without one a sample is as easy as can be.
    """

    until: ShareBelowOne
    difficulty: NonNegative

    def __post_init__(self) -> None:
        knobs.check(self, "curriculum part")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training; whatever it does not name stays frozen.

    Args:
        name: "1", "2.<head>", "3a" or "3b".
        title: one line for people.
        learning_rates: parameter pattern (fnmatch over `named_parts()`) -> peak learning rate.
        data: task -> its share of the steps (or of each batch); a task is a head's name, or "conversation" for plain text.
        losses: term of Eq. 1 -> its weight; "mlm", "assign", or a task of `data`. A task without one is learnt as text only.
        epochs: passes over the data; exactly one of `epochs` and `steps` is given.
        steps: optimizer steps.
        batch_size: rows (clips) per optimizer step over all processes and accumulated micro-batches.
        max_questions: questions about the same clip that share one row.
        batching: one task per batch, or all tasks in every batch.
        curriculum: parts in order of time; after the last one every sample is seen. A part that the data has no samples for is left out.
        easiest: samples whose `meta["difficulty"]` is lower are left out, of each task that has harder ones; without one it is 0.
        starts_from: parameter (or part, ending in ".*") -> the one whose values it takes before the first step, so that a head's stage
            may begin with what an earlier one has learned. Pairs that a model lacks, or has in other shapes, are left alone, and
            training says so.
        schedule: how the rate falls after the warm-up.
        warmup_ratio: part of the steps in which the rate rises.
        min_lr_ratio: where the schedule ends, relative to the peak.
        weight_decay: AdamW's.
        decay_on: "matrices" spares biases, norms and tokens; "everything" does not.
        grad_clip: largest gradient norm; None does not clip.
        betas: AdamW's.
        eps: AdamW's.
        precision: of the forward and backward pass.

    Raises:
        UsageError: a value out of range, an unknown name, or names that contradict each other.

    Source: paper, section 3 and Table 16.
    """

    name: str
    title: str
    learning_rates: Mapping[str, Positive]
    data: Mapping[str, Positive]
    losses: Mapping[str, NonNegative]
    batch_size: Count
    epochs: Count | None = None
    steps: Count | None = None
    max_questions: Count = 1
    batching: Literal["homogeneous", "mixed"] = "homogeneous"
    curriculum: tuple[CurriculumPart, ...] = ()
    easiest: NonNegative = 0.0
    starts_from: Mapping[str, str] = field(default_factory=dict)
    schedule: Literal["cosine"] = "cosine"
    warmup_ratio: ShareBelowOne = 0.0
    min_lr_ratio: Share = 0.0
    weight_decay: NonNegative = 0.0
    decay_on: Literal["matrices", "everything"] = "matrices"
    grad_clip: Positive | None = None
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    eps: Positive = 1e-8
    precision: Literal["bf16", "fp32"] = "bf16"

    def __post_init__(self) -> None:
        label = f"stage {self.name!r}"
        knobs.check(self, label)
        if not self.learning_rates or not self.data:
            empty = "learning_rates" if not self.learning_rates else "data"
            raise UsageError(f"{label}: {empty}", expected="at least one entry", got={})
        names = (ASSIGNMENT, ALL_TASKS, WITH_CONVERSATION, *map(head_stage, self.heads))
        if self.name not in names:
            raise unknown_name("Stage.name", self.name, names)
        if (self.epochs is None) == (self.steps is None):
            raise UsageError(
                f"{label}: length", expected="exactly one of epochs and steps", got={"epochs": self.epochs, "steps": self.steps}
            )
        ends = [part.until for part in self.curriculum]
        if ends != sorted(set(ends)):
            raise UsageError(f"{label}: curriculum", expected="parts of which each ends later than the one before", got=ends)
        for target, source in self.starts_from.items():
            if target.endswith(".*") != source.endswith(".*"):
                raise UsageError(f"{label}: starts_from[{target!r}]", expected="two parameters, or two parts that end in .*", got=source)
        for term in self.losses:
            if term not in (*TEXT_LOSSES, *self.heads):
                raise unknown_name(f"{label}: losses", term, (*TEXT_LOSSES, *self.heads))

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that this stage's data asks for."""
        return tuple(task for task in self.data if task != CONVERSATION)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole stage on data that takes `steps_per_epoch` for one pass."""
        if self.steps is not None:
            return self.steps
        return steps_per_epoch * (self.epochs or 0)


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters of the language model.

    Args:
        rank: of each adapter.
        alpha: the update is scaled by alpha / rank.
        dropout: on the adapter's input, probability.
        targets: last names of the linear layers that get one.
        lm_head: whether the output layer gets one too, as in the released run.

    Source: paper, Table 16 (rank, alpha); the released weights (targets, dropout, lm_head).
    """

    rank: Count = 16
    alpha: Positive = 32.0
    dropout: ShareBelowOne = 0.1
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    lm_head: bool = False

    def __post_init__(self) -> None:
        knobs.check(self, "lora")
        if not self.targets:
            raise UsageError("lora: targets", expected="at least one linear layer", got=())


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What the paper, its tables and its released code say differently; the defaults are the paper's reading.

    Learning rates, batch sizes, epochs, warm-up, AdamW's eps and the weight 0.05 of the temporal loss differ as well: those are
    numbers of a stage. So the presets `paper`, `paper-text` and `official` hold them.

    Whether the slot after a route is a label of the text loss (the paper is silent, the released forward pass does not exempt it) is no
    switch: here a slot is a side branch that no later token sees and that the model never has to write, so it is never a word.

    Args:
        train_rows: which rows of the new tokens train wherever LoRA does. The released code leaves the input rows at the mean of the
            vocabulary for good and tells the output rows apart by lm_head's LoRA alone. Here the new rows live in their own table, which
            that LoRA does not reach: left at the mean ("none"), the route tokens have identical logits and no stage can teach the model to
            choose between them. "output" is the closest to the released code.
        assign_loss: Eq. 1's own cross-entropy over the route positions, or those positions as any others inside the text loss.
        region_loss: "paper" mean squared error; "official" 2 L1 + 0.2 (1 - GIoU).
        region_head: "mlp" reads the box off the task embedding alone, as published; "dense" lets it point at a patch and reads the box
            there, which a backbone that never saw a box in its pretraining needs.
        temporal_head: CG-DETR, the same on frames as seen where the task embedding points, or the two-layer MLP of Table 11.
        temporal_size: CG-DETR's published sizes, or sizes that a CPU trains in minutes.
        mask_head: "sam2" prompts SAM2 with what an MLP makes of the task embedding, as published; "sam2-pointing" lets it point at a patch
            and prompts with the box there.
        mask_sam: SAM2's weights: the shipped "nano-sam2", a folder, a hub id, or an official file.
        mask_loss: "paper" compares masks, through the frozen decoder; "official" imitates SAM2's embedding of the ground-truth box.
        mask_adapter_layers: the paper says "a single MLP layer" (section 3, appendix) and "two-layer MLP" (section 4); two were released.
        mask_prompt_encoder: whether SAM2's own prompt encoder still prompts the frames after the first.
        saliency_weight: of CG-DETR's saliency loss; 1 is its default, the released run has 4.
        prompts: what users may point with, and how the language model hears of it: "box" its numbers, as published; "box+stroke" points and
            scribbles beside it, drawn on a grid; "drawn" boxes too, which a small model learns in a fraction of the steps.
        task_input: what enters the language model at a task token: "token" alone, as published, or "token+prompts", with the mean of what
            the user points at, which a small language model otherwise learns to copy in tens of thousands of questions.
        tracking_prompt: a user's box goes through the language model ("llm"), or straight into SAM2 as in the released demo.
        temporal_features: what CG-DETR sees; the paper says "InternVideo2", the demo takes 1B, the scripts 6B. Those are read from the
            folder of that name beside the samples' file; a head's own setting `features` wins.
        normalise_features: whether those rows are scaled to length 1 in training and inference, or in training only as released.
        stage2_qvhighlights: Table 1 counts QVHighlights among the temporal data of stage 2, Table 17 does not.

    Source: paper sections 3 and 4, Tables 1, 11, 16 and 17; released code of 2025-01-02.
    """

    train_rows: Literal["both", "output", "none"] = "both"
    assign_loss: Literal["separate", "inside_mlm"] = "separate"
    region_loss: Literal["paper", "official"] = "paper"
    region_head: Literal["mlp", "dense"] = "mlp"
    temporal_head: Literal["cg-detr", "cg-detr-pointing", "simple"] = "cg-detr"
    temporal_size: Literal["paper", "nano"] = "paper"
    mask_head: Literal["sam2", "sam2-pointing"] = "sam2"
    mask_sam: str = "nano-sam2"
    mask_loss: Literal["paper", "official"] = "paper"
    mask_adapter_layers: Literal[1, 2] = 2
    mask_prompt_encoder: Literal["replaced", "kept"] = "replaced"
    saliency_weight: NonNegative = 1.0
    prompts: Literal["box", "box+stroke", "drawn"] = "box+stroke"
    task_input: Literal["token", "token+prompts"] = "token"
    tracking_prompt: Literal["llm", "sam2"] = "llm"
    temporal_features: Literal["internvideo2-1b", "internvideo2-6b", "backbone"] = "internvideo2-6b"
    normalise_features: Literal["always", "training"] = "always"
    stage2_qvhighlights: bool = False

    def __post_init__(self) -> None:
        knobs.check(self, "switches")
