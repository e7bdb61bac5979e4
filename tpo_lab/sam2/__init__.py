"""SAM2 as blocks: its configurations, its weights, and a tracker through which a loss reaches the prompt."""

from tpo_lab.sam2.configs import SIZES, nano_config, sam2_config, untrained
from tpo_lab.sam2.tracker import FrameFeatures, Masks, Memory, Prompt, Tracker

__all__ = ["SIZES", "FrameFeatures", "Masks", "Memory", "Prompt", "Tracker", "nano_config", "sam2_config", "untrained"]
