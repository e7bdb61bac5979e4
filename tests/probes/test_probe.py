"""The step record: what it says is what a step by hand gives, and the model never notices that it was measured."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tpo_lab as tpo
from tpo_lab import checkpoint, freeze
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.probes import compare
from tpo_lab.probes.gradients import gradients_of
from tpo_lab.probes.layers import attention_read, chosen_layers, decoder_layers
from tpo_lab.probes.modules import module_of
from tpo_lab.probes.one_sample import may_see
from tpo_lab.probes.overlaps import paired, readings_of
from tpo_lab.probes.probing import MOST_SAMPLES
from tpo_lab.probes.sequence import tokens_of
from tpo_lab.probes.trace import Match, Token
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora

BOX = {"time_sec": 1.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}


@pytest.fixture
def model(build_tiny: Any) -> TPOModel:
    """Region and temporal head behind a language model with LoRA that already does something."""
    made: TPOModel = build_tiny()
    made.add_lora(Lora(rank=2, alpha=4.0, dropout=0.5))
    with torch.no_grad():
        for name, parameter in made.named_parts().items():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    return made.eval()


@pytest.fixture
def mixed(say: Any) -> list[Sample]:
    """A plain question, one for a place, one for a moment, of different lengths and about different clips."""
    window = {"windows_sec": [[1.0, 2.5]], "saliency": {"step_sec": 1.0, "scores": [0.0, 4.0, 2.0, 0.0]}}
    return [
        say(0, "How many squares are there?", "zero"),
        say(1, "Where is the red ball?", "<region>", region=[BOX]),
        say(2, "When does the small ball stop, after it has moved down?", "<temporal>", temporal=window),
    ]


def by_hand(model: TPOModel, samples: list[Sample], owner: str) -> dict[str, torch.Tensor]:
    """The gradient of one owner of loss terms, by a backward pass over all samples in one batch."""
    frames = Frames(model.backbone)
    batch = model.collate([frames.row([sample]) for sample in samples])
    model.zero_grad()
    model.losses(batch, model(batch)).per_head()[owner].backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parts().items() if parameter.grad is not None}
    model.zero_grad()
    return found


def flat(gradients: dict[str, torch.Tensor], prefix: str, like: TPOModel) -> np.ndarray:
    """All gradients of a part in one vector, zeros where there is none."""
    named = [(name, parameter) for name, parameter in like.named_parts().items() if name.startswith(prefix)]
    return np.concatenate([gradients.get(name, torch.zeros_like(p)).detach().double().flatten().numpy() for name, p in named])


def test_gradients_are_those_of_a_backward_pass_by_hand(model: TPOModel, mixed: list[Sample]):
    trace = tpo.probe(model, mixed)
    assert trace.gradients.owners == ("mlm", "assign", "region", "temporal")
    hands = {owner: by_hand(model, mixed, owner) for owner in trace.gradients.owners}
    parts = {"heads.region": "heads.region.", "llm.lora.1": "llm.lora.model.language_model.layers.1.", "tokens.task.temporal": None}
    for module, prefix in parts.items():
        vectors = {owner: flat(found, prefix or module, model) for owner, found in hands.items()}
        total = sum(vectors.values())
        for owner, vector in vectors.items():
            assert trace.gradients.norm(owner, module) == pytest.approx(np.linalg.norm(vector), rel=1e-4, abs=1e-9)
            assert trace.gradients.share(owner, module) == pytest.approx(vector @ total / (total @ total), rel=1e-3, abs=1e-6)
    one, other = (flat(hands[owner], parts["llm.lora.1"], model) for owner in ("region", "temporal"))
    wanted = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert trace.gradients.cosine("region", "temporal", "llm.lora.1") == pytest.approx(wanted, abs=1e-5)
    assert trace.gradients.cosine("region", "temporal", "heads.region") is None
    assert sum(trace.gradients.share(owner, "llm.lora.0") for owner in trace.gradients.owners) == pytest.approx(1.0)


def test_cosines_and_shares_by_hand():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    still = nn.Parameter(torch.zeros(3), requires_grad=False)
    losses = {"a": 3 * weight[0], "b": -4 * weight[0] + 3 * weight[1], "c": torch.tensor(1.0)}
    found = gradients_of(losses, {"heads.x.weight": weight, "heads.y.weight": still})
    assert found.modules == ("heads.x",) and found.parameters == {"heads.x": 2} and weight.grad is None
    assert [found.norm(owner, "heads.x") for owner in "abc"] == [3.0, 5.0, 0.0]
    assert found.cosine("a", "b", "heads.x") == pytest.approx(-12 / 15) and found.cosine("a", "c", "heads.x") is None
    # the sum is (-1, 3), of squared length 10
    assert [found.share(owner, "heads.x") for owner in "abc"] == pytest.approx([-3 / 10, 13 / 10, 0.0])
    with pytest.raises(UsageError, match=r"heads\.x.*got 'heads.y'"):
        found.norm("a", "heads.y")
    with pytest.raises(UsageError, match="got 'd'"):
        found.norm("d", "heads.x")


def state_of(model: TPOModel) -> dict[str, Any]:
    """Everything that a measurement could leave changed."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": {name: parameter.grad for name, parameter in model.named_parameters()},
        "learns": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "modes": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "random": (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),
        "attention": model.backbone._attention,
        "backbone": sorted(vars(model.backbone)),
    }


