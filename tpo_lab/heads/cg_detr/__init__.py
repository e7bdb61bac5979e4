"""CG-DETR (arXiv 2311.08835), the temporal head of the paper: moment retrieval and highlight detection."""

from __future__ import annotations

from tpo_lab.heads.cg_detr.head import CGDETRHead, CGDETRPrediction
from tpo_lab.heads.cg_detr.pointing import PointingCGDETRHead, PointingCGDETRSettings
from tpo_lab.heads.cg_detr.settings import NANO, CGDETRSettings
from tpo_lab.heads.cg_detr.targets import CGDETRTarget

__all__ = ["NANO", "CGDETRHead", "CGDETRPrediction", "CGDETRSettings", "CGDETRTarget", "PointingCGDETRHead", "PointingCGDETRSettings"]
