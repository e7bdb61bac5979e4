"""The mask head: SAM2 behind a task token, for referring segmentation and tracking."""

from tpo_lab.heads.mask.head import MaskHead, MaskPrediction, PointingMaskHead
from tpo_lab.heads.mask.settings import MaskSettings, PointingMaskSettings
from tpo_lab.heads.mask.targets import MaskTargets

__all__ = ["MaskHead", "MaskPrediction", "MaskSettings", "MaskTargets", "PointingMaskHead", "PointingMaskSettings"]
