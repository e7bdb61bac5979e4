"""The row of tokens that a model reads, where its task tokens look, and how alike they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import traitlets

from tpo_widgets.playhead import Playhead
from tpo_widgets.tokens.content import TokenContent
from tpo_widgets.view import View

if TYPE_CHECKING:
    from tpo_lab.probes.trace import Trace


class TokenView(View):
    """Route and slot tokens of a step record: where they stand, what is written there, where they look, how alike they are.

    The sample, the token and the moment that are looked at are the playhead's. With no token selected, the first slot is shown (of the
    playhead's head where one is selected).

        trace = tpo.probe(model, samples, words=True)
        TokenView(trace)

    Args:
        trace: what `tpo_lab.probe` gives.
        theme: "light", "dark", or "auto", which follows the page.
        playhead: to share with other views.

    Attributes:
        layer: whose attention is shown; -1 for the mean over those that were kept.
        depth: at which task tokens are compared: 0 the embedding, then after each layer, then after the final norm; -1 for the last.
        opacity: of heat maps over frames, from 0 to 1.
        word: place of the selected word in the model's own answer; -1 for none. A word that is selected is shown in the token's place.
        pair: places of two task tokens in `trace.activations.slots`, whose similarity is followed; empty for none.
    """

    front: ClassVar[str] = "token_view"
    layer = traitlets.Int(-1).tag(sync=True)
    depth = traitlets.Int(-1).tag(sync=True)
    opacity = traitlets.Float(0.6, min=0.0, max=1.0).tag(sync=True)
    word = traitlets.Int(-1).tag(sync=True)
    pair = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, trace: Trace, *, theme: str = "auto", playhead: Playhead | None = None) -> None:
        super().__init__(lambda: TokenContent.of(trace), theme=theme, playhead=playhead)