def test_the_model_is_left_as_it_was(model: TPOModel, mixed: list[Sample]):
    model.train()
    model.head("temporal").eval()
    model.tokens.task["region"].requires_grad_(False)
    kept = model.head("region").mlp[0].weight
    kept.grad = torch.full_like(kept, 0.5)
    # transformers hangs hooks of its own on the vision tower, in the first pass of all
    model.encode_video([Frames(model.backbone).row(mixed[:1])])
    before = state_of(model)
    stage = tpo.recipe("nano").for_heads(tuple(model.heads)).stage("2.region")[0]
    tpo.probe(model, mixed)
    tpo.probe(model, mixed[:2], stage=stage)
    with pytest.raises(UsageError):
        tpo.probe(model, [mixed[1].model_copy(update={"targets": type(mixed[1].targets)()})])
    after = state_of(model)
    assert all(torch.equal(value, after["values"][name]) for name, value in before["values"].items())
    assert all(after["grads"][name] is grad for name, grad in before["grads"].items()) and bool((kept.grad == 0.5).all())
    assert torch.equal(before["random"][0], after["random"][0]) and np.array_equal(before["random"][1], after["random"][1])
    assert before["random"][2] == after["random"][2]
    for name in ("learns", "modes", "hooks", "attention", "backbone"):
        assert before[name] == after[name], name


def test_two_measurements_say_the_same(model: TPOModel, mixed: list[Sample]):
    model.train()  # dropout in LoRA, which a measurement does without
    assert json.dumps(tpo.probe(model, mixed).to_dict()) == json.dumps(tpo.probe(model, mixed).to_dict())


def test_padding_changes_nothing(model: TPOModel, mixed: list[Sample]):
    together = tpo.probe(model, mixed)
    for place, sample in enumerate(mixed):
        alone = tpo.probe(model, [sample])
        assert json.dumps(alone.samples[0].to_dict()) == json.dumps(together.samples[place].to_dict())
        mine = [each.weights for each in together.activations.attention if each.sample == place]
        assert len(mine) == len(alone.activations.attention)
        assert all(torch.equal(a, b.weights) for a, b in zip(mine, alone.activations.attention, strict=True))


def test_a_single_sample_is_a_step(model: TPOModel, mixed: list[Sample]):
    trace = tpo.probe(model, mixed[1:2])
    assert trace.gradients.owners == ("mlm", "assign", "region")
    single = {name: term.value for name, term in trace.samples[0].losses.items()}
    assert {name: term.value for name, term in trace.losses.items()} == pytest.approx(single)
    assert set(single) == {"mlm", "assign", "region/l1", "region/giou"}
    assert trace.loss == pytest.approx(sum(term.value * term.weight for term in trace.losses.values()))


