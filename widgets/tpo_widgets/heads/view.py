"""HeadView: what the heads predict for samples over their frames, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from tpo_lab.errors import UsageError
from tpo_widgets.heads.content import HeadContent
from tpo_widgets.playhead import Playhead
from tpo_widgets.view import View

if TYPE_CHECKING:
    from PIL.Image import Image

VEIL = 0.45


class HeadView(View):
    """Boxes, masks, tracks, windows and saliency over the frames of a clip, true and predicted, of one checkpoint or of two.

    Example:
        >>> HeadView(tpo.probe(model, samples))                                 # doctest: +SKIP

    On screen: space plays, the arrow keys step (with shift by 10), home and end jump, w goes to the worst frame, [ and ] change the sample,
    + - 0 zoom. A box belongs to the frame at its `time_sec`: there it is drawn in full, on other frames dotted and faint, and of more than
    eight only the selected one. A mask or a track is drawn dotted on frames between those that it is said of. Curves of saliency are drawn
    each on a scale of its own, which stands beside them.

    Args:
        shown: a `tpo_lab.probes.Trace`, a `Sample`, or several.
        answers: of a sample, an `Answer`, its `to_dict()` or its structured answers by head; of several, those or `Record`s, as
            `tpo_lab.evaluate` gives them. None shows the truth alone. A trace holds its own.
        compare: what another checkpoint made of the same samples, in the same forms; shown beside the first.
        names: of the two.
        how: "routed": what the model gives by itself; "forced": what a head gives where the true route is given.
        opacity: of masks, from 0 to 1.
        frames: uint8 RGB [frame, h, w, 3] in place of the sample's own clip.
        times_sec: of each of `frames`; where None evenly over the sample's clip, or one a second where its length is not known.
        theme: "auto", "light" or "dark".
        playhead: of another view, to move with it. Its `object` is the place of a true object; what a model gives beside those comes after.

    Attributes:
        how: as above; follows what is chosen on screen.
        opacity: as above; follows the slider.
    """

    front = "head_view"
    how = traitlets.Enum(("routed", "forced"), "routed").tag(sync=True)
    opacity = traitlets.Float(VEIL, min=0.0, max=1.0).tag(sync=True)

    def __init__(
        self,
        shown: Any,
        answers: Any = None,
        *,
        compare: Any = None,
        names: Sequence[str] = ("before", "after"),
        how: str = "routed",
        opacity: float = VEIL,
        frames: Any = None,
        times_sec: Sequence[float] | None = None,
        theme: str = "auto",
        playhead: Playhead | None = None,
    ) -> None:
        if not isinstance(opacity, int | float) or not 0 <= opacity <= 1:
            raise UsageError("opacity", expected="a number from 0 to 1", got=opacity)
        first = playhead.sample if playhead is not None else ""

        def made() -> HeadContent:
            return HeadContent.of(shown, answers, compare=compare, names=names, how=how, frames=frames, times_sec=times_sec, first=first)

        super().__init__(made, theme=theme, playhead=playhead)
        if self.error is None:
            self.how, self.opacity = how, float(opacity)

    def _picture(self, width: int) -> Image:
        if not isinstance(self.content, HeadContent):
            return super()._picture(width)
        return self.content.turned(self.how).picture(self.moment, dark=self.theme == "dark", width=width)
