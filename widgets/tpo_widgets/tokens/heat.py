"""Numbers over the patches of a clip's frames: where a token looks, where a word is seen. And the colours that they are drawn in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_widgets.content import Resource
from tpo_widgets.tokens.row import finite, grid_side

if TYPE_CHECKING:
    from tpo_lab.probes.sample_trace import SampleTrace, Token, WordMap
    from tpo_lab.probes.step_trace import Attention

MEAN = -1
"""In the place of a layer: the mean over all that were kept."""
COLOURS = ("#08051d", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
"""From 0 to the most, evenly spaced: ever lighter, so that the order shows without hues."""
PARTS = ("frames", "clip", "context", "prompts", "words", "routes", "itself", "slots")
"""What a token can look at: patches of frames, the clip's other tokens, the chat's own, what the user points at, ..."""
_PART_OF = {"CONTEXT": "context", "PROMPT": "prompts", "ROUTE": "routes", "SLOT": "slots"}


@dataclass(frozen=True)
class Heat:
    """Maps over the frames of one clip.

    Attributes:
        values: float32 [layer, frame, cell]; NaN where the row has no such patch.
        layers: which layer each map is of; `MEAN` first.
        shares: for each layer, how much of the attention goes to which of `PARTS`; empty where the map is of no attention.
    """

    values: NDArray[np.float32]
    layers: tuple[int, ...] = (MEAN,)
    shares: tuple[Mapping[str, float], ...] = ()

    def most(self, layer: int = 0) -> float | None:
        """The greatest value of a map, by its place; None where no value is finite."""
        found = self.values[layer][np.isfinite(self.values[layer])]
        return float(found.max()) if found.size else None

    def resource(self) -> Resource:
        """The maps as little-endian float32; beside them, for each layer, the greatest value and the sum over each frame."""
        sums = np.nansum(self.values.astype(np.float64), axis=2)
        about = {
            "shape": list(self.values.shape),
            "layers": list(self.layers),
            "most": [self.most(layer) for layer in range(len(self.layers))],
            "frames": [[finite(value) for value in layer] for layer in sums.tolist()],
            "shares": [{part: finite(value) for part, value in shares.items()} for shares in self.shares],
        }
        return Resource(self.values.astype("<f4").tobytes(), about)


def attention_heat(sample: SampleTrace, attention: Attention, layers: Sequence[int]) -> Heat:
    """Where a token looks: the mean over the kept layers, then each layer; every weight where its patch is in the clip.

    Args:
        sample: whose row it is.
        attention: of one token of that row.
        layers: that `attention` holds.

    Raises:
        UsageError: weights of another number of layers or tokens.
    """
    weights = attention.weights.detach().float().cpu().numpy()
    if weights.shape != (len(layers), len(sample.tokens)):
        raise UsageError("attention.weights", expected=f"[{len(layers)} layers, {len(sample.tokens)} tokens]", got=list(weights.shape))
    each = np.concatenate([weights.mean(0, keepdims=True), weights])
    values = np.full((len(each), len(sample.times_sec), grid_side(sample.tokens) ** 2), np.nan, np.float32)
    for token in sample.tokens:
        if token.frame is not None and token.cell is not None:
            values[:, token.frame, token.cell] = each[:, token.index]
    parts = [part_of(token, attention.token) for token in sample.tokens]
    return Heat(values, (MEAN, *layers), tuple(_shares(row, parts) for row in each.astype(np.float64)))


def _shares(weights: NDArray[np.float64], parts: Sequence[str]) -> dict[str, float]:
    found = dict.fromkeys(PARTS, 0.0)
    for weight, part in zip(weights.tolist(), parts, strict=True):
        found[part] += weight
    return found


def part_of(token: Token, looking: int) -> str:
    """Which of `PARTS` a token is, for the token that looks."""
    if token.index == looking:
        return "itself"
    if token.kind == "VIDEO":
        return "clip" if token.frame is None else "frames"
    return _PART_OF.get(token.kind, "words")


def word_heat(word: WordMap) -> Heat:
    """Where a word is seen."""
    return Heat(word.map.detach().float().cpu().numpy()[None])


def coloured(share: NDArray[Any]) -> NDArray[np.uint8]:
    """Shares of the most, in [0, 1], as RGB; what is not finite is that of 0."""
    stops = np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in COLOURS], np.float64)
    at = np.nan_to_num(np.clip(share, 0, 1), nan=0.0) * (len(stops) - 1)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    rgb: NDArray[np.uint8] = np.stack(channels, -1).round().astype(np.uint8)
    return rgb
