"""AS-V2: tags as markers and boxes, the two conventions of its files, which turns become samples, broken records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def told(*texts: str, **changed: object) -> dict:
    """A record of a 200 x 100 image."""
    turns = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
    return {"id": "x", "image": "a.jpg", "width": 200, "height": 100, "conversations": turns, **changed}


def put(folder: Path, row: object) -> Path:
    around = [told("Where?", "<box>[[0, 0, 999, 999]]</box>", id=name) for name in ("good0", "good1")]
    path = folder / "as_v2.json"
    path.write_text(json.dumps([around[0], row, around[1]]))
    return path


GOOD = ["as-v2-good0-turn0", "as-v2-good1-turn0"]


def test_turns_and_boxes_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take("as-v2", tiny / "as-v2" / "as_v2.json", split="train")
    assert [(each.id, each.meta["task"]) for each in samples] == [
        ("as-v2-0-turn0", "region"),
        ("as-v2-0-turn2", "conversation"),
        ("as-v2-1", "conversation"),
        ("as-v2-1 #2-turn0", "region"),
    ]
    described, pointed, words, found = samples
    assert [turn.text for turn in described.conversation] == [
        "Please describe it in detail.",
        "A dog <region> chases <region> <region> two balls <region> <region>.",
    ]
    boxes = [[round(side, 3) for side in each.xyxy] for each in described.targets.region]
    dog, ball = [0, 0, 66.667, 100], [133.333, 0, 200, 33.333]
    assert boxes == [dog, dog, ball, ball, [66.667, 33.333, 133.333, 66.667]]
    assert described.meta["size"] == [200, 100] and not described.prompts
    assert [len(described.meta["raw"]["conversations"]), described.meta["raw"]["id"]] == [2, 0]
    assert [turn.text for turn in pointed.conversation] == ["What is in region1 <prompt:0>?", "A ball."]
    assert pointed.prompts[0].xyxy == pytest.approx((200 / 3, 100 / 3, 400 / 3, 200 / 3)) and not pointed.targets.names
    assert [turn.text for turn in words.conversation] == ["Who is there?", "Nobody; a sign says [region]."]
    assert [turn.text for turn in found.conversation] == ["Where is the cat from <prompt:0>?", "The cat <region>"]
    assert found.prompts[0].xyxy == pytest.approx((0, 0, 100, 200 / 3))
    assert found.targets.region[0].xyxy == pytest.approx((100 / 3, 200 / 3, 100, 400 / 3))
    assert not dropped and reading.counts["adjusted"] == {"turn without boxes left out beside one with boxes": 1}
    same_from_file(samples)


def test_boxes_of_the_square_are_moved_by_its_padding_and_cut(take, tiny):
    samples, _, reading = take("as-v2", tiny / "as-v2" / "as_v2.json", variant="square")
    wide, tall = samples[0].targets.region, samples[3].targets.region
    assert wide[2].xyxy == pytest.approx((400 / 3, 0, 200, 200 / 3 - 50))
    assert wide[4].xyxy == pytest.approx((200 / 3, 200 / 3 - 50, 400 / 3, 400 / 3 - 50))
    assert tall[0].xyxy == pytest.approx((200 / 3 - 50, 200 / 3, 100, 400 / 3))
    assert reading.counts["adjusted"]["box cut at the edge of its frame"] == 6


def test_lines_and_a_list_give_the_same(take, tiny, tmp_path: Path):
    path = tiny / "as-v2" / "as_v2.json"
    lines = tmp_path / "as_v2.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in json.loads(path.read_text())))
    one, other = ([each.model_dump() for each in take("as-v2", source)[0]] for source in (lines, path))
    assert one == other and len(one) == 4


def test_several_prompts_are_counted_and_foreign_markers_lose_their_brackets(take, tmp_path: Path):
    question = "<image>\nIs <ref>it <prompt:7></ref><box>[[0, 0, 9, 9], [1, 1, 9, 9]]</box>on<box>[[2, 2, 9, 9]]</box>, or <temporal>?"
    sample = take("as-v2", put(tmp_path, told(question, "Yes\n\n<ref>here</ref> <box>[[0,0,9,9]]</box>\nor <mask>.")))[0][1]
    assert sample.conversation[0].text == "Is it [prompt:7] <prompt:0> <prompt:1> on <prompt:2>, or [temporal]?"
    assert sample.conversation[1].text == "Yes\n\nhere <region>\nor [mask]." and len(sample.prompts) == 3


def test_a_conversation_without_boxes_needs_no_size(take, tmp_path: Path):
    row = told("Who?", "Me.", "Why?", "So.")
    sample = take("as-v2", put(tmp_path, {name: row[name] for name in ("id", "image", "conversations")}))[0][1]
    assert [turn.text for turn in sample.conversation] == ["Who?", "Me.", "Why?", "So."] and "size" not in sample.meta


def boxed(written: str) -> dict:
    return told("Where?", f"Here <box>{written}</box>.")


@pytest.mark.parametrize(
    ("row", "where", "field", "rule"),
    [
        (boxed("[[0, 0, 5, 1000]]"), ", conversations[0]", "conversations[1].value", "box_numbers"),
        (boxed("[[0, 0, 5, -1]]"), ", conversations[0]", "conversations[1].value", "box_numbers"),
        (boxed("[[0, 0, 5, 5.5]]"), ", conversations[0]", "conversations[1].value", "box_numbers"),
        (boxed("[[0, 0, 5]]"), ", conversations[0]", "conversations[1].value", "box_numbers"),
        (boxed("[0, 0, 5, 5]"), ", conversations[0]", "conversations[1].value", "box_numbers"),
        (boxed("[]"), ", conversations[0]", "conversations[1].value", "box_numbers"),
        (boxed("a dog"), ", conversations[0]", "conversations[1].value", "box_numbers"),
        (boxed("[[0, 0, 5, 5], [5, 0, 5, 5]]"), ", conversations[0]", "conversations[1].value[1]", "box_area"),
        (told("Where?", "Here <box>[[0, 0, 5, 5]]."), ", conversations[0]", "conversations[1].value", "box_tags"),
        (told("Where?", "[[0, 0, 5, 5]]</box>"), ", conversations[0]", "conversations[1].value", "box_tags"),
        (told("Where?", "<box><box>[[0, 0, 5, 5]]</box>"), ", conversations[0]", "conversations[1].value", "box_tags"),
        (told("<image>", "Here <box>[[0, 0, 5, 5]]</box>"), ", conversations[0]", "conversations[0].value", "words"),
        (told("<image>", "Yes."), "", "conversations[0].value", "words"),
        (told("Where?"), "", "conversations", "turns_paired"),
        (told(), "", "conversations", "turns_paired"),
        (told("Where?", " "), ", conversations[1]", "value", "words"),
        ({**told("a", "b"), "conversations": [{"from": "gpt", "value": "a"}]}, ", conversations[0]", "from", "roles_alternate"),
        ({**told("a", "b"), "conversations": ["a", "b"]}, ", conversations[0]", "", "object"),
        ({**boxed("[[0, 0, 5, 5]]"), "width": None}, ", conversations[0]", "width", "number"),
        ({**told("Where?", "Here."), "image": ["a.jpg", "b.jpg"]}, "", "image", "words"),
        ({name: value for name, value in told("a", "b").items() if name != "id"}, "", "", "missing"),
    ],
)
def test_a_bad_record_is_named_and_the_others_go_on(take, tmp_path: Path, row, where, field, rule):
    path = put(tmp_path, row)
    samples, dropped, _ = take("as-v2", path)
    assert [each.id for each in samples] == GOOD
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, [1]{where}", field, rule)]


def test_a_box_in_the_padding_alone_is_refused(take, tmp_path: Path):
    # of a square of 200 the image is the middle half
    path = put(tmp_path, boxed("[[0, 0, 999, 200]]"))
    samples, dropped, _ = take("as-v2", path, variant="square")
    assert [each.id for each in samples] == GOOD and [each.rule for each in dropped] == ["box_in_frame"]


def test_a_thousand_broken_conversations_are_dropped_or_read(withstands, tmp_path: Path):
    def written(raw: bytes) -> Path:
        path = put(tmp_path, None)
        try:
            return put(tmp_path, json.loads(raw))
        except (ValueError, UnicodeDecodeError):
            path.write_bytes(raw)
            return path

    whole = told("<image>\nWhat is <box>[[1, 400, 900, 600]]</box>?", "<ref>A</ref><box>[[1, 400, 900, 600]]</box>", "Why?", "So.")
    for variant in ("plain", "square"):
        withstands("as-v2", written, whole, good=GOOD, rounds=500, variant=variant)


def test_a_thousand_garbled_texts_are_dropped_or_read(take, tmp_path: Path):
    import random

    rng = random.Random(0)
    pieces = [
        "<box>",
        "</box>",
        "[[0, 0, 5, 5]]",
        "[[0,",
        "<ref>",
        "</ref>",
        "<pred>",
        "<region>",
        "<prompt:0>",
        "<prompt:",
        "<",
        "image>",
        " ",
        "a",
    ]
    rows = [told(*("".join(rng.choices(pieces, k=rng.randint(1, 7))) for _ in range(2)), id=str(number)) for number in range(1000)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    samples, dropped, _ = take("as-v2", path)
    assert len(samples) > 100 and {each.rule for each in dropped} <= {"words", "box_tags", "box_numbers"}