def test_nothing_due_leaves_parts_empty(model: TPOModel, say: Any):
    trace = tpo.probe(model, [say(0, "How many squares are there?", "zero"), say(1, "Where is the ball?")])
    plain, open_question = trace.samples
    assert plain.slots == () and plain.routes.due == () and plain.routes.expected == () and set(plain.losses) == {"mlm"}
    assert open_question.answer == "" and open_question.losses == {} and open_question.routes.text == open_question.record.text
    assert trace.activations.slots == () and trace.activations.attention == ()
    assert trace.gradients.owners == ("mlm",)
    assert trace.route_probability("region") is None and trace.iou("region") is None
    assert json.loads(json.dumps(trace.to_dict(), allow_nan=False))["activations"]["slots"] == []
    only_open = tpo.probe(model, [say(1, "Where is the ball?")])
    assert only_open.losses == {} and only_open.loss == 0 and only_open.gradients.owners == ()


def test_a_frozen_part_has_no_gradient(model: TPOModel, mixed: list[Sample]):
    recipe = tpo.recipe("nano").for_heads(tuple(model.heads))
    stage = recipe.stage("2.region")[0]
    trace = tpo.probe(model, mixed[:2], stage=stage)
    assert trace.stage == "2.region"
    plan = freeze.shape(freeze.FreezePlan.of(stage), model.named_parts())
    assert sum(part.trained for part in trace.parts) == plan["trained"]
    assert "tokens.task.region" in trace.gradients.modules and "heads.temporal" not in trace.gradients.modules
    assert (trace.part("heads.temporal").trained, trace.part("heads.region").trained) == (0, trace.part("heads.region").parameters)
    # without a stage the model's own flags hold
    model.head("region").requires_grad_(False)
    free = tpo.probe(model, mixed[:2])
    assert "heads.region" not in free.gradients.modules and free.part("heads.region").open == 0
    assert free.part("heads.region").trained is None


def test_a_stage_weighs_the_terms(model: TPOModel, mixed: list[Sample]):
    stage = tpo.recipe("nano").for_heads(tuple(model.heads)).replace(**{"2.region.losses": {"mlm": 0.5, "assign": 2.0, "region": 3.0}})
    plain, weighed = tpo.probe(model, mixed[:2]), tpo.probe(model, mixed[:2], stage=stage.stage("2.region")[0])
    assert weighed.losses["assign"].weight == 2.0 and weighed.losses["region/l1"].weight == 3.0 * plain.losses["region/l1"].weight
    assert weighed.losses["region/l1"].value == pytest.approx(plain.losses["region/l1"].value)
    assert weighed.losses["mlm"].weighted == pytest.approx(0.5 * plain.losses["mlm"].value)
    assert weighed.gradients.norm("assign", "llm.lora.0") == pytest.approx(2 * plain.gradients.norm("assign", "llm.lora.0"), rel=1e-4)


def test_tokens_say_what_they_are(model: TPOModel, say: Any):
    sample = say(1, "What is <prompt:0>?", "It is <region>.", boxes=[[1, 2, 30, 40]], region=[BOX])
    tokens = tokens_of(model, Frames(model.backbone).row([sample]))
    batch = model.collate([Frames(model.backbone).row([sample])])
    assert [token.index for token in tokens] == list(range(batch.ids.shape[1]))
    patches = [(token.frame, token.cell) for token in tokens if token.kind == "VIDEO"]
    cells = model.backbone.cells_per_frame
    assert patches == [*((frame, cell) for frame in range(4) for cell in range(cells)), (None, None)]
    words = [(token.kind, token.head, token.learned) for token in tokens if token.kind in ("PROMPT", "ROUTE", "SLOT")]
    assert words == [("PROMPT", None, False), ("ROUTE", "region", True), ("SLOT", "region", False)]
    assert sum(token.learned for token in tokens) == len(batch.target)
    assert [token.index for token in tokens if token.kind == "SLOT"] == batch.slots["region"].token.tolist()


def test_route_probabilities_are_the_softmax_where_a_route_is_due(model: TPOModel, mixed: list[Sample]):
    trace = tpo.probe(model, mixed, gradients=False, attention=False)
    assert trace.gradients is None and trace.activations.attention == ()
    batch = model.collate([Frames(model.backbone).row([mixed[1]])])
    with torch.no_grad():
        logits = model(batch).logits[batch.is_route][0].softmax(-1)
    ids = model.tokens.ids.route
    due = trace.samples[1].routes.due[0]
    assert due.probability["temporal"] == pytest.approx(float(logits[ids["temporal"]]), rel=1e-5)
    assert due.probability["none"] == pytest.approx(1 - float(logits[ids["temporal"]] + logits[ids["region"]]), rel=1e-5)
    assert trace.route_probability("region") == due.probability["region"]
    assert sum(trace.samples[0].routes.first.values()) == pytest.approx(1)
    assert trace.samples[1].tokens[due.token].kind == "ROUTE" and due.token == due.predicted_from + 1


