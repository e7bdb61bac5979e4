"""The model: Eq. 1, who gets which gradient, every parameter once, and what each stage trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tpo_lab import freeze
from tpo_lab.batch import Batch, Row
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import Head, build_head
from tpo_lab.heads.base import ClipInfo, Visual
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.recipes import recipe
from tpo_lab.sample import Sample
from tpo_lab.schedules import build_optimizer
from tpo_lab.stages import Lora, Stage

BOX = [{"time_sec": 3.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]
WINDOW = {"windows_sec": [[1.0, 2.5]]}


class Everything(Head[Tensor, Tensor]):
    """A head that asks for all there is."""

    name = "everything"
    needs = frozenset({"frames", "frame_features", "frame_states", "query"})

    def __init__(self, embed_dim: int, settings: Any = None) -> None:
        super().__init__(embed_dim, settings)
        self.out = nn.Linear(embed_dim, 1)

    def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
        self.saw = visual.validate(self.needs)
        return self.out(task_embedding)[:, 0]

    def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"square": (prediction - target).square()}


@pytest.fixture
def samples(say: Callable[..., Sample]) -> list[Sample]:
    return [
        say(0, "How many?", "three"),
        say(0, "Where is <prompt:0> at the end?", "<region>", boxes=[[0, 16, 32, 64]], region=BOX),
        say(0, "Where does <prompt:0> go?", "<region>", strokes=[[[4, 4], [40, 30]]], region=BOX),
        say(0, "Both, and when?", "<region> <region> <temporal>", region=[*BOX, *BOX], temporal=WINDOW),
    ]


def collated(model: TPOModel, samples: Sequence[Sample]) -> Batch:
    return model.collate([Frames(model.backbone).row(samples)])


def gradients(model: TPOModel, loss: Tensor) -> set[str]:
    """Names of the parameters that a loss moves."""
    named = model.named_parts()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(named, found, strict=True) if gradient is not None and bool(gradient.any())}


def awake(model: TPOModel) -> TPOModel:
    """LoRA starts at zero, where half of it has no gradient; give it some weight."""
    model.add_lora(Lora(rank=3, dropout=0.0))
    for name, parameter in model.named_parts().items():
        parameter.requires_grad_(True)
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return model


def test_losses_are_equation_1(tiny: TPOModel, samples: list[Sample]) -> None:
    batch = collated(tiny, samples)
    weights = {"mlm": 0.5, "assign": 2.0, "region": 3.0, "temporal": 0.05}
    report = tiny.losses(batch, tiny(batch), weights)
    assert set(report.terms) == {"mlm", "assign", "region/l1", "region/giou", "temporal/start", "temporal/end", "temporal/actionness"}
    assert report.weights["region/giou"] == pytest.approx(3.0 * 0.2)
    assert report.weights["temporal/start"] == pytest.approx(0.05)
    numbers = report.floats()
    total = sum(report.weights[name] * numbers[name] for name in report.terms)
    assert numbers["loss"] == pytest.approx(total, rel=1e-5)
    assert sum(value.item() for value in report.per_head().values()) == pytest.approx(total, rel=1e-5)


def test_assign_is_the_mean_over_the_routes_and_mlm_over_the_words(tiny: TPOModel, samples: list[Sample]) -> None:
    batch = collated(tiny, samples)
    forward = tiny(batch)
    values = nn.functional.cross_entropy(forward.logits, batch.target, reduction="none")
    apart, inside = tiny.losses(batch, forward), tiny.losses(batch, forward, {"mlm": 1.0})
    assert apart.terms["assign"].item() == pytest.approx(values[batch.is_route].mean().item(), rel=1e-5)
    assert apart.terms["mlm"].item() == pytest.approx(values[~batch.is_route].mean().item(), rel=1e-5)
    assert set(inside.terms) == {"mlm"}, "without a weight of its own a route is one more word"
    assert inside.terms["mlm"].item() == pytest.approx(values.mean().item(), rel=1e-5)


def test_a_head_without_a_weight_is_not_learnt_and_needs_no_annotation(tiny: TPOModel, samples: list[Sample]) -> None:
    bare = [sample.model_copy(update={"targets": type(sample.targets)()}) for sample in samples]
    batch = collated(tiny, bare)
    report = tiny.losses(batch, tiny(batch), {"mlm": 1.0, "assign": 1.0})
    assert set(report.terms) == {"mlm", "assign"}
    assert not {name for name in gradients(tiny, report.total) if name.startswith(("heads.", "tokens.task."))}


def test_losses_without_a_weight_for_words_do_not_teach_words(tiny: TPOModel, samples: list[Sample]) -> None:
    batch = collated(tiny, samples)
    report = tiny.losses(batch, tiny(batch), {"region": 1.0})
    assert report.weights["mlm"] == 0.0
    assert report.total.item() == pytest.approx(report.per_head()["region"].item())
    text_only = collated(tiny, samples[:1])
    assert tiny.losses(text_only, tiny(text_only), {"region": 1.0}).total.requires_grad, "a batch without any slot must still go backward"


def test_a_marker_without_an_annotation_names_the_sample(tiny: TPOModel, samples: list[Sample]) -> None:
    bare = samples[1].model_copy(update={"id": "broken", "targets": type(samples[1].targets)()})
    batch = collated(tiny, [samples[0], bare, samples[2]])
    with pytest.raises(UsageError, match=r"sample broken: targets\.region: expected an annotation for the marker <region>, got None"):
        tiny.losses(batch, tiny(batch))


@pytest.mark.parametrize(("head", "other"), [("region", "temporal"), ("temporal", "region")])
def test_each_heads_loss_reaches_its_own_token_and_lora_and_no_other_token(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], head: str, other: str
) -> None:
    model = awake(build_tiny())
    batch = collated(model, samples)
    moved = gradients(model, model.losses(batch, model(batch)).per_head()[head])
    assert {name for name in moved if name.startswith("tokens.task.")} == {f"tokens.task.{head}"}
    assert not {name for name in moved if name.startswith(f"heads.{other}.")}
    assert {name for name in moved if name.startswith("heads.")} == {n for n in model.named_parts() if n.startswith(f"heads.{head}.")}
    lora = {name for name in model.named_parts() if name.startswith("llm.lora.")}
    assert lora and lora <= moved
    assert "tokens.rows.input" in moved, "the route stands before the slot"
    assert "tokens.rows.output" not in moved, "a head's loss does not teach the choice of the route"


def test_text_losses_reach_no_task_token_and_no_head(build_tiny: Callable[..., TPOModel], samples: list[Sample]) -> None:
    model = awake(build_tiny())
    batch = collated(model, samples)
    report = model.losses(batch, model(batch))
    for owner in ("mlm", "assign"):
        moved = gradients(model, report.per_head()[owner])
        assert not {name for name in moved if name.startswith(("tokens.task.", "heads."))}
        assert "tokens.rows.output" in moved
        assert {name for name in moved if name.startswith("prompts.")} == {n for n in model.named_parts() if n.startswith("prompts.")}


@pytest.mark.parametrize("lora", [None, Lora(rank=2), Lora(rank=2, lm_head=True)])
def test_named_parts_hold_every_parameter_once(build_tiny: Callable[..., TPOModel], lora: Lora | None) -> None:
    model = build_tiny()
    if lora is not None:
        model.add_lora(lora)
    parts = model.named_parts()
    assert sorted(map(id, parts.values())) == sorted({id(parameter) for parameter in model.parameters()})
    assert {name.split(".")[0] for name in parts} == {"vision", "connector", "llm", "tokens", "prompts", "heads"}
    assert sum("lora_" in name for name in parts) == sum(name.startswith("llm.lora.") for name in parts)
    assert model.backbone.output_rows is model.backbone.embedding.weight, "the tiny model ties its embeddings"
    assert sum(parameter is model.backbone.output_rows for parameter in parts.values()) == 1


def test_named_parts_refuse_a_parameter_that_no_part_owns(tiny: TPOModel) -> None:
    tiny.backbone.model.extra = nn.Linear(2, 2)
    with pytest.raises(TPOError, match=r"backbone .*expected every parameter to belong to one of .*'vision'.*got extra\.weight"):
        tiny.named_parts()


def expected_names(model: TPOModel, stage: Stage, heads: Sequence[str], preset: str) -> set[str]:
    """What a stage trains, said in prose by the paper: LoRA and rows always, one head and its token in stage 2, all in stage 3.

    The nano recipe says what it does otherwise: prompt encoders train with every head, and the vision side rests in 3b.
    """
    prefixes = ["llm.lora.", "tokens.rows."]
    for head in heads if stage.name[0] == "3" else [head for head in heads if stage.name == f"2.{head}"]:
        prefixes += [f"heads.{head}.", f"tokens.task.{head}"]
    if stage.name[0] == "3" and (preset, stage.name) != ("nano", "3b"):
        prefixes += ["vision.", "connector."]
    if stage.name[0] == "3" or (preset == "nano" and stage.name[0] == "2"):
        prefixes += ["prompts."]
    return {name for name in model.named_parts() if name.startswith(tuple(prefixes))}


@pytest.mark.parametrize("preset", ["nano", "paper"])
@pytest.mark.parametrize("name", ["1", "2.region", "2.temporal", "3a", "3b"])
def test_each_stage_trains_exactly_its_parts_and_nothing_else_moves(
    build_tiny: Callable[..., TPOModel], samples: list[Sample], preset: str, name: str
) -> None:
    model = build_tiny()
    chosen = recipe(preset).for_heads(("region", "temporal"))
    model.add_lora(chosen.lora)
    (stage,) = chosen.stage(name)
    groups = freeze.apply(freeze.FreezePlan.of(stage), model.named_parts())
    parts = model.named_parts()
    expected = expected_names(model, stage, ("region", "temporal"), preset)
    assert {part for part, parameter in parts.items() if parameter.requires_grad} == expected
    optimizer = build_optimizer(groups, stage)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parts[part]) for part in expected}
    before = {part: parameter.detach().clone() for part, parameter in parts.items()}
    for _ in range(2):
        batch = collated(model, samples)
        model.losses(batch, model(batch), stage.losses).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {part for part, parameter in parts.items() if not torch.equal(parameter, before[part])}
    assert moved <= expected
    # SigLIP's last norm comes after the layer that is used
    still = {part for part in expected - moved if "post_layernorm" not in part}
    assert not still, f"trained, but the same after two steps: {sorted(still)[:3]}"


def test_add_lora_twice_is_refused_only_with_other_settings(tiny: TPOModel) -> None:
    tiny.add_lora(Lora(rank=2))
    before = set(tiny.named_parts())
    tiny.add_lora(Lora(rank=2))
    assert set(tiny.named_parts()) == before
    with pytest.raises(UsageError, match=r"lora: expected .*rank=2.*got Lora\(rank=3"):
        tiny.add_lora(Lora(rank=3))


@pytest.mark.parametrize("targets", [("q_porj",), ("v_proj", "q_porj")])
def test_a_target_that_no_layer_of_the_language_model_has_is_refused_with_the_closest_names(
    tiny: TPOModel, targets: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=r"lora.targets: expected one of .*down_proj.*, got 'q_porj'\. Did you mean 'q_proj'"):
        tiny.add_lora(Lora(targets=targets))
    assert tiny.lora is None and not any(".lora_" in name for name in tiny.named_parts())
    tiny.add_lora(Lora(targets=("q_proj",)))


def test_lora_changes_nothing_at_the_start_and_stays_fp32_in_a_bf16_model(
    build_tiny: Callable[..., TPOModel], samples: list[Sample]
) -> None:
    model = build_tiny().eval()
    batch = collated(model, samples)
    before = model(batch).logits
    model.add_lora(Lora(rank=2))
    assert torch.equal(model.eval()(batch).logits, before)
    half = build_tiny(())
    half.backbone.model.bfloat16()
    half.add_lora(Lora(rank=2, lm_head=True))
    kinds = {name.split(".")[1]: parameter.dtype for name, parameter in half.named_parts().items() if name.startswith("llm.")}
    assert kinds == {"base": torch.bfloat16, "lora": torch.float32}


def test_lora_on_the_output_layer_changes_the_words_logits_and_not_those_of_the_new_rows(
    build_tiny: Callable[..., TPOModel], samples: list[Sample]
) -> None:
    model = build_tiny()
    model.add_lora(Lora(rank=2, targets=("q_proj",), lm_head=True, dropout=0.0))
    batch = collated(model.eval(), samples)
    before = model(batch).logits
    nn.init.normal_(model.named_parts()["llm.lora.lm_head.lora_B.default.weight"])
    change = (model(batch).logits - before).abs().amax(0)
    added = list(model.tokens.ids.all)
    words = [token for token in range(model.backbone.vocabulary) if token not in added]
    assert change[words].gt(0).all() and not change[added].any()


def test_heads_must_fit_the_backbone_and_have_names_of_their_own(build_tiny: Callable[..., TPOModel]) -> None:
    with pytest.raises(UsageError, match=r"region head: embed_dim: expected 64, the backbone's width, got 63"):
        build_tiny([build_head("region", 63)])
    with pytest.raises(UsageError, match=r"heads: expected one head per name, got \['region', 'region'\]"):
        build_tiny(("region", "region"))


def test_head_by_name_refuses_others_with_the_list(tiny: TPOModel) -> None:
    assert tiny.head("region") is tiny.heads["region"]
    with pytest.raises(UsageError, match=r"head: expected one of region, temporal, got 'regio'"):
        tiny.head("regio")


def test_two_models_on_one_backbone_are_refused(tiny: TPOModel) -> None:
    with pytest.raises(UsageError, match="one that a model already uses"):
        TPOModel(tiny.backbone)


def test_a_head_gets_what_it_needs_padded_per_slot(build_tiny: Callable[..., TPOModel], say: Callable[..., Sample]) -> None:
    head = Everything(64)
    model = build_tiny([head]).eval()
    frames = Frames(model.backbone)
    long = frames.row(
        [say(0, "a long question about everything", "<everything>", everything=1.0), say(0, "why", "<everything>", everything=2.0)]
    )
    short = frames.row([say(1, "what", "<everything>", everything=3.0)])
    image = Row(short.frames[:1], ClipInfo(32, 16, 0.5, (0.25,)), short.samples, "image")
    batch = model.collate([long, image])
    forward = model(batch)
    saw = head.saw
    assert saw.frames is not None and saw.frames.shape == (3, 4, 3, 64, 64)
    assert torch.equal(saw.frames[2, 0], image.frames[0]) and not saw.frames[2, 1:].any()
    assert saw.frame_features is not None and saw.frame_features.shape == (3, 4, 64, 32)
    assert saw.frame_valid.tolist() == [[True] * 4, [True] * 4, [True, False, False, False]]
    assert saw.size_wh.tolist() == [[64, 64], [64, 64], [32, 16]]
    assert saw.duration_sec.tolist() == [4.0, 4.0, 0.5]
    assert saw.answer.tolist() == [0, 1, 2]
    visual_tokens = (batch.ids == model.backbone.video_token).nonzero()
    assert saw.frame_states is not None and saw.frame_states.shape == (3, 4, 16, 64)
    for slot, (row, shown) in enumerate(((0, 4), (0, 4), (1, 1))):
        places = visual_tokens[visual_tokens[:, 0] == row, 1][: 16 * shown]
        assert torch.equal(saw.frame_states[slot, :shown].flatten(0, 1), forward.hidden[row, places])
        assert not saw.frame_states[slot, shown:].any()
    slots = batch.slots["everything"]
    assert saw.query_features is not None and saw.query_valid is not None
    for slot, (start, end) in enumerate(slots.question.tolist()):
        assert int(saw.query_valid[slot].sum()) == end - start
        assert torch.equal(saw.query_features[slot, : end - start], forward.hidden[slots.row[slot], start:end])
    assert model.targets(batch)["everything"].tolist() == [1.0, 2.0, 3.0]


def test_task_embedding_is_the_last_state_at_the_slot_itself(tiny: TPOModel, samples: list[Sample]) -> None:
    batch = collated(tiny, samples)
    forward = tiny(batch)
    slots = batch.slots["region"]
    assert torch.equal(forward.task_embeddings["region"], forward.hidden[slots.row, slots.token])
    final = tiny.backbone.model.model.language_model.norm(torch.randn(2, 64)).pow(2).mean(-1)
    assert torch.allclose(forward.hidden.pow(2).mean(-1), final.mean().expand_as(forward.hidden[..., 0]), rtol=1e-2), "after the norm"


def test_encode_video_does_not_depend_on_what_is_encoded_beside_it(tiny: TPOModel, world: Callable[..., list[Sample]]) -> None:
    frames = Frames(tiny.backbone)
    rows = [frames.row(world(index, "conversation")[:1]) for index in range(3)]
    rows[1] = Row(rows[1].frames[:2], replace(rows[1].clip, times_sec=rows[1].clip.times_sec[:2]), rows[1].samples, "two")
    together = tiny.encode_video(rows)
    for row, features in zip(rows, together, strict=True):
        (alone,) = tiny.encode_video([row])
        assert torch.allclose(alone.tokens, features.tokens, atol=1e-5)
        assert torch.allclose(alone.frames, features.frames, atol=1e-5)
    assert together[1].frames.shape == (1, 2, 64, 32)


def test_a_copy_of_a_model_is_independent(tiny: TPOModel, samples: list[Sample]) -> None:
    twin = copy.deepcopy(tiny)
    batch = collated(tiny, samples)
    before = tiny(batch).task_embeddings["region"]
    with torch.no_grad():
        twin.tokens.task["region"].add_(1.0)
    assert torch.equal(tiny(batch).task_embeddings["region"], before)
    assert not torch.equal(twin(batch).task_embeddings["region"], before)
