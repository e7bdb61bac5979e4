"""The whole head: shapes, gradients, padding, the batches that the published code fails on, overfitting, answers and checkpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tpo_lab import checkpoint
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import Visual, build_head
from tpo_lab.heads.cg_detr import NANO
from tpo_lab.heads.cg_detr.head import append
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.sample import Sample
from tpo_lab.spans import span_iou
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import fit

OVERFIT_STEPS = 120
WINDOWS = [[[2.0, 6.0]], [[0.0, 3.0], [8.0, 13.0]], [[5.0, 14.0]], [[1.0, 2.0]], [[0.0, 14.0]]]
GRADED = {"windows_sec": [[2.0, 6.0]], "saliency": {"step_sec": 2.0, "scores": [0, 4, 3, 1, 0, 0, 0]}}


def tensors(values: Any) -> dict[str, Tensor]:
    return {field.name: getattr(values, field.name) for field in fields(values) if isinstance(getattr(values, field.name), Tensor)}


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_shapes_and_gradients_of_small_and_large_batches(bench: Any, slots: int) -> None:
    head, embedding = bench.head(), bench.embedding(slots).requires_grad_()
    prediction = head.predict(embedding, bench.visual(slots))
    assert prediction.spans_cw.shape == prediction.class_logits.shape == (3, slots, 4, 2)
    assert prediction.saliency_logits.shape == (slots, 7)
    assert prediction.attention.shape == (slots, 7, 6 + 5 + 1)
    torch.testing.assert_close(prediction.attention.sum(-1), torch.ones(slots, 7))
    values = head.losses(prediction, bench.target(head, *WINDOWS[:slots]))
    assert set(values) == set(head.weights())
    assert all(value.ndim == 1 and value.isfinite().all() for value in values.values())
    bench.total(head, values).backward()
    assert embedding.grad is not None and (embedding.grad.abs().sum(1) > 0).all()


# contents that start at zero leave nothing for these to do
DEAD = [f"network.decoder.layers.0.among.{name}.weight" for name in ("query", "key", "value")]


@pytest.mark.parametrize(("behaviour", "dead"), [("sound", []), ("official", DEAD)])
def test_every_parameter_gets_gradient(bench: Any, behaviour: str, dead: list[str]) -> None:
    head = bench.head(behaviour=behaviour)
    # its zeros hide the layers before it until the first step
    torch.nn.init.normal_(head.network.decoder.refine[-1].weight, std=0.1)
    target = bench.target(head, WINDOWS[1], GRADED, WINDOWS[2])
    bench.total(head, head.losses(head.predict(bench.embedding(3), bench.visual(3)), target)).backward()
    silent = [name for name, weight in head.named_parameters() if weight.grad is None or not weight.grad.abs().max() > 1e-12]
    assert silent == dead


@pytest.mark.parametrize("annotations", [[[]], [[], []], [{"saliency": {"step_sec": 2.0, "scores": [1.0]}}]])
def test_no_parameter_is_without_gradient_even_where_nothing_happens(bench: Any, annotations: list[Any]) -> None:
    head = bench.head()
    values = head.losses(head.predict(bench.embedding(len(annotations)), bench.visual(len(annotations))), bench.target(head, *annotations))
    assert len(values["span"]) == len(values["giou"]) == 0
    bench.total(head, values).backward()
    assert [name for name, weight in head.named_parameters() if weight.grad is None] == []
    assert all(weight.grad.isfinite().all() for weight in head.parameters())


def test_an_absent_query_teaches_no_window_and_low_attention(bench: Any) -> None:
    head = bench.head()
    prediction = head.predict(bench.embedding(2), bench.visual(2))
    values = head.losses(prediction, bench.target(head, [], [[2.0, 6.0]]))
    logits = prediction.class_logits[-1, 0]
    torch.testing.assert_close(values["label"][:4], -0.1 * logits.log_softmax(-1)[:, 1])
    assert [len(values[term]) for term in ("saliency_margin", "saliency_rank", "align_sentence", "align_dummies")] == [1] * 4
    assert len(values["attention_match"]) == 14


def test_saliency_without_windows_says_nothing_of_windows(bench: Any) -> None:
    head = bench.head()
    target = bench.target(head, {"saliency": {"step_sec": 2.0, "scores": [0, 4]}}, [[2.0, 6.0]])
    values = head.losses(head.predict(bench.embedding(2), bench.visual(2)), target)
    assert len(values["label"]) == 4 and len(values["span"]) == 1
    assert len(values["saliency_margin"]) == 2


def padded(visual: Visual, frames: int, tokens: int) -> Visual:
    def grow(tensor: Tensor, count: int, value: float = 7.0) -> Tensor:
        return torch.cat([tensor, torch.full((len(tensor), count, *tensor.shape[2:]), value, dtype=tensor.dtype)], 1)

    assert visual.frame_features is not None and visual.query_features is not None and visual.query_valid is not None
    return replace(
        visual,
        times_sec=grow(visual.times_sec, frames, -1.0),
        frame_valid=grow(visual.frame_valid, frames, False),
        frame_features=grow(visual.frame_features, frames),
        query_features=grow(visual.query_features, tokens),
        query_valid=grow(visual.query_valid, tokens, False),
    )


def test_padding_of_frames_and_of_text_changes_nothing(bench: Any) -> None:
    head, visual = bench.head().double(), bench.visual(3)
    embedding, target = bench.embedding(3).double(), bench.target(head, WINDOWS[0], GRADED, [])
    plain, more = head.predict(embedding, visual), head.predict(embedding, padded(visual, 3, 2))
    torch.testing.assert_close(more.spans_cw, plain.spans_cw, atol=1e-6, rtol=0)
    torch.testing.assert_close(more.saliency_logits[:, :7], plain.saliency_logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(more.attention[:, :7, :12], plain.attention, atol=1e-6, rtol=0)
    for term, values in head.losses(plain, target).items():
        torch.testing.assert_close(head.losses(more, target)[term], values, atol=1e-6, rtol=1e-6, msg=term)
    clips, answer = [bench.CLIP] * 3, torch.arange(3)
    for one, other in zip(head.decode(plain, clips, answer), head.decode(more, clips, answer), strict=True):
        assert [len(one[key]) for key in ("saliency", "attention")] == [7, 7]
        assert torch.allclose(torch.tensor(one["windows_sec"]), torch.tensor(other["windows_sec"]), atol=1e-5)


def test_a_slot_in_a_batch_predicts_as_alone(bench: Any) -> None:
    head, visual = bench.head(), bench.visual(2)
    together = head.predict(bench.embedding(2), visual)
    alone = head.predict(bench.embedding(2)[1:], Visual(**{name: value[1:] for name, value in tensors(visual).items()}))
    torch.testing.assert_close(together.spans_cw[:, 1:], alone.spans_cw, atol=1e-5, rtol=1e-4)


def test_the_task_embedding_stands_behind_the_last_valid_token() -> None:
    words, valid = torch.zeros(3, 4, 2), torch.tensor([[True, True, False, False], [True] * 4, [False] * 4])
    last = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    text, there = append(words, valid, last)
    assert text[..., 0].tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 2], [3, 0, 0, 0, 0]]
    assert there.sum(1).tolist() == [3, 5, 1] and bool(there[torch.arange(3), torch.tensor([2, 4, 0])].all())


def test_the_scale_of_embedding_features_and_words_does_not_count(bench: Any) -> None:
    head, visual = bench.head(), bench.visual(2)
    assert visual.frame_features is not None and visual.query_features is not None
    larger = replace(visual, frame_features=50 * visual.frame_features, query_features=20 * visual.query_features)
    plain, scaled = head.predict(bench.embedding(2), visual), head.predict(100 * bench.embedding(2), larger)
    torch.testing.assert_close(scaled.spans_cw, plain.spans_cw, atol=4e-3, rtol=0)


def test_the_question_is_cut_at_max_text(bench: Any) -> None:
    head, visual = bench.head(max_text=3), bench.visual(2)
    assert visual.query_features is not None and visual.query_valid is not None
    short = replace(visual, query_features=visual.query_features[:, :3], query_valid=visual.query_valid[:, :3])
    torch.testing.assert_close(head.predict(bench.embedding(2), visual).spans_cw, head.predict(bench.embedding(2), short).spans_cw)


def test_one_video_in_a_batch_has_no_negatives_and_says_so_once(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    head, visual = bench.head(), bench.visual(1)
    same = Visual(**{name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in tensors(visual).items()})
    with caplog.at_level(logging.WARNING):
        head.eval().losses(head.predict(bench.embedding(2), same), bench.target(head, *WINDOWS[:2]))
        assert not caplog.records, "nothing is learned from what is only looked at"
        head.train()
        for _ in range(2):
            values = head.losses(head.predict(bench.embedding(2), same), bench.target(head, *WINDOWS[:2]))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "different footage" in caplog.text
    assert len(values["saliency_negative"]) == len(values["attention_negative"]) == 0
    assert bench.total(head, values).isfinite()


def test_negatives_read_the_frames_with_another_slots_text(bench: Any) -> None:
    head = bench.head()
    embedding, visual = bench.embedding(3), bench.visual(3)
    values = head.losses(head.predict(embedding, visual), bench.target(head, *WINDOWS[:3]))
    assert visual.query_features is not None
    crossed = replace(visual, query_features=visual.query_features.roll(-1, 0))
    logits = head.predict(embedding.roll(-1, 0), crossed).saliency_logits
    torch.testing.assert_close(values["saliency_negative"], torch.nn.functional.softplus(logits).sum(1), atol=1e-5, rtol=1e-4)


def test_official_wants_the_published_column_and_raw_products(bench: Any) -> None:
    sound, official = (bench.head(behaviour=behaviour) for behaviour in ("sound", "official"))
    weights = sound.state_dict()
    weights.pop("network.decoder.contents").zero_()
    official.load_state_dict(weights)
    target = bench.target(sound, *WINDOWS[:2])
    first, second = (head.losses(head.predict(bench.embedding(2), bench.visual(2)), target) for head in (sound, official))
    same = {term for term in first if torch.equal(first[term], second[term])}
    assert set(first) - same == {"align_dummies", "align_frames"}
    # a raw product is sqrt(16) = 4 times the scaled one
    wanted = torch.tensor([1.0 if 2 <= second_ < 6 else 0.0 for second_ in bench.CLIP.times_sec])
    signed = torch.where(wanted > 0, 1, -1)
    scaled = -signed * first["align_frames"][:7].expm1().log()
    raw = -signed * second["align_frames"][:7].expm1().log()
    torch.testing.assert_close(raw[raw.abs() < 10], 4 * scaled[raw.abs() < 10], atol=1e-2, rtol=1e-2)


@pytest.mark.slow
def test_a_thousand_random_batches_are_finite_under_bf16_autocast(bench: Any) -> None:
    head = bench.head(cross_layers=1, encoder_layers=1, decoder_layers=2, dummy_layers=1).train()
    random = torch.Generator().manual_seed(3)
    for number in range(1000):
        slots = int(torch.randint(1, 4, (), generator=random))
        scale = 10 ** float(torch.rand((), generator=random) * 6 - 2)
        visual = bench.visual(slots, seed=number)
        assert visual.frame_features is not None and visual.query_features is not None
        wide = replace(
            visual,
            frame_features=(scale * visual.frame_features).bfloat16(),
            query_features=(scale * visual.query_features).bfloat16(),
            frame_valid=torch.rand(slots, 7, generator=random) < 0.8,
            query_valid=torch.rand(slots, 5, generator=random) < 0.7,
        )
        starts = (torch.rand(slots, generator=random) * 13).tolist()
        target = bench.target(head, *([[start, start + 0.5]] if start < 11 else [] for start in starts))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values = head.losses(head.predict((scale * bench.embedding(slots, number)).bfloat16(), wide), target)
            loss = bench.total(head, values)
        assert loss.isfinite(), (number, {term: value.tolist() for term, value in values.items()})
        head.zero_grad()
        loss.backward()
        broken = [name for name, weight in head.named_parameters() if weight.grad is not None and not weight.grad.isfinite().all()]
        assert broken == [], number


def test_a_clip_without_valid_frames_is_finite(bench: Any) -> None:
    head, visual = bench.head(), bench.visual(2)
    blind = replace(visual, frame_valid=torch.tensor([[True] * 7, [False] * 7]))
    values = head.losses(head.predict(bench.embedding(2), blind), bench.target(head, WINDOWS[0], []))
    bench.total(head, values).backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in head.parameters())


def test_losses_leave_target_and_prediction_as_they_are(bench: Any) -> None:
    head = bench.head()
    prediction, target = head.predict(bench.embedding(2), bench.visual(2)), bench.target(head, GRADED, WINDOWS[1])
    before = {name: value.clone() for part in (prediction, target) for name, value in tensors(part).items()}
    head.losses(prediction, target)
    head.decode(prediction, [bench.CLIP] * 2, torch.arange(2))
    assert all(torch.equal(value, before[name]) for part in (prediction, target) for name, value in tensors(part).items())


def test_weights_are_the_published_ones_times_the_scale(bench: Any) -> None:
    weights = bench.head(scale=0.5, weight_attention=3.0).weights()
    assert {term: weights[term] / 0.5 for term in ("span", "giou", "label", "span_layer2", "label_layer1")} == {
        "span": 10, "giou": 1, "label": 4, "span_layer2": 10, "label_layer1": 4,
    }  # fmt: skip
    assert (weights["saliency_rank"], weights["attention_rank"], weights["align_frames"], weights["distill"]) == (2, 6, 0.5, 0.5)
    assert bench.head().weights()["span"] == 10


def test_answers_are_ranked_windows_saliency_and_attention(bench: Any) -> None:
    head = bench.head(nms_iou=1.0)
    prediction = head.predict(bench.embedding(3), bench.visual(3))
    answers = head.decode(prediction, [bench.CLIP] * 3, torch.tensor([0, 2, 2]))
    json.dumps(answers)
    assert [len(answer["windows_sec"]) for answer in answers] == [4, 0, 8]
    assert answers[1] == {"windows_sec": [], "scores": [], "saliency": [], "attention": []}
    for answer in (answers[0], answers[2]):
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert all(0 <= start < end <= 14 for start, end in answer["windows_sec"])
        assert [second for second, _ in answer["saliency"]] == list(bench.CLIP.times_sec)
        assert all(0 <= share <= 1 for _, share in answer["attention"])
    both = prediction.saliency_logits[1:].sigmoid().amax(0)
    assert [score for _, score in answers[2]["saliency"]] == pytest.approx(both.tolist())


def test_official_answers_are_rounded_to_seconds(bench: Any) -> None:
    head = bench.head(behaviour="official")
    (answer,) = head.decode(head.predict(bench.embedding(1), bench.visual(1)), [bench.CLIP], torch.tensor([0]))
    assert len(answer["windows_sec"]) == 4
    assert all(start == round(start) and end == round(end) and start < end for start, end in answer["windows_sec"])


def test_a_diverged_head_does_not_answer(bench: Any) -> None:
    head = bench.head()
    with torch.no_grad():
        head.network.decoder.label.bias.fill_(float("nan"))
    with pytest.raises(TPOError, match="The temporal head predicted 8 of 8 values that are not finite"):
        head.decode(head.predict(bench.embedding(1), bench.visual(1)), [bench.CLIP], torch.tensor([0]))


def test_features_of_another_width_are_refused(bench: Any) -> None:
    visual = replace(bench.visual(2), frame_features=torch.zeros(2, 7, 3, 11))
    with pytest.raises(UsageError, match=r"visual\.frame_features: expected \[slot, frame, patch, d_vision=12\], got \(2, 7, 3, 11\)"):
        bench.head().predict(bench.embedding(2), visual)


def test_diagnostics_tell_the_texts_share_inside_and_outside(bench: Any) -> None:
    head = bench.head()
    prediction, target = head.predict(bench.embedding(1), bench.visual(1)), bench.target(head, [[2.0, 6.0]])
    share = prediction.attention[0, :, 6:].sum(-1).detach()
    found = head.diagnostics(prediction, target)
    assert found["text_share_inside"] == pytest.approx(float(share[1:3].mean()))
    assert found["text_share_outside"] == pytest.approx(float(share[[0, 3, 4, 5, 6]].mean()))


def test_eight_samples_are_overfitted(bench: Any) -> None:
    torch.manual_seed(0)
    head = build_head("temporal", bench.DIM, head="cg-detr", vision_dim=bench.VISION, **{**NANO, "input_dropout": 0.0})
    visual, embedding = bench.visual(8), bench.embedding(8)
    starts = torch.rand(8) * 8
    windows = torch.stack([starts, starts + 2 + 4 * torch.rand(8)], 1)
    target = bench.target(head, *([window] for window in windows.tolist()))
    optimizer = torch.optim.Adam(head.parameters(), 3e-3, betas=(0.9, 0.95))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 5, (OVERFIT_STEPS - step) / 60))
    for _ in range(OVERFIT_STEPS):
        loss = bench.total(head, head.losses(head.predict(embedding, visual), target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    answers = head.eval().decode(head.predict(embedding, visual), [bench.CLIP] * 8, torch.arange(8))
    reached = span_iou(torch.tensor([answer["windows_sec"][0] for answer in answers]), windows)
    assert float(reached.mean()) >= 0.95, reached
    best = [max(answer["saliency"], key=lambda pair: pair[1])[0] for answer in answers]
    assert all(start - 1 <= second <= end + 1 for second, (start, end) in zip(best, windows.tolist(), strict=True))


@pytest.fixture
def spec() -> dict[str, Any]:
    return {"name": "temporal", "head": "cg-detr", "vision_dim": 32, **NANO}


def test_a_stage_trains_it_and_its_checkpoint_answers_alike(
    build_tiny: Callable[..., TPOModel], world: Callable[..., list[Sample]], spec: dict[str, Any], tmp_path: Any
) -> None:
    model = build_tiny([spec])
    samples = [sample for index in range(3) for sample in world(index, "temporal")]
    stage = Stage(
        name="2.temporal",
        title="the temporal head",
        learning_rates={"heads.temporal.*": 1e-3, "tokens.task.temporal": 1e-3},
        data={"temporal": 1.0},
        losses={"mlm": 1.0, "assign": 1.0, "temporal": 1.0},
        steps=2,
        batch_size=2,
        max_questions=2,
        warmup_ratio=0.0,
        grad_clip=1.0,
        precision="fp32",
    )
    before = {name: weight.detach().clone() for name, weight in model.head("temporal").named_parameters()}
    recipe = Recipe(name="small", stages=(stage,), lora=Lora(rank=2, targets=("q_proj",)), frames=4, resolution=64)
    run = fit(model, samples, recipe, tmp_path / "run")
    lines = run.metrics()
    assert {"temporal/span", "temporal/span_layer1", "temporal/align_sentence", "gradient/temporal"} <= set(lines[0])
    changed = [name for name, weight in model.head("temporal").named_parameters() if not torch.equal(weight, before[name])]
    assert len(changed) == len(before)
    again = checkpoint.load(run.path / "checkpoint").head("temporal")
    assert again.spec() == model.head("temporal").spec()
    assert all(torch.equal(weight, model.head("temporal").state_dict()[name]) for name, weight in again.state_dict().items())


def test_build_fills_in_the_width_of_the_vision_tower(tiny_backbone: Any) -> None:
    import tpo_lab as tpo

    model = tpo.build(tiny_backbone, heads=({"name": "temporal", "head": "cg-detr", **NANO},))
    assert model.head("temporal").settings.vision_dim == tiny_backbone.vision_size


def test_the_simple_head_stays_the_default() -> None:
    assert build_head("temporal", 8).variant == "simple"
