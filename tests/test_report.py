"""Charts, pictures, the comparison and the page: what is drawn is where the numbers say, and the page asks no network for anything."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageColor

from tpo_lab.drawing import GROUND_TRUTH, PREDICTION
from tpo_lab.errors import UsageError
from tpo_lab.records import Record
from tpo_lab.report import (
    Example,
    Page,
    Panel,
    box_picture,
    clip_sheet,
    comparison,
    confusion_chart,
    line_chart,
    loss_chart,
    mask_picture,
    overlap,
    pointing_picture,
    render,
    window_picture,
)
from tpo_lab.report.pictures import strip

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
METRICS = [
    {"stage": "1", "step": 1, "seconds": 0.1, "lr": 1e-3, "loss": 5.0, "mlm": 3.0, "assign": 2.0},
    {
        "stage": "2.region",
        "step": 1,
        "seconds": 0.1,
        "lr": 1e-3,
        "loss": 4.0,
        "mlm": 2.0,
        "region/l1": 0.5,
        "region/giou": 1.5,
        "gradient/region": 9.0,
    },
    {
        "stage": "2.region",
        "step": 2,
        "seconds": 0.2,
        "lr": 1e-3,
        "loss": 3.0,
        "mlm": 1.0,
        "region/l1": 0.25,
        "region/giou": 1.0,
        "gradient/region": 8.0,
    },
]


def record(name: str, **changes: Any) -> Record:
    made = Record(name, "kind", "Where?", "<region>", "<region>", ("region",), ("region",), {}, {}, {}, f"{name}.mp4")
    return replace(made, **changes)


def region(name: str, box: list[float] | None, *, forced: list[float] | None = None) -> Record:
    routed = {} if box is None else {"region": {"boxes_xyxy": [box]}}
    given = {} if forced is None else {"region": {"boxes_xyxy": [forced]}}
    emitted = ("region",) if box else ()
    return record(name, routed=routed, forced=given, emitted=emitted, target={"region": [{"time_sec": 0.0, "xyxy": [0, 0, 10, 10]}]})


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def paths(svg: str) -> list[str]:
    return [node.attrib["d"] for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")]


class TestCharts:
    def test_one_panel_per_part_of_the_objective_and_no_other_column(self):
        words = texts(loss_chart(METRICS))
        assert {"mlm", "assign", "region", "l1", "giou"} <= set(words)
        assert {"lr", "loss", "seconds", "gradient"}.isdisjoint(words)

    def test_stages_follow_one_another_on_the_step_axis(self):
        # Three steps in all: stage 1 has the first, so mlm runs over 1..3 although `step` begins anew.
        (title,) = [node for node in ElementTree.fromstring(loss_chart(METRICS)).iter("{http://www.w3.org/2000/svg}title")]
        assert title.text == "mlm, assign, region"
        assert paths(loss_chart(METRICS))[0].count("L") == 2

    def test_a_head_with_many_terms_has_a_panel_per_family_whose_legend_fits(self):
        terms = ("span", "span_layer1", "giou", "giou_layer1", "saliency_margin", "saliency_rank", "saliency_negative", "glance")
        chart = loss_chart([{"stage": "1", "step": 1, "mlm": 1.0, **{f"temporal/{term}": 1.0 for term in terms}}])
        (title,) = ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}title")
        assert title.text == "mlm, temporal span, temporal giou, temporal saliency, temporal glance"
        assert {"layer1", "margin", "rank", "negative"} <= set(texts(chart))
        placed = [
            (float(node.attrib["y"]), float(node.attrib["x"]), node.text or "")
            for node in ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}text")
            if node.attrib.get("font-weight")
        ]
        ends = {(y, x - 7 * len(text), x) for y, x, text in placed if text in ("span", "layer1", "margin", "rank", "negative")}
        for y, start, end in ends:
            assert not [other for other in ends if other != (y, start, end) and other[0] == y and start < other[2] <= end]

    def test_a_value_lies_between_the_ends_of_its_axis_in_proportion(self):
        raw, _ = paths(line_chart([Panel("p", {"a": ([0, 1, 2], [0.0, 10.0, 5.0])})]))
        (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, point)) for point in re.findall(r"([\d.]+) ([\d.]+)", raw))
        assert y0 > y1 and y2 == pytest.approx((y0 + y1) / 2)
        assert x1 == pytest.approx((x0 + x2) / 2)

    def test_the_bold_line_is_a_running_mean(self):
        raw, smooth = paths(line_chart([Panel("p", {"a": ([0, 1], [0.0, 10.0])})]))
        top, bottom = float(raw.split()[-1]), float(raw.split()[1])
        # 0.9 * 0 + 0.1 * 10 = 1 of 10
        assert float(smooth.split()[-1]) == pytest.approx(bottom - 0.1 * (bottom - top), abs=0.1)

    def test_a_stage_without_the_loss_and_a_value_that_is_not_finite_interrupt_the_line(self):
        line = {"a": ([1, 2, 9, 10], [1.0, 2.0, 3.0, 4.0])}
        raw, _ = paths(line_chart([Panel("p", line, [(1, 2, "stage 1"), (3, 8, "stage 2"), (9, 10, "stage 3")])]))
        assert raw.count("M") == 2 and raw.count("L") == 2
        raw, _ = paths(line_chart([Panel("p", {"a": ([1, 2, 3, 4], [1.0, math.nan, 3.0, 4.0])})]))
        assert raw.count("M") == 2 and raw.count("L") == 1

    def test_steps_of_other_tasks_do_not_interrupt_the_line(self):
        turns = [{"stage": "3a", "step": step, "region/l1" if step % 2 else "temporal/start": 1.0 / step} for step in range(1, 9)]
        for raw in paths(loss_chart(turns)):
            assert raw.count("M") == 1 and raw.count("L") == 3

    def test_names_are_escaped(self):
        assert "<b>&" in texts(line_chart([Panel("<b>&", {"a": ([1], [1.0])})]))

    def test_jupyter_shows_a_chart_as_svg(self):
        chart = loss_chart(METRICS)
        assert chart._repr_svg_() == chart and chart.startswith("<svg ")

    def test_wrong_charts_are_refused(self):
        with pytest.raises(UsageError, match="got '1 lines without'"):
            loss_chart([{"stage": "1", "step": 1}])
        with pytest.raises(UsageError, match="expected 2 values, got 1"):
            line_chart([Panel("p", {"a": ([1, 2], [1.0])})])
        with pytest.raises(UsageError, match="at least one, got 0"):
            line_chart([])


class TestComparison:
    def test_means_and_the_paired_change(self):
        before = [region(name, None, forced=[0, 0, 10, 5]) for name in "abcd"]
        after = [region(name, [0, 0, 10, 10] if name in "ab" else [20, 20, 30, 30], forced=[0, 0, 10, 10]) for name in "abcd"]
        rows = {(row.group, row.measure): row for row in comparison(before, after)}
        accuracy, mean = rows["region", "accuracy at IoU 0.5"], rows["region", "mean IoU"]
        assert accuracy.count == 4 and accuracy.before == (0, 0, 0)
        assert accuracy.after is not None and accuracy.after[0] == 0.5
        assert mean.before_given is not None and mean.before_given[0] == pytest.approx(0.5)
        assert mean.after_given == (1, 1, 1)
        assert accuracy.change is not None and accuracy.change[0] == 0.5 and accuracy.change[1] >= 0

    def test_a_moment_answered_without_its_route_is_a_miss(self):
        target = {"temporal": {"windows_sec": [[1.0, 3.0]]}}
        moments = [record(n, expected=("temporal",), emitted=(), target=target, expected_text="<temporal>") for n in "ab"]
        found = [replace(m, routed={"temporal": {"windows_sec": [[1.0, 2.0], [1.0, 3.0]]}}) for m in moments]
        rows = {row.measure: row for row in comparison(moments, found) if row.group == "temporal"}
        assert rows["mean IoU"].before == (0, 0, 0)
        assert rows["mean IoU"].after == pytest.approx((0.5, 0.5, 0.5))
        assert rows["R1 at IoU 0.3"].after == (1, 1, 1)

    def test_plain_questions_and_routes(self):
        plain = [record(n, expected=(), emitted=(), expected_text="Two.", text=text) for n, text in (("a", "two"), ("b", "three"))]
        routed = [replace(row, emitted=("region", "region")) for row in plain]
        rows = {row.group: row for row in comparison(plain, routed)}
        assert rows["questions"].before is not None and rows["questions"].before[0] == 0.5
        assert rows["questions"].before_given is None
        assert rows["routing"].before == (1, 1, 1) and rows["routing"].after == (0, 0, 0)

    def test_a_lone_sample_has_no_interval(self):
        (row, *_) = comparison([region("a", None)], [region("a", None)])
        assert row.count == 1 and row.before is row.change is None

    def test_answers_without_looking_stand_beside(self):
        before = [region(name, None) for name in "ab"]
        constant = [region("a", [0, 0, 10, 10]), region("b", [20, 20, 30, 30])]
        rows = {(row.group, row.measure): row for row in comparison(before, before, constant=constant)}
        assert rows["region", "accuracy at IoU 0.5"].constant is not None
        assert rows["region", "accuracy at IoU 0.5"].constant[0] == 0.5
        assert rows["routing", "right route"].constant is None, "its routes are the true ones"
        assert all(row.constant is None for row in comparison(before, before))

    def test_other_samples_are_refused(self):
        with pytest.raises(UsageError, match="same samples in the same order, got '1 records, not these 2'"):
            comparison([region("a", None), region("b", None)], [region("b", None)])
        both = [region("a", None), region("b", None)]
        with pytest.raises(UsageError, match="constant: expected records of the same samples in the same order"):
            comparison(both, both, constant=both[::-1])

    def test_overlap_in_words(self):
        assert overlap(region("a", [0, 0, 10, 5]), "region") == "IoU 0.50"
        assert overlap(region("a", None), "region") == "the region head was not asked"


def count(picture: Any, colour: str) -> int:
    return int((np.asarray(picture) == ImageColor.getrgb(colour)).all(-1).sum())


class TestPictures:
    def test_boxes_stand_on_the_frame_that_is_asked_about(self, say: Any):
        sample = say(0, "Where?", "<region>", region=[{"time_sec": 3.75, "xyxy": [10, 20, 30, 40]}])
        picture = box_picture(sample, {"boxes_xyxy": [[40, 4, 60, 24]]})
        pixels = np.asarray(picture)
        tile, scale = (picture.width + 4) // 4, (picture.width - 12) // 4 // 64
        green = np.argwhere((pixels == ImageColor.getrgb(GROUND_TRUTH)).all(-1))
        assert green[:, 1].min() == 3 * tile + 10 * scale and green[:, 1].max() == 3 * tile + 30 * scale - 1
        assert green[:, 0].min() == 20 * scale and green[:, 0].max() == 40 * scale - 1
        assert count(picture, PREDICTION) > 0
        assert count(box_picture(sample, None), PREDICTION) == 0

    def test_what_the_user_points_at_stands_on_the_first_frame(self, say: Any):
        target = [{"time_sec": 3.75, "xyxy": [10, 20, 30, 40]}]
        pointed, plain = (
            say(0, text, "<region>", boxes=boxes, region=target)
            for text, boxes in (("Where is <prompt:0>?", [[5, 5, 50, 50]]), ("Where is it?", []))
        )
        changed = np.argwhere((np.asarray(box_picture(pointed, None)) != np.asarray(box_picture(plain, None))).any(-1))
        assert len(changed) and changed[:, 1].max() < box_picture(plain, None).width // 4

    def test_the_patch_that_is_pointed_at_is_lit_and_the_others_are_dark(self, say: Any):
        attention = np.full((8, 16), 1e-3)
        attention[2, 6] = 0.5
        pixels = np.asarray(pointing_picture(say(0, "How many?", "three"), attention)).astype(float)
        tile = (pixels.shape[1] + 4) // 8
        patch = pixels[24:48, 2 * tile + 48 : 2 * tile + 72].mean()
        assert patch > 3 * pixels[:, : tile - 4].mean() > 0
        assert patch > 3 * pixels[48:72, 2 * tile + 48 : 2 * tile + 72].mean()

    @pytest.mark.parametrize(
        ("attention", "message"),
        [
            (np.ones((8, 15)), r"attention: expected \[frame, patch\], patches of a square grid, got \(8, 15\)"),
            (np.ones(16), "got \\(16,\\)"),
            (np.full((8, 16), np.nan), "finite weights from 0 up, got 'nan to nan'"),
            (np.full((8, 16), -1.0), "finite weights from 0 up, got '-1.0 to -1.0'"),
        ],
    )
    def test_wrong_attention_is_refused(self, say: Any, attention: Any, message: str):
        with pytest.raises(UsageError, match=message):
            pointing_picture(say(0, "How many?", "three"), attention)

    def test_masks_are_veils_over_true_outlines(self, world: Any):
        sample = world(1, "mask")[0]
        place = next(place for place, rle in enumerate(sample.targets.mask.rle) if rle is not None)
        rle = sample.targets.mask.rle[place].model_dump()
        truth = mask_picture(sample, None)
        assert count(truth, GROUND_TRUTH) > 0 and count(truth, PREDICTION) == 0
        same = {"times_sec": [0.0], "masks": [[rle]]}
        assert count(mask_picture(sample, same), PREDICTION) > 0
        hidden = mask_picture(sample, {"times_sec": [0.0], "masks": [[None]]})
        assert count(hidden, PREDICTION) == 0 and count(hidden, GROUND_TRUTH) == count(truth, GROUND_TRUTH)

    def test_tracks_are_true_boxes_and_the_box_that_the_user_drew(self, world: Any):
        sample = world(1, "track")[0]
        picture = mask_picture(sample, None)
        assert count(picture, GROUND_TRUTH) > 0 and count(picture, "#FFFFFF") > 0

    def test_windows_are_drawn_in_proportion_and_only_the_first_predicted_one(self, say: Any):
        sample = say(0, "When?", "<temporal>", temporal={"windows_sec": [[1.0, 3.0]]})
        both = window_picture(sample, {"windows_sec": [[1.0, 2.0], [0.0, 4.0]], "saliency": []})
        truth, model = count(both, GROUND_TRUTH), count(both, PREDICTION)
        assert model == pytest.approx(truth / 2, rel=0.05)
        assert count(window_picture(sample, None), PREDICTION) == 0

    def test_the_saliency_adds_a_panel(self, say: Any):
        sample = say(0, "When?", "<temporal>", temporal={"windows_sec": [[1.0, 3.0]]})
        curve = window_picture(sample, {"windows_sec": [], "saliency": [[0.5, 0.1], [1.5, 0.9]]})
        assert curve.height > window_picture(sample, {"windows_sec": []}).height

    def test_large_clips_are_made_smaller_and_their_boxes_with_them(self, tmp_path: Path):
        from tpo_lab.sample import Sample
        from tpo_lab.video import write_clip

        write_clip(tmp_path / "large.mp4", np.zeros((8, 300, 600, 3), np.uint8), 4.0)
        made = {
            "id": "large",
            "media": {"path": str(tmp_path / "large.mp4")},
            "conversation": [{"role": "user", "text": "Where?"}, {"role": "assistant", "text": "<region>"}],
            "targets": {"region": [{"time_sec": 1.75, "xyxy": [300, 150, 600, 300]}]},
        }
        sample = Sample.model_validate(made)
        shown = strip(sample, longest=200)
        assert shown.frames.shape == (8, 100, 200, 3) and shown.scale == pytest.approx(1 / 3)
        assert shown.nearest(0.0) == 0 and shown.nearest(9.9) == 7
        green = np.argwhere((np.asarray(box_picture(sample, None)) == ImageColor.getrgb(GROUND_TRUTH)).all(-1))
        # Half as wide and half as high as the frame of 256 x 128 that is shown.
        assert np.ptp(green, axis=0).tolist() == [63, 127]

    def test_a_sheet_has_a_row_for_each_sample(self, world: Any):
        samples = world(1, "region")[:2]
        assert clip_sheet(samples).height > 1.5 * clip_sheet(samples[:1]).height


class Outline(HTMLParser):
    """Counts tags and collects every address that an element names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]


