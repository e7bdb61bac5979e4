"""What every backbone must hold, on a tiny random checkpoint of its family: a new one passes these or is not one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tpo_lab as tpo
from tests.backbones.conformance.families import PLAIN
from tests.backbones.reading import inputs_of, read_in_steps
from tpo_lab import checkpoint
from tpo_lab.backbones import ANY_SIZE, FAMILIES, Backbone, family_of, load_backbone
from tpo_lab.backbones.checks import CHECKS, Bench
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora
from tpo_lab.training.cost.memory import checkpoint_layers

FRAMES = 4


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(family, tmp_path_factory.mktemp(family), dtype=torch.float32)


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    found = load_backbone(str(folder), num_frames=FRAMES)
    found.model.eval()
    return found


@pytest.fixture
def bench(backbone: Backbone) -> Bench:
    return Bench.of(backbone)


def clip(backbone: Backbone, count: int) -> tuple[Tensor, tuple[float, ...]]:
    frames = torch.randint(0, 256, (1, count, 3, backbone.image_size, backbone.image_size), dtype=torch.uint8)
    return frames, tuple(1.25 * place + 0.5 for place in range(count))


def test_every_family_has_a_plain_model_to_be_held_against() -> None:
    assert set(PLAIN) == set(FAMILIES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check(bench: Bench, check: Any) -> None:
    found = check(bench)
    assert found.passed, f"{found.name}: {found.found}"


@pytest.mark.parametrize("count", [1, 3, FRAMES])
def test_forward_is_that_of_the_plain_model(family: str, backbone: Backbone, count: int) -> None:
    """No slot in the row: not a bit of difference, though ours embeds, places and masks by itself."""
    frames, times = clip(backbone, count)
    words = backbone.tokenizer.encode("Where is the red ball?", add_special_tokens=False)
    opening = backbone.tokenizer.encode(backbone.chat.open, add_special_tokens=False)
    ids = torch.tensor([[*opening, *backbone.video_placeholder(times), *words]])
    places = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        inputs = backbone.inputs(ids, places, [backbone.video_features(frames)], [times])
        hidden, _ = backbone.language_model(inputs, mask=None)
        expected = PLAIN[family](backbone, ids, frames, times)
    assert (backbone.logits(hidden) - expected).abs().max() == 0


def test_a_token_table_leaves_the_plain_forward_as_it_is(family: str, backbone: Backbone) -> None:
    frames, times = clip(backbone, FRAMES)
    opening = backbone.tokenizer.encode(backbone.chat.open, add_special_tokens=False)
    ids = torch.tensor([[*opening, *backbone.video_placeholder(times), *opening]])
    with torch.no_grad():
        expected = PLAIN[family](backbone, ids, frames, times)
        TPOModel(backbone)
        assert torch.equal(PLAIN[family](backbone, ids, frames, times), expected)


def test_clips_of_a_batch_are_encoded_as_each_alone(backbone: Backbone) -> None:
    frames = torch.cat([clip(backbone, FRAMES)[0] for _ in range(3)])
    with torch.no_grad():
        together = backbone.video_features(frames)
        for place in range(3):
            alone = backbone.video_features(frames[place : place + 1])
            assert torch.allclose(together.of(place).tokens, alone.tokens, atol=1e-5)
            assert torch.allclose(together.of(place).frames, alone.frames, atol=1e-5)


def test_eager_attention_gives_the_same_and_flash_is_refused(backbone: Any) -> None:
    """Eager attention adds its mask to the scores: True must not become one."""
    inputs = inputs_of(backbone, (0.5, 1.5, 2.5))
    expected = read_in_steps(backbone, inputs, last=3)
    backbone.model.set_attn_implementation("eager")
    assert torch.allclose(read_in_steps(backbone, inputs, last=3), expected, atol=1e-5)
    backbone.text_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UsageError, match=r'attn_implementation: expected "sdpa" or "eager", got \'flash_attention_2\''):
        type(backbone)(backbone.model, backbone.tokenizer, name="x", num_frames=2)


def test_gradient_checkpointing_changes_no_gradient(bench: Bench) -> None:
    model = bench.model
    model.add_lora(Lora(rank=2, dropout=0.0))
    found = []
    for on in (False, True):
        model.train()
        checkpoint_layers(model, on)
        model.zero_grad(set_to_none=True)
        batch = bench.batch(bench.row)
        model.losses(batch, model(batch)).total.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parts().items() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    assert all(torch.allclose(found[1][name], gradient, atol=1e-6) for name, gradient in found[0].items())


@pytest.fixture(scope="module")
def samples(world: Callable[..., list[Sample]]) -> list[Sample]:
    return [sample for scene in range(2) for sample in world(scene, "conversation", "region", "temporal", "mask")]


def test_the_whole_recipe_trains_and_the_checkpoint_loads(folder: Path, samples: list[Sample], tmp_path: Path) -> None:
    """Stage 1, each head's, all tasks and with conversation, two steps each; then what was saved answers as what was trained."""
    heads: list[Any] = ["region", "temporal", {"name": "mask", "sam": "nano-sam2"}]
    model = tpo.build(str(folder), heads, num_frames=FRAMES)
    stages = ("1", "2.temporal", "2.mask", "2.region", "3a", "3b")
    short = {f"{name}.{key}": 2 for name in stages for key in ("steps", "batch_size")}
    run = tpo.fit(model, samples, tpo.recipe("paper").replace(**short), tmp_path / "run")
    lines = run.metrics()
    assert [line["stage"] for line in lines] == [name for name in stages for _ in range(2)]
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in lines)
    bench = Bench(model, *(getattr(Bench.of(load_backbone(str(folder), num_frames=FRAMES)), name) for name in ("row", "other")), 0)
    again = checkpoint.load(tmp_path / "run" / "checkpoint")
    with torch.no_grad():
        assert torch.equal(again(bench.batch(bench.row)).logits, model.eval()(bench.batch(bench.row)).logits)


@pytest.fixture
def saved(backbone: Backbone, tmp_path: Path) -> Iterator[Path]:
    backbone.save(tmp_path / "saved")
    yield tmp_path / "saved"


def test_save_writes_a_folder_of_the_family_that_loads_again(family: str, backbone: Backbone, saved: Path) -> None:
    assert family_of(str(saved)) == family
    again = load_backbone(str(saved), num_frames=FRAMES)
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_bfloat16_weights_run(folder: Path) -> None:
    backbone = load_backbone(str(folder), num_frames=FRAMES, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
    bench = Bench.of(backbone)
    with torch.no_grad():
        forward = bench.model(bench.batch(bench.row))
    assert forward.hidden.dtype == torch.bfloat16 and bool(forward.logits.isfinite().all())


def test_an_adapter_is_one_file_of_at_most_150_lines(family: str) -> None:
    path = import_module(f"tpo_lab.backbones.{family}").__file__
    assert path is not None and len(Path(path).read_text(encoding="utf-8").splitlines()) <= 150


def test_another_size_of_frames_is_kept_by_checkpoints_or_refused(family: str, folder: Path, tmp_path: Path) -> None:
    size = 2 * load_backbone(str(folder)).image_size
    if family not in ANY_SIZE:
        with pytest.raises(UsageError, match=rf"image_size: expected {size // 2}, the only one that this model takes, got {size}"):
            tpo.build(str(folder), ["region"], image_size=size)
        return
    model = tpo.build(str(folder), ["region"], image_size=size)
    assert model.backbone.image_size == size
    assert checkpoint.load(checkpoint.save(model, tmp_path / "kept")).backbone.image_size == size
