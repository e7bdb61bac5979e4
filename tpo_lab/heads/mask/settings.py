"""The settings of the mask head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.heads.base import HeadSettings

Loss = Literal["mask", "distill", "sam2"]
Condition = Literal["first", "best"]
PromptedBy = Literal["token", "direct"]
EncoderPrecision = Literal["fp32", "bf16"]
SHIPPED = "nano-sam2"
TERMS = {"mask": ("bce", "dice", "there"), "sam2": ("focal", "dice", "iou", "there"), "distill": ("token", "box")}
"""By loss."""
DICE = {"mask": 0.5, "sam2": 1.0, "distill": 0.0}
"""Weight of "dice" by loss, as LISA and SAM2 have it."""


@dataclass(frozen=True)
class MaskSettings(HeadSettings):
    """Settings of the mask head.

    Attributes:
        sam: the SAM2 model: "nano-sam2", which is shipped, a folder of transformers, a hub id, or an official .pt file.
        image_size: side of the square that SAM2 sees; the model's own where None.
        encoder_precision: in which SAM2's image encoder computes while it is frozen; all else of the head computes in "fp32".
            With "bf16", in which SAM2 itself is run on GPUs, masks differ in a few pixels at their edges.
        adapter_layers: of the MLP from task embedding to prompt tokens; the paper says one in section 3 and two in section 4.
        loss: "mask": what comes out is compared, on every frame, through SAM2's memory; "sam2": the same by SAM2's own objective;
            "distill": the prompt tokens are compared with what SAM2's prompt encoder makes of the true box, as released.
        condition: the frame that the tokens prompt: "first", or the one of `candidates` on which the mask looks best to SAM2.
        prompt: what prompts SAM2 where the user pointed at a box: "token", what the adapter makes of the task embedding, into which the
            language model has put the box; or "direct", the box itself on the first frame, as in the released demo. Then the language model
            only says that the mask head is asked. Training is always by "token".
        candidates: how many frames "best" chooses from: spread evenly from the first to the last, or, by a head that points, those that it
            is surest of.
        train_frames: frames of a clip that a training step follows the object through, chosen anew each time; None: all.
        weight_bce: of "bce" (loss "mask").
        weight_dice: of "dice" (losses "mask" and "sam2"); that of `DICE` where None.
        weight_there: of "there", the cross-entropy of the object score (losses "mask" and "sam2").
        weight_focal: of "focal" (loss "sam2").
        weight_iou: of "iou", the error of the expected IoU (loss "sam2").
        weight_token: of "token", the mean absolute difference to the prompt encoder's tokens of the true box (loss "distill").
        weight_box: of "box", the mean absolute difference of the box that is read beside the tokens (loss "distill").
    """

    sam: str = SHIPPED
    image_size: int | None = None
    encoder_precision: EncoderPrecision = "fp32"
    adapter_layers: Literal[1, 2] = 2
    loss: Loss = "mask"
    condition: Condition = "first"
    prompt: PromptedBy = "token"
    candidates: int = 3
    train_frames: int | None = None
    weight_bce: float = 2.0
    weight_dice: float | None = None
    weight_there: float = 1.0
    weight_focal: float = 20.0
    weight_iou: float = 1.0
    weight_token: float = 1.0
    weight_box: float = 1.0

    def __post_init__(self) -> None:
        choices_of = {"loss": Loss, "condition": Condition, "prompt": PromptedBy, "encoder_precision": EncoderPrecision}
        for field, choices in choices_of.items():
            if getattr(self, field) not in get_args(choices):
                raise unknown_name(f"{field} of the mask head", getattr(self, field), get_args(choices))
        if self.weight_dice is None:
            object.__setattr__(self, "weight_dice", DICE[self.loss])
        if self.adapter_layers not in (1, 2):
            raise UsageError("adapter_layers", expected="1 or 2", got=self.adapter_layers)
        for field in ("candidates", "train_frames", "image_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise UsageError(field, expected="at least 1", got=value)


@dataclass(frozen=True)
class PointingMaskSettings(MaskSettings):
    """Settings of the mask head that points.

    Attributes:
        vision_dim: width of the vision tower's patch features; `tpo_lab.build` fills it in.
        condition: see `MaskSettings`.
        train_frames: see `MaskSettings`.
        weight_patches: of "patches", how improbable it is that it points at the object, in whichever frame.
        weight_box: of "box", the mean absolute difference of the box that is read at the object's patches.
    """

    vision_dim: int = 0
    condition: Condition = "best"
    train_frames: int | None = 3
    weight_patches: float = 1.0
    weight_box: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vision_dim < 1:
            raise UsageError("vision_dim", expected="the width of the vision tower's features", got=self.vision_dim)
