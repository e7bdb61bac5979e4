"""Packing, padding and the attention mask: nothing that should not be seen is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Batch, Row
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.media import Frames
from tpo_lab.model import Forward, TPOModel
from tpo_lab.sample import Sample

BOX = [{"time_sec": 3.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]
WINDOW = {"windows_sec": [[1.0, 2.5]]}


@pytest.fixture
def samples(say: Callable[..., Sample]) -> list[Sample]:
    """Four conversations about one clip: text, one head, two heads with three slots, two turns with a prompt."""
    return [
        say(0, "How many things are there?", "three"),
        say(0, "Where is the red ball?", "It is here <region>", region=BOX),
        say(0, "Where are both, and when do they meet?", "<region> <region> <temporal> there", region=[*BOX, *BOX], temporal=WINDOW),
        say(0, "Is <prompt:0> red?", "yes", "Where is it?", "<region>.", boxes=[[0, 16, 32, 64]], region=BOX),
    ]


@pytest.fixture
def row(tiny: TPOModel, samples: list[Sample]) -> Row:
    return Frames(tiny.backbone).row(samples)


def alone(row: Row, *places: int) -> Row:
    return Row(row.frames, row.clip, tuple(row.samples[place] for place in places), row.key)


def run(model: TPOModel, *rows: Row) -> tuple[Batch, Forward]:
    batch = model.collate(rows)
    with torch.no_grad():
        return batch, model(batch)


def test_collate_masks_labels_exactly(tiny: TPOModel, row: Row) -> None:
    batch, encode = tiny.collate([row]), tiny.encoder.encode
    learnt, routes = [], []
    for sample in row.samples:
        encoded = encode([(turn.role, turn.text) for turn in sample.conversation])
        learnt += [token for token, kind in zip(encoded.ids, encoded.kinds, strict=True) if kind.name in ("TEXT", "ROUTE")]
        routes += [kind.name == "ROUTE" for kind in encoded.kinds if kind.name in ("TEXT", "ROUTE")]
    assert batch.target.tolist() == learnt
    assert batch.is_route.tolist() == routes
    assert int(batch.is_route.sum()) == 5
    assert not set(batch.target.tolist()) & {*tiny.tokens.ids.slot.values(), tiny.tokens.ids.prompt}
    assert batch.target.tolist().count(tiny.encoder.end_id) == 5, "one end for each assistant turn"


def test_each_target_is_predicted_from_the_last_token_before_it_that_is_no_slot(tiny: TPOModel, row: Row) -> None:
    batch = tiny.collate([row])
    line, slots = batch.ids[0].tolist(), batch.is_slot[0].tolist()
    for (_, place), target in zip(batch.predictor.tolist(), batch.target.tolist(), strict=True):
        after = next(token for token in range(place + 1, len(line)) if not slots[token])
        assert line[after] == target
        assert not slots[place]
        assert batch.positions[0, after] == batch.positions[0, place] + 1


def test_slots_per_head_and_answer(tiny: TPOModel, row: Row) -> None:
    batch = tiny.collate([alone(row, 0), alone(row, 2, 1), alone(row, 3)])
    region, temporal = batch.slots["region"], batch.slots["temporal"]
    assert region.row.tolist() == [1, 1, 1, 2]
    assert region.answer.tolist() == [0, 0, 1, 2]
    assert (region.slots_per_answer, temporal.slots_per_answer) == ((2, 1, 1), (1,))
    assert [len(annotation) for annotation in region.annotations] == [2, 1, 1]
    assert temporal.annotations[0]["windows_sec"] == [[1.0, 2.5]]
    assert batch.ids[region.row, region.token].eq(tiny.tokens.ids.slot["region"]).all()
    assert batch.ids[region.row, region.token - 1].eq(tiny.tokens.ids.route["region"]).all()
    asked = [tiny.backbone.tokenizer.decode(batch.ids[1, start:end]).strip() for start, end in region.question[:3].tolist()]
    assert asked == [*["where are both, and when do they meet?"] * 2, "where is the red ball?"]


def test_prompts_are_normalised_by_the_original_frame_in_the_order_of_their_places(tiny: TPOModel, say: Callable[..., Sample]) -> None:
    sample = say(0, "<prompt:1> or <prompt:0>?", "no", boxes=[[0, 16, 32, 64], [16, 0, 64, 32]])
    frames = Frames(tiny.backbone).row([sample])
    wide = Row(frames.frames, ClipInfo(128, 64, 4.0, frames.clip.times_sec), (sample,), "wide")
    batch = tiny.collate([frames, wide])
    assert batch.prompts.boxes_xyxy.tolist() == [[0.25, 0, 1, 0.5], [0, 0.25, 0.5, 1], [0.125, 0, 0.5, 0.5], [0, 0.25, 0.25, 1]]


def seen(batch: Batch, row: int, query: int, key: int) -> bool:
    """Who may look at whom, from the rules."""
    if query == key:
        return True
    own, other = int(batch.segment[row, query]), int(batch.segment[row, key])
    if own == -1 or other == -1 or key > query or bool(batch.is_slot[row, key]):
        return False
    return other in (0, own)


def test_attention_mask_equals_the_rules_one_by_one(tiny: TPOModel, row: Row) -> None:
    short = Row(row.frames[:1], replace(row.clip, times_sec=(0.0,)), (row.samples[2], row.samples[0]), "image")
    batch = tiny.collate([row, short])
    mask = batch.attention_mask()
    rows, count = batch.ids.shape
    assert mask.shape == (rows, 1, count, count)
    cut = slice(len(tiny.collate.prefix((0.0,))) - 3, count)  # all of the short row's text and padding, and frames of the long row
    tokens = range(count)[cut]
    slow = [[[seen(batch, r, q, k) for k in range(count)] for q in tokens] for r in range(rows)]
    assert mask[:, 0, cut].tolist() == slow


@settings(max_examples=40, deadline=None)
@given(segments=st.lists(st.integers(0, 3), min_size=1, max_size=9), flags=st.integers(0, 511), padding=st.integers(0, 3))
def test_attention_mask_of_any_layout(segments: list[int], flags: int, padding: int) -> None:
    ordered = sorted(segments)
    count = len(ordered) + padding
    segment = torch.tensor([ordered + [-1] * padding])
    slot = torch.tensor([[bool(flags >> place & 1) and place < len(ordered) for place in range(count)]])
    empty = torch.zeros(0)
    batch = Batch(torch.zeros(1, count), torch.zeros(1, count), segment, slot, empty, empty, empty, empty, {}, ())
    expected = [[seen(batch, 0, query, key) for key in range(count)] for query in range(count)]
    assert batch.attention_mask()[0, 0].tolist() == expected


def test_positions_go_on_from_the_prefix_in_every_conversation_and_slots_take_none(tiny: TPOModel, row: Row) -> None:
    batch, prefix = tiny.collate([row]), len(tiny.collate.prefix(row.clip.times_sec))
    assert batch.positions[0, :prefix].tolist() == list(range(prefix))
    for number in range(1, 5):
        here = batch.segment[0] == number
        words = batch.positions[0][here & ~batch.is_slot[0]].tolist()
        assert words == list(range(prefix, prefix + len(words)))
    for token in batch.is_slot[0].nonzero()[:, 0].tolist():
        assert batch.positions[0, token] == batch.positions[0, token - 1] + 1


def test_a_packed_row_equals_its_conversations_one_by_one(tiny: TPOModel, row: Row) -> None:
    _, packed = run(tiny, row)
    single = [run(tiny, alone(row, place))[1] for place in range(4)]
    assert torch.allclose(packed.logits, torch.cat([one.logits for one in single]), atol=1e-5, rtol=0)
    for head in ("region", "temporal"):
        apart = torch.cat([one.task_embeddings[head] for one in single if head in one.task_embeddings])
        assert torch.allclose(packed.task_embeddings[head], apart, atol=1e-5, rtol=0)
    assert packed.task_embeddings["region"].std() > 0.1, "embeddings that are all alike would prove nothing"


def test_padding_changes_nothing(tiny: TPOModel, row: Row, say: Callable[..., Sample]) -> None:
    long = say(0, "Where is the thing that is near the large blue ring " * 3 + "?", "far away " * 9)
    _, short = run(tiny, alone(row, 2))
    batch, padded = run(tiny, alone(row, 2), Row(row.frames, row.clip, (long,), row.key))
    assert int((batch.segment[0] == -1).sum()) > 20
    assert torch.allclose(short.logits, padded.logits[: len(short.logits)], atol=1e-5, rtol=0)
    assert torch.allclose(short.task_embeddings["region"], padded.task_embeddings["region"], atol=1e-5, rtol=0)


def hidden_with(model: TPOModel, batch: Batch, change: Callable[[], None] | None = None) -> Tensor:
    if change is not None:
        change()
    with torch.no_grad():
        return model(batch).hidden


def test_a_slot_is_invisible_to_everything_after_it(tiny: TPOModel, row: Row) -> None:
    batch = tiny.collate([alone(row, 2)])
    before = hidden_with(tiny, batch)

    def shift() -> None:
        with torch.no_grad():
            tiny.tokens.task["region"].add_(5.0)

    after = hidden_with(tiny, batch, shift)
    slots = batch.slots["region"].token
    others = torch.ones(batch.ids.shape[1], dtype=torch.bool)
    others[slots] = False
    assert torch.equal(before[0, others], after[0, others])
    assert (before[0, slots] - after[0, slots]).abs().amax(-1).gt(0.1).all()


def test_questions_of_one_row_do_not_see_each_other(tiny: TPOModel, row: Row) -> None:
    batch = tiny.collate([row])
    before = hidden_with(tiny, batch)
    first = batch.segment[0] == 2
    places = (first & ~batch.is_slot[0]).nonzero()[:5, 0]
    batch.ids[0, places] = batch.ids[0, places].flip(0)
    after = hidden_with(tiny, batch)
    assert torch.equal(before[0, ~first], after[0, ~first])
    assert not torch.equal(before[0, first], after[0, first])


def test_words_see_the_video(tiny: TPOModel, row: Row) -> None:
    batch = tiny.collate([alone(row, 1)])
    features = tiny.encode_video(batch.rows)
    grey = [VideoFeatures(both.tokens * 0, both.frames) for both in features]
    with torch.no_grad():
        assert (tiny(batch, features).logits - tiny(batch, grey).logits).abs().max() > 1e-3


def test_images_and_videos_mix_in_one_batch(tiny: TPOModel, row: Row) -> None:
    image = Row(row.frames[:1], replace(row.clip, times_sec=row.clip.times_sec[:1]), row.samples[1:3], "image")
    twice = replace(row.clip, times_sec=row.clip.times_sec * 2)
    long = Row(torch.cat([row.frames, row.frames]), twice, row.samples[:2], "long")
    assert [len(r.clip.times_sec) for r in (image, row, long)] == [1, 4, 8]
    assert len({len(tiny.collate.prefix(r.clip.times_sec)) for r in (image, row, long)}) == 3
    _, mixed = run(tiny, image, long, row)
    parts = [run(tiny, part)[1] for part in (image, long, row)]
    assert torch.allclose(mixed.logits, torch.cat([part.logits for part in parts]), atol=1e-5, rtol=0)
    joined = torch.cat([part.task_embeddings["region"] for part in parts])
    assert torch.allclose(mixed.task_embeddings["region"], joined, atol=1e-5, rtol=0)


def test_batch_moves_to_a_device_as_a_whole(tiny: TPOModel, row: Row) -> None:
    batch = tiny.collate([row])
    moved = batch.to("meta")
    tensors = [
        moved.ids,
        moved.target,
        moved.prompts.boxes_xyxy,
        moved.prompts.drawn,
        moved.slots["region"].row,
        moved.slots["temporal"].question,
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.slots["region"].clips == batch.slots["region"].clips
    assert moved.rows is batch.rows and batch.ids.device.type == "cpu"


def test_collate_refuses_no_rows(tiny: TPOModel) -> None:
    with pytest.raises(UsageError, match=r"rows: expected at least one row, got 0"):
        tiny.collate([])


def test_collate_refuses_a_mention_of_a_prompt_that_is_missing(tiny: TPOModel, say: Callable[..., Sample]) -> None:
    sample = say(0, "<prompt:0>", "no", boxes=[[0, 0, 1, 1]]).model_copy(update={"id": "p", "prompts": ()})
    with pytest.raises(UsageError, match=r"sample p: prompts: expected an entry for <prompt:0>, got 0"):
        tiny.collate([Frames(tiny.backbone).row([sample])])


def test_points_and_scribbles_are_collated_beside_boxes(tiny: TPOModel, say: Callable[..., Sample]) -> None:
    prompts = [{"type": "point", "xy": [16, 32]}, {"type": "box", "xyxy": [0, 16, 32, 64]}, {"type": "scribble", "xys": [[0, 0], [64, 32]]}]
    given = say(0, "<prompt:0> or <prompt:1> or <prompt:2>?", "no", boxes=[[0, 0, 1, 1]] * 3)
    sample = Sample.model_validate({**given.model_dump(mode="json"), "prompts": prompts})
    pointed = tiny.collate([Frames(tiny.backbone).row([sample])]).prompts
    assert pointed.boxes_xyxy.tolist() == [[0.25, 0.5, 0.25, 0.5], [0, 0.25, 0.5, 1], [0, 0, 1, 0.5]]
    assert pointed.is_box.tolist() == [False, True, False]
    assert pointed.row.tolist() == [0, 0, 0] and pointed.frame.tolist() == [0, 0, 0]
    assert pointed.drawn.sum((1, 2)).tolist() == pytest.approx([1, 1, 1])
