"""What a person looks at after a run: charts, pictures of predictions beside the ground truth, and one page that opens offline.

Every number is given by the caller; only `comparison` computes any.
"""

from __future__ import annotations

from tpo_lab.report.charts import Panel, line_chart, loss_chart, term_panel
from tpo_lab.report.comparison import Row, comparison, overlap
from tpo_lab.report.grids import confusion_chart
from tpo_lab.report.page import Example, Page, render
from tpo_lab.report.pictures import box_picture, clip_sheet, mask_picture, pointing_picture, window_picture
from tpo_lab.report.svg import Svg

__all__ = [
    "Example",
    "Page",
    "Panel",
    "Row",
    "Svg",
    "box_picture",
    "clip_sheet",
    "comparison",
    "confusion_chart",
    "line_chart",
    "loss_chart",
    "mask_picture",
    "overlap",
    "pointing_picture",
    "render",
    "term_panel",
    "window_picture",
]