def test_states_go_from_the_task_token_to_the_task_embedding(model: TPOModel, mixed: list[Sample]):
    activations = tpo.probe(model, mixed).activations
    assert [head for _, head, _ in activations.slots] == ["region", "temporal"]
    assert activations.states.shape == (2, 3 + 2, 64)
    assert torch.allclose(activations.states[0, 0], model.tokens.task["region"].detach())
    batch = model.collate([Frames(model.backbone).row([mixed[1]])])
    with torch.no_grad():
        embedding = model(batch).task_embeddings["region"][0]
    assert torch.allclose(activations.states[0, -1], embedding, atol=1e-5)
    wanted = torch.cosine_similarity(activations.states[0], activations.states[1], dim=-1)
    assert torch.allclose(activations.cosines()[:, 0, 1], wanted, atol=1e-6)


def test_attention_is_softmax_of_queries_and_keys(model: TPOModel, mixed: list[Sample]):
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    trace = tpo.probe(model, mixed[1:2], attention=[0, 2])
    slot = next(each for each in trace.activations.attention if each.kind == "SLOT")
    assert trace.activations.layers == (0, 2) and slot.weights.shape == (2, len(trace.samples[0].tokens))
    batch, core = model.collate([Frames(model.backbone).row([mixed[1]])]), model.backbone.model.model.language_model
    layer = core.layers[0]
    with torch.no_grad():
        embeds = model.inputs(batch, model.encode_video(batch.rows))[0].embeds
        states = layer.input_layernorm(embeds)
        shape = (1, states.shape[1], -1, layer.self_attn.head_dim)
        query, key = (project(states).view(shape).transpose(1, 2) for project in (layer.self_attn.q_proj, layer.self_attn.k_proj))
        query, key = apply_rotary_pos_emb(query, key, *core.rotary_emb(embeds, batch.positions))
        scores = query[0, :, slot.token] @ key[0].repeat_interleave(2, 0).transpose(1, 2) * layer.self_attn.scaling
        scores = torch.stack([scores[head, head] for head in range(len(scores))])
        wanted = scores.masked_fill(~batch.attention_mask()[0, 0, slot.token], float("-inf")).softmax(-1).mean(0)
    assert torch.allclose(slot.weights[0], wanted, atol=1e-5)
    assert torch.allclose(slot.weights.sum(1), torch.ones(2), atol=1e-5) and slot.hidden == 0


def test_who_may_see_whom():
    kinds = ["VIDEO", "CONTEXT", "ROUTE", "SLOT", "TEXT"]
    tokens = [Token(place, "", kind, False) for place, kind in enumerate(kinds)]
    wanted = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]
    assert may_see(tokens).int().tolist() == wanted


def test_layers_whose_attention_is_kept():
    assert chosen_layers(5, True) == (0, 1, 2, 3, 4) and chosen_layers(5, False) == ()
    assert chosen_layers(32, True) == (0, 4, 9, 13, 18, 22, 27, 31) and chosen_layers(1, True) == (0,)
    with pytest.raises(UsageError, match=r"attention: expected layers from 0 to 4, got 5"):
        chosen_layers(5, [0, 5])


def test_a_backbone_without_a_list_of_layers_or_weights_of_attention_is_named(model: TPOModel, monkeypatch: pytest.MonkeyPatch):
    layers = decoder_layers(model.backbone)
    assert len(layers) == 3
    with pytest.raises(TPOError, match="expected an attention module, got none"), attention_read([nn.Linear(2, 2)], print):
        pass
    monkeypatch.setattr(type(model.backbone), "parts", lambda self: {"llm": ("nowhere.",)})
    with pytest.raises(TPOError, match="layers in a ModuleList below nowhere"):
        decoder_layers(model.backbone)


