"""The report: one HTML file with its style, charts and pictures inside it, so that it opens offline and asks no network for anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from tpo_lab.drawing import GROUND_TRUTH, PREDICTION, to_data_uri
from tpo_lab.report.comparison import Row, Triple
from tpo_lab.report.svg import Svg

if TYPE_CHECKING:
    from PIL.Image import Image

_GROUPS = {
    "region": "Where is it?",
    "temporal": "When does it happen?",
    "highlights": "Which moments show it best?",
    "masks": "What does it cover?",
    "tracks": "Where does it go?",
    "questions": "Plain questions",
    "what is not there": "What is not there",
    "routing": "Which task?",
}


@dataclass(frozen=True)
class Example:
    """One question about one clip.

    Attributes:
        question: as it was asked.
        answer: the text that the model wrote, route markers included.
        picture: the prediction over the frames.
        note: what a number says about it, such as "IoU 0.71".
    """

    question: str
    answer: str
    picture: Image
    note: str = ""


@dataclass(frozen=True)
class Page:
    """All that a report shows.

    Attributes:
        title: of the page.
        summary: one or two sentences below it.
        tiles: (value, what it is) each, the figures to remember.
        rows: the comparison before and after.
        losses: the chart of the losses, or None where nothing was trained.
        boxes, windows, masks: examples of the heads.
        routing: charts of the confusion matrices.
        video: the questions about a video file, and the path that they were about.
        durations: phase -> (seconds, peak memory in MiB or None).
        settings: name -> value, shown as a table.
        caution: a sentence on what the figures do not show, e.g. of a smoke run; "" for none.
    """

    title: str
    summary: str
    tiles: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    losses: Svg | None
    boxes: Sequence[Example]
    windows: Sequence[Example]
    masks: Sequence[Example]
    routing: Sequence[Svg]
    video: Sequence[Example]
    video_name: str
    durations: Mapping[str, tuple[float, float | None]]
    settings: Mapping[str, object] = field(default_factory=dict)
    caution: str = ""


def render(page: Page) -> str:
    """The page as HTML; everything that comes from data is escaped."""
    parts = [
        f"<header><h1>{escape(page.title)}</h1><p>{escape(page.summary)}</p>{_caution(page.caution)}{_tiles(page.tiles)}</header>",
        _section(
            "Before and after",
            "The same test samples, asked of the untrained base and of the trained model. Routed: the model must itself say which head it "
            "wants. Route given: the right head is asked whatever the model says. Without looking: the same answer to every question of "
            "a kind, the best that the training samples allow; what does not exceed it was not seen in the video. Below each figure its "
            "95% interval, a bootstrap over samples; the change (both routed) is in percentage points, paired by sample.",
            _comparison(page.rows),
        ),
        _section("Losses", _LOSSES, f"<figure>{page.losses}</figure>" if page.losses else ""),
        _section("Where is it?", _FIRST + _POINTED + _key(), _examples(page.boxes)),
        _section("When does it happen?", _FIRST + _key(), _examples(page.windows)),
        _section("What does it cover, and where does it go?", _FIRST + _POINTED + _MASKED + _key(), _examples(page.masks)),
        _section("Which task?", "Routes that the questions ask for against routes that the model emitted.", _charts(page.routing)),
        _section("On a video file", f"Questions about <code>{escape(page.video_name)}</code>, read from disk.", _examples(page.video)),
        _section("Time and memory", "Each phase with its wall time and the most memory that its process held.", _durations(page.durations)),
        _section("What was run", "", _settings(page.settings)),
    ]
    body = "\n".join(part for part in parts if part)
    style = (files("tpo_lab") / "report" / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # An empty icon: browsers would otherwise ask for one.
        f'<link rel="icon" href="data:,"><title>{escape(page.title)}</title><style>{style}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


_LOSSES = (
    "Each part of the objective on its own, before its weight: the words (mlm), the route tokens (assign), and the terms of each head. "
    "Bold is a running mean; the bands are the stages."
)
_FIRST = "One question about each of the first clips of the test split, not chosen."
_MASKED = " Outlines, and boxes of what is only to be followed, are true; what is veiled is the model's mask."
_POINTED = " White is what the user points at, &lt;prompt:0&gt; in the question."


def _key() -> str:
    return f'<br><span class="key"><i style="color:{GROUND_TRUTH}"></i>ground truth<i style="color:{PREDICTION}"></i>model</span>'


def _section(title: str, intro: str, inside: str) -> str:
    if not inside:
        return ""
    return f"<section><h2>{escape(title)}</h2>{f'<p>{intro}</p>' if intro else ''}{inside}</section>"


def _caution(text: str) -> str:
    return f'<p class="down">{escape(text)}</p>' if text else ""


def _tiles(tiles: Iterable[tuple[str, str]]) -> str:
    inside = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{inside}</div>' if inside else ""


def _comparison(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    heads = ("samples", "without looking", "before", "before, route given", "after", "after, route given", "change, points")
    lines = []
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(f'<tr class="group"><td colspan="{len(heads) + 1}">{escape(_GROUPS.get(group, group))}</td></tr>')
        cells = "".join(_value(triple) for triple in (row.constant, row.before, row.before_given, row.after, row.after_given))
        lines.append(f'<tr><td>{escape(row.measure)}</td><td class="n">{row.count}</td>{cells}{_value(row.change, signed=True)}</tr>')
    head = "".join(f'<th class="n">{name}</th>' for name in heads)
    table = f'<table class="wide" id="comparison"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _value(triple: Triple | None, *, signed: bool = False) -> str:
    if triple is None:
        return '<td class="n soft">&ndash;</td>'
    estimate, low, high = triple
    shown = "{:+.1f}" if signed else "{:.1%}"
    if signed:
        estimate, low, high = (100 * value for value in triple)
    # Coloured only where the interval leaves zero out.
    tone = (" up" if low > 0 else " down" if high < 0 else "") if signed else ""
    ends = f"{shown.format(low)} to {shown.format(high)}"
    return f'<td class="n{tone}">{shown.format(estimate)}<span class="range">{ends}</span></td>'


def _examples(examples: Sequence[Example]) -> str:
    return '<div class="figures">' + "".join(_example(example) for example in examples) + "</div>" if examples else ""


def _example(example: Example) -> str:
    note = f' <span class="soft">{escape(example.note)}</span>' if example.note else ""
    answer = escape(example.answer) or '<span class="soft">(no words)</span>'
    return (
        f'<figure><img src="{to_data_uri(example.picture)}" alt="{escape(example.question)}" width="{example.picture.width}" '
        f'height="{example.picture.height}"><figcaption>{escape(example.question)}<br><b>{answer}</b>{note}</figcaption></figure>'
    )


def _charts(charts: Sequence[Svg]) -> str:
    return '<div class="figures many">' + "".join(f"<figure>{chart}</figure>" for chart in charts) + "</div>" if charts else ""


def _durations(durations: Mapping[str, tuple[float, float | None]]) -> str:
    if not durations:
        return ""
    lines = [f"<tr><td>{escape(name)}</td>{_time(seconds)}{_memory(memory)}</tr>" for name, (seconds, memory) in durations.items()]
    lines.append(f'<tr class="group"><td>all</td>{_time(sum(seconds for seconds, _ in durations.values()))}<td></td></tr>')
    head = '<th>phase</th><th class="n">time</th><th class="n">peak memory</th>'
    return f'<table id="durations"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f'<td class="n">{minutes} min {rest:02d} s</td>' if minutes else f'<td class="n">{seconds:.1f} s</td>'


def _memory(mebibytes: float | None) -> str:
    return f'<td class="n">{"&ndash;" if mebibytes is None else f"{mebibytes / 1024:.2f} GiB"}</td>'


def _settings(settings: Mapping[str, object]) -> str:
    lines = "".join(f"<tr><td>{escape(name)}</td><td><code>{escape(str(value))}</code></td></tr>" for name, value in settings.items())
    return f'<table id="settings"><tbody>{lines}</tbody></table>' if lines else ""
