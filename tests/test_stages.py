from __future__ import annotations

import dataclasses
import pickle

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.stages import WORDS, Lora, Stage, Switches, head_stage, position, selects


def make(**changes: object) -> Stage:
    settings: dict[str, object] = {
        "name": "2.region",
        "title": "the region head",
        "learning_rates": {"llm.lora.*": 2e-5, "heads.region.*": 1e-4},
        "data": {"region": 2.0},
        "losses": {"mlm": 1.0, "region": 0.5},
        "epochs": 3,
        "batch_size": 8,
    }
    return Stage(**{**settings, **changes})  # type: ignore[arg-type]


def test_stage_counts_its_steps_by_epochs_or_by_steps() -> None:
    assert make(epochs=3).total_steps(steps_per_epoch=7) == 21
    assert make(epochs=None, steps=5).total_steps(steps_per_epoch=7) == 5


@pytest.mark.parametrize("length", [{"epochs": None, "steps": None}, {"epochs": 2, "steps": 9}])
def test_stage_wants_exactly_one_length(length: dict[str, int | None]) -> None:
    with pytest.raises(UsageError, match=rf"stage '2\.region': length.*'epochs': {length['epochs']}, 'steps': {length['steps']}"):
        make(**length)


@pytest.mark.parametrize("name", ["1", "2.region", "3a", "3b"])
def test_stage_accepts_the_names_that_its_data_allows(name: str) -> None:
    assert make(name=name).name == name


@pytest.mark.parametrize("name", ["2", "3", "2.temporal", "all", ""])
def test_stage_refuses_a_name_with_the_list(name: str) -> None:
    with pytest.raises(UsageError, match=rf"Stage\.name: expected one of 1, 2\.region, 3a, 3b, got '{name}'"):
        make(name=name)


def test_stage_refuses_a_loss_of_a_task_that_its_data_lacks() -> None:
    with pytest.raises(UsageError, match=r"losses: expected one of assign, mlm, region, got 'temporal'"):
        make(losses={"mlm": 1.0, "temporal": 1.0})


def test_stage_refuses_a_loss_of_conversation() -> None:
    with pytest.raises(UsageError, match="got 'conversation'"):
        make(name="3b", data={"region": 1.0, "conversation": 1.0}, losses={"conversation": 1.0})


@pytest.mark.parametrize("empty", ["learning_rates", "data"])
def test_stage_refuses_to_train_nothing_or_on_nothing(empty: str) -> None:
    with pytest.raises(UsageError, match=rf"stage '2\.region': {empty}: expected at least one entry"):
        make(**{empty: {}})


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("batch_size", 0),
        ("epochs", 0),
        ("max_questions", 0),
        ("warmup_ratio", 1.0),
        ("min_lr_ratio", 1.5),
        ("weight_decay", -0.1),
        ("grad_clip", 0.0),
        ("eps", 0.0),
        ("precision", "fp16"),
        ("schedule", "linear"),
        ("batching", "random"),
        ("decay_on", "all"),
        ("betas", (0.9, 1.0)),
        ("data", {"region": 0.0}),
        ("learning_rates", {"heads.region.*": -1.0}),
    ],
)
def test_stage_refuses_a_value_out_of_range_by_name(knob: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"stage '2\.region': {knob}"):
        make(**{knob: value})


def test_stage_is_frozen_equal_by_value_and_survives_pickling() -> None:
    stage = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage.batch_size = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(stage)) == stage == make()
    assert make(batch_size=9) != stage


def test_stage_heads_leave_conversation_out() -> None:
    assert make(name="3b", data={"region": 1, "conversation": 3, "temporal": 2}).heads == ("region", "temporal")


def test_words_select_stages_in_order() -> None:
    names = ["1", "2.temporal", "2.region", "3a", "3b"]
    chosen = {word: [name for name in names if selects(word, name)] for word in WORDS}
    assert chosen == {"1": ["1"], "2": ["2.temporal", "2.region"], "3a": ["3a"], "3b": ["3b"], "all": names}
    assert [position(name) for name in names] == [0, 1, 1, 2, 3]
    assert head_stage("region") == "2.region"
    assert selects("2.region", "2.region") and not selects("2.region", "2.temporal")


def test_lora_refuses_no_targets_and_no_rank() -> None:
    with pytest.raises(UsageError, match="lora: targets"):
        Lora(targets=())
    with pytest.raises(UsageError, match=r"lora: rank: expected a number >= 1, got 0"):
        Lora(rank=0)


@pytest.mark.parametrize("switch", [f.name for f in dataclasses.fields(Switches) if "Literal" in str(f.type)])
def test_switches_refuse_a_word_outside_their_set(switch: str) -> None:
    with pytest.raises(UsageError, match=rf"switches: {switch}: expected one of .*, got 'paperr'"):
        Switches(**{switch: "paperr"})  # type: ignore[arg-type]
