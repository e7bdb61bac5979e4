"""What `TokenView` shows of a step record: rows of tokens, routes, slots, attention, word maps, similarities. Nothing is measured here."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_widgets.content import Moment, Resource
from tpo_widgets.film import Film, film_of
from tpo_widgets.tokens.heat import COLOURS, Heat, attention_heat, word_heat
from tpo_widgets.tokens.row import finite, grid_side, places_of, runs_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from tpo_lab.probes.sample_trace import SampleTrace, Slot
    from tpo_lab.probes.trace import Trace

INLINE_CHARACTERS = 10_000
"""Of a document that already holds samples; the others are fetched when they are looked at."""
MOST_TEXT = 400
"""Characters of a question or an answer beside the row, which has all of them."""
MOST_TITLE = 60
"""Of a question where samples are chosen."""
KEPT_FILMS = 3


@dataclass(frozen=True)
class TokenContent:
    """A step record as `TokenView` shows it.

    Resources: "sample/<place>" is JSON, "frame/<sample>/<frame>" a JPEG of a frame that the model saw, "attention/<place>" and
    "word/<sample>/<place>" maps as in `Heat.resource`, "cosines" float32 [depth, slot, slot].

    Attributes:
        trace: the record.
    """

    trace: Trace
    _films: OrderedDict[int, Film] = field(default_factory=OrderedDict, repr=False, compare=False)

    @classmethod
    def of(cls, trace: Any) -> TokenContent:
        """Content of a trace.

        Raises:
            UsageError: it is no trace, has no samples, or holds attention that fits no row.
        """
        from tpo_lab.probes.trace import Trace

        if not isinstance(trace, Trace):
            raise UsageError("trace", expected="a step record, as tpo.probe gives it", got=type(trace).__name__)
        if not trace.samples:
            raise UsageError("trace.samples", expected="at least one", got=0)
        content = cls(trace)
        # what does not fit shows here, where a view can still say so
        for place in range(len(trace.activations.attention)):
            content.heat_of_attention(place)
        json.dumps(content.document, allow_nan=False)
        return content

    @cached_property
    def document(self) -> dict[str, Any]:
        """What all samples share, and the first few samples."""
        from tpo_lab.probes.symptoms import LEAST_COSINE, MOST_HIDDEN

        trace, details = self.trace, dict[str, Any]()
        document = {
            "samples": [[sample.id, _short(sample.question, MOST_TITLE)] for sample in trace.samples],
            "details": details,
            "slots": [list(slot) for slot in trace.activations.slots],
            "depths": self.cosines.shape[0],
            "colours": list(COLOURS),
            "limits": {"hidden": MOST_HIDDEN, "cosine": LEAST_COSINE},
        }
        room = INLINE_CHARACTERS - len(json.dumps(document))
        for place in range(len(trace.samples)):
            detail = self.sample(place)
            room -= len(json.dumps(detail, allow_nan=False))
            if room < 0:
                break
            details[str(place)] = detail
        return document

    def sample(self, place: int) -> dict[str, Any]:
        """One sample, by its place in the record."""
        found = self.trace.samples[place]
        return {
            "question": _short(found.question),
            "answer": _short(found.answer),
            "text": _short(found.routes.text),
            "size": list(found.size_wh),
            "times": list(found.times_sec),
            "grid": grid_side(found.tokens),
            "runs": runs_of(found.tokens),
            "places": places_of(found),
            "slots": [self._slot(slot) for slot in found.slots],
            "looks": list(self.looks(place)),
            "words": [
                {"name": f"word/{place}/{number}", **{key: getattr(word, key) for key in ("text", "answer", "number", "token", "head")}}
                for number, word in enumerate(found.words)
            ],
        }

    def _slot(self, slot: Slot) -> dict[str, Any]:
        return {"head": slot.head, "token": slot.token, "reads": slot.reads, "cosine": finite(slot.cosine)}

    def looks(self, place: int) -> Iterator[dict[str, Any]]:
        """Whose attention the record has of a sample; `shows` is the token that stands for it: the slot, or the route to be written."""
        routes = {due.predicted_from: due.token for due in self.trace.samples[place].routes.due}
        for number, each in enumerate(self.trace.activations.attention):
            if each.sample == place:
                shows = each.token if each.kind == "SLOT" else routes.get(each.token, each.token)
                named = {"name": f"attention/{number}", "head": each.head, "kind": each.kind, "token": each.token}
                yield {**named, "shows": shows, "hidden": finite(each.hidden)}

    def heat_of_attention(self, number: int) -> Heat:
        """Maps of one token's attention, by its place in the record."""
        each = self.trace.activations.attention[number]
        return attention_heat(self.trace.samples[each.sample], each, self.trace.activations.layers)

    @cached_property
    def cosines(self) -> NDArray[np.float32]:
        """Between all slots of the record [depth, slot, slot]: before the first layer, after each, after the final norm."""
        found: NDArray[np.float32] = self.trace.activations.cosines().detach().float().cpu().numpy()
        return found

    def film(self, place: int) -> Film:
        """The frames that the model saw of a sample.

        Raises:
            UsageError: the clip cannot be read.
        """
        if place not in self._films:
            self._films[place] = seen_film(self.trace.samples[place])
        self._films.move_to_end(place)
        while len(self._films) > KEPT_FILMS:
            self._films.popitem(last=False)
        return self._films[place]

    def resource(self, name: str) -> Resource:
        """See the class."""
        kind, *places = name.split("/")
        makers: Mapping[str, tuple[int, Callable[..., Resource]]] = {
            "sample": (1, lambda place: Resource(json.dumps(self.sample(place), allow_nan=False).encode())),
            "frame": (2, lambda place, frame: Resource(self.film(place).jpeg(frame))),
            "attention": (1, lambda number: self.heat_of_attention(number).resource()),
            "word": (2, lambda place, number: word_heat(self.trace.samples[place].words[number]).resource()),
            "cosines": (0, lambda: Resource(self.cosines.astype("<f4").tobytes(), {"shape": list(self.cosines.shape)})),
        }
        count, make = makers.get(kind, (-1, None))
        if make is None or len(places) != count or not all(place.isdecimal() for place in places):
            raise UsageError("resource", expected=f"{', '.join(makers)} with their places", got=name)
        try:
            return make(*map(int, places))
        except IndexError:
            raise UsageError("resource", expected="one that the record has", got=name) from None

    def names(self) -> Iterable[str]:
        """The rows and similarities first, then sample by sample what its frames show."""
        yield "cosines"
        yield from (f"sample/{place}" for place in range(len(self.trace.samples)) if str(place) not in self.document["details"])
        for place, sample in enumerate(self.trace.samples):
            yield from (f"frame/{place}/{frame}" for frame in range(len(sample.times_sec)))
            yield from (look["name"] for look in self.looks(place))
            yield from (f"word/{place}/{number}" for number in range(len(sample.words)))

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """Routes of the sample, frames with what the selected token (or the first slot) looks at, similarities after the final norm."""
        from tpo_widgets.tokens.picture import draw

        return draw(self, moment, dark=dark, width=width)

    def place_of(self, sample: str) -> int:
        """The place of a sample by its id; the first where there is none of that id."""
        return next((place for place, each in enumerate(self.trace.samples) if each.id == sample), 0)


def seen_film(sample: SampleTrace) -> Film:
    """Those frames of a clip that the model saw, in its order: at each of its times the frame that is on display.

    Raises:
        UsageError: the clip cannot be read.
    """
    whole = film_of(sample.sample)
    shown = [whole.nearest(time) for time in sample.times_sec]

    def read(numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        wanted = sorted({shown[number] for number in numbers})
        for found, pixels in whole.read(wanted):
            yield from ((number, pixels) for number in numbers if shown[number] == found)

    return Film(whole.size_wh, tuple(sample.times_sec), sample.duration_sec, read)


def _short(text: str, most: int = MOST_TEXT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