def test_pairs_have_the_greatest_sum_of_ious():
    assert paired(np.array([[0.5, 0.6], [0.1, 0.7]])) == (Match(0, 0, 0.5), Match(1, 1, 0.7))
    assert paired(np.array([[0.5, 0.6], [0.1, 0.7]]), {0: 1, 1: 0}) == (Match(0, 1, 0.6), Match(1, 0, 0.1))
    assert paired(np.array([[0.2], [0.4]])) == (Match(0, None, 0.0), Match(1, 0, 0.4))
    assert paired(np.zeros((1, 0))) == (Match(0, None, 0.0),) and paired(np.zeros((0, 2))) == ()


def test_readings_find_the_convention(build_tiny: Any):
    from tpo_lab.heads.region import RegionPrediction, RegionTarget

    answer = torch.zeros(1, dtype=torch.long)
    target = RegionTarget(torch.tensor([[0.25, 0.5, 0.75, 0.625]]), answer, answer)
    written = {"xyxy": [0.25, 0.5, 0.75, 0.625], "cxcywh": [0.5, 0.5625, 0.5, 0.125], "xywh": [0.25, 0.5, 0.5, 0.125]}
    written["yxyx"] = [0.5, 0.25, 0.625, 0.75]
    head = build_tiny().head("region")
    for name, numbers in written.items():
        found = readings_of(head, RegionPrediction(torch.tensor([numbers])), target)
        assert found[name] == pytest.approx(1.0) and sorted(found.values())[-2] < 0.9
    assert readings_of(head, torch.zeros(1, 4), target) == {}


def test_several_objects_are_matched_as_the_loss_matches_them(model: TPOModel, say: Any):
    other = {"time_sec": 1.0, "xyxy": [40.0, 10.0, 60.0, 30.0]}
    sample = say(1, "Where are the balls?", "<region> and <region>", region=[BOX, other])
    trace = tpo.probe(model, [sample])
    matches = trace.samples[0].heads["region"].matches
    assert [match.target for match in matches["forced"]] == [0, 1]
    assert sorted(match.predicted for match in matches["forced"]) == [0, 1]
    assert all(match.predicted is None and match.iou == 0 for match in matches["routed"]), "an untrained model asks nobody"
    assert len(trace.samples[0].slots) == len(trace.activations.slots) == 2
    assert len(trace.activations.attention) == 4


def test_parts_know_whether_they_were_ever_trained(build_tiny: Any, mixed: list[Sample]):
    fresh = build_tiny().eval()
    fresh.add_lora(Lora(rank=2))
    start = tpo.probe(fresh, mixed[:1], gradients=False, attention=False)
    assert {part.at_start for part in start.parts if part.name.startswith(("llm.lora.", "tokens.rows."))} == {True}
    assert start.part("heads.region").at_start is None
    assert {token.output_moved for token in start.added} == {0.0}
    with torch.no_grad():
        fresh.tokens.rows["output"][1] += 1.0
        next(p for n, p in fresh.named_parts().items() if "layers.2" in n and ".lora_B." in n).fill_(0.1)
    moved = tpo.probe(fresh, mixed[:1], gradients=False, attention=False)
    assert (moved.part("llm.lora.2").at_start, moved.part("llm.lora.1").at_start) == (False, True)
    assert moved.part("tokens.rows.output").at_start is False
    assert [token.text for token in moved.added if token.output_moved > 0.01] == ["<region:route>"]
    weights = [p.detach().double() for n, p in fresh.named_parts().items() if n.startswith("heads.region.")]
    assert moved.part("heads.region").norm == pytest.approx(float(sum((w**2).sum() for w in weights)) ** 0.5)
    assert sum(part.parameters for part in moved.parts) == sum(p.numel() for p in fresh.named_parts().values())
    with pytest.raises(UsageError, match=r"Did you mean 'heads\.region'"):
        moved.part("head.region")


