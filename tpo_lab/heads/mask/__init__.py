"""The mask head: SAM2 behind a task token, for referring segmentation and tracking."""

from tpo_lab.heads.mask.head import MaskHead
from tpo_lab.heads.mask.pointing import PointingMaskHead, PointingMaskPrediction
from tpo_lab.heads.mask.prediction import MaskPrediction
from tpo_lab.heads.mask.settings import MaskSettings, PointingMaskSettings
from tpo_lab.heads.mask.targets import MaskTargets

__all__ = [
    "MaskHead",
    "MaskPrediction",
    "MaskSettings",
    "MaskTargets",
    "PointingMaskHead",
    "PointingMaskPrediction",
    "PointingMaskSettings",
]