@pytest.fixture(scope="module")
def page() -> Page:
    example = Example("Where is <b>it</b>?", "<region>", Image.new("RGB", (512, 128), "#336699"), "IoU 0.12")
    rows = comparison([region(n, None, forced=[0, 0, 5, 10]) for n in "ab"], [region(n, [0, 0, 10, 10]) for n in "ab"])
    return Page(
        title="A <title>",
        summary="What & why.",
        tiles=[("12%", "of it")],
        rows=rows,
        losses=loss_chart(METRICS),
        boxes=[example, example],
        windows=[example],
        masks=[example],
        routing=[confusion_chart(["none"], [[1]], "Before")],
        video=[],
        video_name="clip.mp4",
        durations={"data": (61.4, 2048.0), "before": (0.25, None)},
        settings={"seed": 3, "note": "<script>alert(1)</script>"},
    )


class TestPage:
    def test_everything_is_inside_and_nothing_is_fetched(self, page: Page):
        outline = Outline(render(page))
        assert outline.addresses and all(address.startswith("data:") for address in outline.addresses)
        assert {"script", "iframe", "object", "embed"}.isdisjoint(outline.tags)
        assert not re.search(r"@import|url\(", render(page))

    def test_tables_and_figures(self, page: Page):
        tags = Outline(render(page)).tags
        assert tags.count("table") == 3
        # One of losses, three examples, one confusion matrix.
        assert tags.count("figure") == 6 and tags.count("img") == 4 and tags.count("svg") == 2

    def test_sections_without_content_are_left_out(self, page: Page):
        assert "On a video file" not in render(page)
        assert "On a video file" in render(replace(page, video=page.boxes))

    def test_words_from_data_are_escaped(self, page: Page):
        text = render(page)
        assert "Where is &lt;b&gt;it&lt;/b&gt;?" in text and "A &lt;title&gt;" in text and "<script>" not in text

    def test_figures_are_written_out(self, page: Page):
        text = render(page)
        assert "1 min 01 s" in text and "2.00 GiB" in text and "0.2 s" in text
        # 0 to 1 in both samples: a change of 100 points whose interval leaves zero out.
        assert '<td class="n up">+100.0' in text
        assert '<p class="down">' not in text and "Only a test." in render(replace(page, caution="Only a test."))

    @pytest.mark.browser
    @pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
    def test_it_opens_offline_and_fits_the_window(self, page: Page, tmp_path: Path):
        playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
        path = tmp_path / "report.html"
        path.write_text(render(page), encoding="utf-8")
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
            tab = browser.new_page(viewport={"width": 1100, "height": 800})
            asked: list[str] = []
            wrong: list[str] = []
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("console", lambda message: wrong.append(message.text))
            tab.goto(path.as_uri())
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
            assert wrong == []
            assert tab.locator("table").count() == 3 and tab.locator("figure").count() == 6
            assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            for width in (1100, 420):
                tab.set_viewport_size({"width": width, "height": 800})
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
            browser.close()