def test_compare_finds_what_differs(build_tiny: Any, model: TPOModel, tmp_path: Any):
    twin = build_tiny().eval()
    assert all(difference.equal and difference.largest == 0 for difference in compare(build_tiny(), twin))
    with torch.no_grad():
        twin.tokens.task["temporal"] += 0.25
    different = [difference for difference in compare(build_tiny(), twin) if not difference.equal]
    assert [difference.name for difference in different] == ["tokens.task.temporal"]
    assert different[0].largest == pytest.approx(0.25, rel=1e-4)
    length = float(twin.tokens.task["temporal"].detach().norm())
    assert different[0].relative == pytest.approx(0.25 * 8 / length, rel=1e-4)
    missing = {difference.name: difference for difference in compare(twin, model)}["llm.lora.0"]
    assert not missing.equal and missing.largest is None and missing.relative is None
    with pytest.raises(UsageError, match="checkpoint"):
        compare(twin, tmp_path / "nowhere")


def test_compare_reads_a_checkpoint(shipped_model: TPOModel, tmp_path: Any):
    folder = checkpoint.save(shipped_model, tmp_path / "checkpoint")
    assert all(difference.equal for difference in compare(shipped_model, folder))
    assert all(difference.equal for difference in compare(shipped_model, "nano-tpo"))


@pytest.mark.parametrize(
    ("parameter", "module"),
    [
        ("llm.lora.model.language_model.layers.12.mlp.up_proj.lora_A.default.weight", "llm.lora.12"),
        ("llm.base.model.language_model.embed_tokens.weight", "llm.base.other"),
        ("tokens.rows.output", "tokens.rows.output"),
        ("tokens.task.region", "tokens.task.region"),
        ("heads.mask.adapter.layers.0.weight", "heads.mask"),
        ("vision.model.vision_tower.encoder.layers.3.mlp.fc1.weight", "vision"),
    ],
)
def test_modules_by_name(parameter: str, module: str):
    assert module_of(parameter) == module


def test_wrong_calls_are_refused(model: TPOModel, mixed: list[Sample]):
    with pytest.raises(UsageError, match=f"samples: expected 1 to {MOST_SAMPLES}, got 0"):
        tpo.probe(model, [])
    with pytest.raises(UsageError, match=f"got {MOST_SAMPLES + 1}"):
        tpo.probe(model, mixed[:1] * (MOST_SAMPLES + 1))
    with pytest.raises(UsageError, match="layers from 0 to 2, got 3"):
        tpo.probe(model, mixed, attention=[3])


def test_a_trace_is_json_and_holds_what_was_asked(model: TPOModel, mixed: list[Sample]):
    document = json.loads(json.dumps(tpo.probe(model, mixed).to_dict(), allow_nan=False))
    assert document["schema"] == "tpo_lab.trace/1" and document["heads"] == ["region", "temporal"]
    asked = document["samples"][1]
    assert asked["targets"]["region"][0]["xyxy"] == BOX["xyxy"] and asked["question"] == "Where is the red ball?"
    assert asked["heads"]["region"]["forced"]["boxes_xyxy"] and asked["heads"]["region"]["routed"] is None
    assert len(asked["times_sec"]) == 4 and asked["answer"] == "<region>"
    attention = document["activations"]["attention"]
    assert [each["kind"] for each in attention] == ["ROUTE", "SLOT"] * 2
    assert set(document["gradients"]["modules"]["llm.lora.0"]["cosines"]) >= {"region|temporal", "mlm|assign"}


def test_captions_are_answered_too(model: TPOModel, world: Any):
    caption = next(sample for sample in world(0, "conversation") if sample.meta["kind"] == "caption")
    trace = tpo.probe(model, [caption])
    assert trace.samples[0].sample is caption and trace.samples[0].answer == caption.conversation[1].text


def test_masks_are_measured_like_the_rest(build_tiny: Any, world: Any):
    from tpo_lab.heads import build_head

    made = build_tiny(("region", build_head("mask", 64)))
    masked = next(sample for sample in world(0, "mask") if sample.targets.mask is not None)
    trace = tpo.probe(made.eval(), [masked])
    matches = trace.samples[0].heads["mask"].matches
    assert [match.predicted for match in matches["routed"]] == [None] and matches["routed"][0].iou == trace.iou("mask", "routed")
    assert 0 <= matches["forced"][0].iou <= 1 and set(trace.samples[0].heads["mask"].target) == {"mask"}
    assert trace.gradients.norm("mask", "tokens.task.mask") > 0 == trace.gradients.norm("mask", "tokens.task.region")
    assert 0 < trace.part("heads.mask").open < trace.part("heads.mask").parameters, "SAM2 stays as it is"
