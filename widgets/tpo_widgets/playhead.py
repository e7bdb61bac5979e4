"""The playhead: which moment of which sample is looked at, and what is selected. Views that share one move together."""

from __future__ import annotations

import traitlets
from ipywidgets import Widget


class Playhead(Widget):  # type: ignore[misc]
    """The scrubber and the selection of one view or of several.

    It is one model in the kernel and one in the browser, so views that share it are linked in both, with or without a kernel.
    In the browser views follow every step at once. Of steps that come within a tenth of a second the kernel hears the last one.

    Attributes:
        time_sec: seconds from the start of the clip.
        sample: id of the sample that is looked at; "" for a view's first.
        head: name of the selected head; "" for all.
        object: place of the selected object in the sample's target or answer; -1 for none.
        token: place of the selected token in the sample's row; -1 for none.
    """

    _model_name = traitlets.Unicode("WidgetModel").tag(sync=True)
    _model_module = traitlets.Unicode("@jupyter-widgets/base").tag(sync=True)
    time_sec = traitlets.Float(0.0).tag(sync=True)
    sample = traitlets.Unicode("").tag(sync=True)
    head = traitlets.Unicode("").tag(sync=True)
    object = traitlets.Int(-1).tag(sync=True)
    token = traitlets.Int(-1).tag(sync=True)


MOMENT = ("time_sec", "sample", "head", "object", "token")
"""The traits of a playhead that views draw from."""
