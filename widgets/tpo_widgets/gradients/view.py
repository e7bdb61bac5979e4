"""Which loss moves which module, who pulls against whom and where, and which samples made it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from tpo_lab.errors import unknown_name
from tpo_lab.probes.trace import Trace
from tpo_lab.runs import RunFolder
from tpo_widgets.gradients.content import GradientContent
from tpo_widgets.gradients.measurements import TRACE
from tpo_widgets.playhead import Playhead
from tpo_widgets.view import View

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from PIL.Image import Image


class GradientView(View):
    """Gradients of each loss by module: norms, conflicts, shares in the language model, and how they change as a run trains.

    Example: `GradientView(tpo.probe(model, samples))`, or `GradientView(run="runs/first")` after `TrainingOptions(probe_every=50)`.

    A click on a conflict lists the samples behind it; a click on one of those sets the playhead's sample, which other views follow.

    Args:
        trace: what `tpo.probe` gave, with gradients.
        run: folder of a run that measured gradients as it trained, or what `tpo.fit` gave.
        theme: "light", "dark" or "auto".
        playhead: of other views, to move together with them.

    Attributes:
        pair: the two losses that are looked at, as "region|temporal"; "" for none.
        module: the module that is looked at, such as "llm.lora.2", or "llm.lora" for all of its layers; "" for none.
        measurement: the line of probes.jsonl that is shown, from 0, so that `read_probes(run)[view.measurement]` has its numbers; -1 for
            the trace.
        per_parameter: whether norms are divided by the square root of each module's number of parameters.
    """

    front = "gradient_view"
    pair = traitlets.Unicode("").tag(sync=True)
    module = traitlets.Unicode("").tag(sync=True)
    measurement = traitlets.Int(TRACE).tag(sync=True)
    per_parameter = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        trace: Trace | None = None,
        *,
        run: str | Path | RunFolder | None = None,
        theme: str = "auto",
        playhead: Playhead | None = None,
    ) -> None:
        super().__init__(lambda: GradientContent.of(trace, run), theme=theme, playhead=playhead)
        if isinstance(self.content, GradientContent):
            self.measurement = self.content.start.line

    def to_plotly(self) -> go.Figure:
        """A plotly figure: norms and cosines of `module` over the steps of the run, or shares by layer where there is no run.

        Raises:
            MissingExtraError: plotly is not installed.
            UsageError: the view has nothing to show, or no layer of the language model learns.
        """
        from tpo_widgets.gradients.figure import figure

        if not isinstance(self.content, GradientContent):
            raise self.error or RuntimeError(self.problem)
        return figure(self.content, self.module, self.pair, self.content.at(self.measurement))

    @traitlets.validate("pair")
    def _known_pair(self, proposal: Any) -> str:
        """In the order of the objective, however it is given."""
        pair = str(proposal["value"])
        if not pair or not isinstance(self.content, GradientContent):
            return pair
        turned = "|".join(reversed(pair.split("|")))
        for name in (pair, turned):
            if name in self.content.pairs:
                return name
        raise unknown_name("pair", pair, self.content.pairs)

    @traitlets.validate("module")
    def _known_module(self, proposal: Any) -> str:
        module = str(proposal["value"])
        if module and isinstance(self.content, GradientContent) and module not in self.content.modules:
            raise unknown_name("module", module, self.content.modules)
        return module

    def _picture(self, width: int) -> Image:
        if not isinstance(self.content, GradientContent):
            return super()._picture(width)
        shown = self.content.at(self.measurement)
        return self.content.drawn(shown, dark=self.theme == "dark", width=width, per_parameter=self.per_parameter)
