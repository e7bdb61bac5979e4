"""The protocol: a third head in a few lines, the fp32 guard, the checks of the visual input, and the registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import HEADS, ClipInfo, Head, HeadSettings, RegionHead, SimpleTemporalHead, Visual, build_head, register
from tpo_lab.losses import reduce_mean

SLOTS, FRAMES, DIM = 3, 5, 8
CLIP = ClipInfo(width=80, height=60, duration_sec=10.0, times_sec=(1.0, 3.0, 5.0, 7.0, 9.0))


class CountHead(Head[Tensor, Tensor]):
    """How many objects there are: everything that a user has to write for a new head."""

    name = "count"

    def __init__(self, embed_dim: int, settings: HeadSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        self.linear = nn.Linear(embed_dim, 1)

    def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
        return self.linear(task_embedding)[:, 0]

    def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"mse": (prediction - target).square()}


@pytest.fixture
def registry() -> Iterator[dict[str, dict[str, Any]]]:
    before = {name: dict(variants) for name, variants in HEADS.items()}
    yield HEADS
    HEADS.clear()
    HEADS.update(before)


def visual(slots: int = SLOTS, **changed: Any) -> Visual:
    plain = Visual(
        times_sec=torch.tensor(CLIP.times_sec).repeat(slots, 1),
        frame_valid=torch.ones(slots, FRAMES, dtype=torch.bool),
        duration_sec=torch.full((slots,), CLIP.duration_sec),
        size_wh=torch.tensor([[80.0, 60.0]]).repeat(slots, 1),
        answer=torch.arange(slots),
    )
    return replace(plain, **changed)


def embedding(slots: int = SLOTS, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(slots, DIM, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_a_new_head_goes_from_annotation_to_answer_on_defaults_alone(registry: dict[str, dict[str, Any]]) -> None:
    register(CountHead)
    head = build_head("count", DIM)
    items = [head.encode_target(2, CLIP), head.encode_target(7, CLIP)]
    target = head.collate_targets(items, [1, 2], "cpu")
    assert target.tolist() == [2, 7, 7]
    answer = torch.tensor([0, 1, 1])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(120):
        values = head.losses(head.predict(embedding(), visual(answer=answer)), target)
        optimizer.zero_grad()
        sum(head.weights()[term] * reduce_mean(each) for term, each in values.items()).backward()
        optimizer.step()
    decoded = head.decode(head(embedding(), visual(answer=answer)), [CLIP, CLIP], answer)
    assert decoded[0]["count"] == pytest.approx([2], abs=0.05)
    assert decoded[1]["count"] == pytest.approx([7, 7], abs=0.05)
    assert head.diagnostics(target, target) == {}
    json.dumps(decoded)


def test_a_head_without_predict_cannot_be_built() -> None:
    class Nothing(Head[Tensor, Tensor]):
        name = "nothing"

    with pytest.raises(TypeError, match=r"losses.*predict"):
        Nothing(DIM)


def test_default_collation_refuses_items_that_do_not_stack_or_do_not_fit() -> None:
    head = CountHead(DIM)
    with pytest.raises(UsageError, match=r"items: expected one per answer, 3, got 2"):
        head.collate_targets([torch.zeros(()), torch.zeros(())], [1, 1, 1], "cpu")
    with pytest.raises(UsageError, match=r"one shape, got \[\(1,\), \(2,\)\].*Override CountHead.collate_targets"):
        head.collate_targets([torch.zeros(1), torch.zeros(2)], [1, 1], "cpu")
    assert head.collate_targets([], [], "cpu").shape == (0,)


def test_default_decoding_needs_one_finite_tensor() -> None:
    head = CountHead(DIM)
    with pytest.raises(UsageError, match=r"expected one tensor .*got 'dict'\. Override CountHead\.decode"):
        head.decode({}, [CLIP], torch.tensor([0]))  # type: ignore[arg-type]
    with pytest.raises(TPOError, match="The count head predicted 1 of 2 values that are not finite"):
        head.decode(torch.tensor([1.0, float("nan")]), [CLIP], torch.tensor([0, 0]))


@pytest.mark.parametrize("head", [CountHead(DIM), RegionHead(DIM), SimpleTemporalHead(DIM)], ids=lambda head: head.name)
def test_heads_work_in_fp32_under_autocast_and_with_bf16_embeddings(head: Head[Any, Any]) -> None:
    narrow = embedding(dtype=torch.bfloat16)
    expected = head.predict(narrow.float(), visual())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = head.predict(narrow, visual())
    for got, want in zip(tensors(prediction), tensors(expected), strict=True):
        assert got.dtype != torch.bfloat16
        assert torch.equal(got, want)


def tensors(prediction: Any) -> list[Tensor]:
    return [prediction] if isinstance(prediction, Tensor) else list(vars(prediction).values())


def test_losses_run_outside_autocast() -> None:
    seen = []

    class Spy(CountHead):
        name = "spy"

        def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().losses(prediction, target)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        Spy(DIM).losses(torch.zeros(2), torch.zeros(2))
    assert seen == [False]


def test_the_gradient_reaches_a_bf16_task_embedding() -> None:
    narrow = embedding(dtype=torch.bfloat16).requires_grad_()
    CountHead(DIM).predict(narrow, visual()).sum().backward()
    assert narrow.grad is not None
    assert narrow.grad.abs().sum() > 0


def test_a_head_cast_to_bf16_is_refused_unless_that_part_is_frozen() -> None:
    head = CountHead(DIM).bfloat16()
    with pytest.raises(UsageError, match=r"count head, parameter linear\.weight: expected torch\.float32, got torch\.bfloat16"):
        head.predict(embedding(), visual())
    head = CountHead(DIM)
    head.encoder = nn.Linear(2, 2).bfloat16().requires_grad_(False)
    assert head.predict(embedding(), visual()).shape == (SLOTS,)


def test_embeddings_of_another_width_or_count_are_refused() -> None:
    head = CountHead(DIM)
    with pytest.raises(UsageError, match=r"task_embedding: expected \[slot, d=8\], got \(3, 9\)"):
        head.predict(torch.zeros(SLOTS, 9), visual())
    with pytest.raises(UsageError, match=r"visual\.answer: expected \[slot=2\], got \(3,\)"):
        head.predict(torch.zeros(2, DIM), visual())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("frame_valid", torch.ones(SLOTS, 4, dtype=torch.bool), r"visual\.frame_valid: expected \[slot=3, frame=5\], got \(3, 4\)"),
        ("frame_valid", torch.ones(SLOTS, FRAMES), r"visual\.frame_valid: expected torch\.bool, True = valid, got torch\.float32"),
        ("size_wh", torch.ones(SLOTS, 3), r"visual\.size_wh: expected \[slot=3, wh=2\], got \(3, 3\)"),
        ("frames", torch.zeros(SLOTS, FRAMES, 3, 6, 4), r"visual\.frames: expected torch\.uint8, 0 to 255, got torch\.float32"),
        ("frames", torch.zeros(SLOTS, FRAMES, 6, 4, 3, dtype=torch.uint8), r"visual\.frames: .*rgb=3.*got \(3, 5, 6, 4, 3\)"),
        ("frame_features", torch.zeros(SLOTS, 2, 4, 6), r"visual\.frame_features: expected \[slot=3, frame=5, .*got \(3, 2, 4, 6\)"),
    ],
)
def test_a_visual_field_that_does_not_fit_is_named(field: str, value: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        visual(**{field: value}).validate()


def test_query_words_and_their_mask_must_agree() -> None:
    words = visual(query_features=torch.zeros(SLOTS, 7, 4), query_valid=torch.ones(SLOTS, 6, dtype=torch.bool))
    with pytest.raises(UsageError, match=r"visual\.query_valid: expected \[slot=3, token=7\], got \(3, 6\)"):
        words.validate()


def test_what_a_head_needs_must_be_there() -> None:
    class Watcher(CountHead):
        name = "watcher"
        needs = frozenset({"frame_features"})

        def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
            return super().predict(task_embedding, visual)

    with pytest.raises(UsageError, match=r"visual\.frame_features: expected a tensor, as the head's `needs` says, got None"):
        Watcher(DIM).predict(embedding(), visual())
    assert Watcher(DIM).predict(embedding(), visual(frame_features=torch.zeros(SLOTS, FRAMES, 4, 6))).shape == (SLOTS,)


def test_an_unknown_need_is_refused_when_the_class_is_defined() -> None:
    with pytest.raises(UsageError, match=r"Wrong\.needs: .*frame_features, frame_states, frames, query, got 'frame'"):

        class Wrong(CountHead):
            needs = frozenset({"frame"})


def test_visual_moves_every_tensor() -> None:
    moved = visual(frames=torch.zeros(SLOTS, FRAMES, 3, 4, 6, dtype=torch.uint8)).to("meta")
    devices = {name: value.device.type for name, value in vars(moved).items() if value is not None}
    assert devices == dict.fromkeys(["times_sec", "frame_valid", "duration_sec", "size_wh", "answer", "frames"], "meta")


@pytest.mark.parametrize("name", ["region", "temporal"])
def test_a_head_is_built_again_from_its_json_spec_and_its_repr(name: str) -> None:
    import tpo_lab.heads as heads

    head = build_head(name, DIM, hidden_dim=6)
    again = build_head(json.loads(json.dumps(head.spec())), DIM)
    again.load_state_dict(head.state_dict())
    assert again.settings == head.settings
    assert again.settings != build_head(name, DIM).settings
    for got, want in zip(tensors(again.predict(embedding(), visual())), tensors(head.predict(embedding(), visual())), strict=True):
        assert torch.equal(got, want)
    assert repr(eval(repr(head), vars(heads))) == repr(head)


def test_settings_given_by_keyword_win_over_the_spec() -> None:
    spec = build_head("region", DIM, loss="paper").spec()
    assert build_head(spec, DIM, loss="official").spec() == {**spec, "loss": "official"}


def test_unknown_names_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"head: expected one of mask, region, temporal, got 'regoin'\. Did you mean 'region'"):
        build_head("regoin", DIM)
    with pytest.raises(UsageError, match=r"variant of the temporal head: expected one of cg-detr, cg-detr-pointing, simple, got 'cg'"):
        build_head("temporal", DIM, head="cg")
    with pytest.raises(UsageError, match=r"setting of the region head \(mlp\): .*weight_giou.*got 'weight_gio'.*'weight_giou'"):
        build_head("region", DIM, weight_gio=1.0)


def test_registering_takes_a_free_key_or_the_same_class_again(registry: dict[str, dict[str, Any]]) -> None:
    class Other(CountHead):
        pass

    assert register(register(CountHead)) is CountHead
    with pytest.raises(UsageError, match=r"Other\.variant: expected a free key; CountHead holds 'count', got 'default'"):
        register(Other)
    Other.variant = "other"
    register(Other)
    assert list(registry["count"]) == ["default", "other"]
    assert type(build_head("count", DIM)) is CountHead
    assert type(build_head("count", DIM, head="other")) is Other


def test_a_class_without_a_name_is_not_registered(registry: dict[str, dict[str, Any]]) -> None:
    class Nameless(CountHead):
        name = ""

    with pytest.raises(UsageError, match=r"Nameless\.name: expected the head's name"):
        register(Nameless)


def test_parts_reach_the_class_built(registry: dict[str, dict[str, Any]]) -> None:
    @register
    class WithEncoder(CountHead):
        name = "with-encoder"

        def __init__(self, embed_dim: int, settings: HeadSettings | None = None, *, encoder: nn.Module) -> None:
            super().__init__(embed_dim, settings)
            self.encoder = encoder

    encoder = nn.Identity()
    assert build_head("with-encoder", DIM, parts={"encoder": encoder}).encoder is encoder


def test_settings_of_another_head_and_a_width_of_zero_are_refused() -> None:
    @dataclass(frozen=True)
    class Narrow(HeadSettings):
        weight_mse: float = 0.25

    class Weighted(CountHead):
        Settings: ClassVar[type[HeadSettings]] = Narrow

    assert Weighted(DIM).weights() == {"mse": 0.25}
    assert CountHead(DIM).weights()["mse"] == 1
    with pytest.raises(UsageError, match=r"settings: expected Narrow\(\.\.\.\), got HeadSettings\(\)"):
        Weighted(DIM, HeadSettings())
    with pytest.raises(UsageError, match=r"embed_dim: expected a width of at least 1, got 0"):
        CountHead(0)
