"""What holds for every test: one compute thread per worker, and torch seeded before each test. And the tiny models that tests share."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from tpo_lab.backbones.nano import NanoBackbone
    from tpo_lab.batch import Row
    from tpo_lab.model import TPOModel
    from tpo_lab.sample import Sample

# Read when torch is first imported, so this stands before any test module.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

# No two axes alike: 3 vision channels a head, 2 language heads for each key.
VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
LANGUAGE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}


def pytest_configure() -> None:
    """Ctrl-C reaches the tests that press it, and what they start, even where this run was told to ignore it (as jobs of a script are).

    And no property fails for want of time.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # how long an example takes says something about the machine only
    hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _seed_torch():
    """A test that never loads torch does not pay for loading it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real samples, which TPO_LAB_REAL names; who asks for it is skipped where it is missing."""
    folder = Path(os.environ.get("TPO_LAB_REAL", Path(__file__).parents[1].parent / "shared" / "real"))
    if not folder.is_dir():
        pytest.skip("the real samples are not on this machine (TPO_LAB_REAL)")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    from tpo_lab.backbones.nano_tokenizer import build_nano_tokenizer

    return build_nano_tokenizer(vocabulary=500, scenes=12)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """The folder of a saved nano backbone of 64 channels, with frames of 64 pixels."""
    import torch

    from tpo_lab.backbones.nano import new_nano

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("nano")
    new_nano(copy.deepcopy(tiny_tokenizer), vision=VISION, language=LANGUAGE).save(folder)
    return folder


@pytest.fixture(scope="session")
def _tiny_backbone(tiny_base: Path) -> NanoBackbone:
    from tpo_lab.backbones import load_backbone

    return load_backbone(str(tiny_base), num_frames=4)


@pytest.fixture
def tiny_backbone(_tiny_backbone: NanoBackbone) -> NanoBackbone:
    """A copy of its own for each test: 4 frames of 16 visual tokens."""
    return copy.deepcopy(_tiny_backbone)


@pytest.fixture(scope="session")
def build_tiny(_tiny_backbone: NanoBackbone) -> Callable[..., TPOModel]:
    """Makes equal tiny models, each with a backbone of its own; heads by name, spec or as built heads."""
    import torch

    from tpo_lab.heads import Head, build_head
    from tpo_lab.model import TPOModel

    def build(heads: Sequence[Any] = ("region", "temporal"), *, seed: int = 0) -> TPOModel:
        torch.manual_seed(seed)
        backbone = copy.deepcopy(_tiny_backbone)
        return TPOModel(backbone, [head if isinstance(head, Head) else build_head(head, backbone.hidden_size) for head in heads])

    return build


@pytest.fixture
def tiny(build_tiny: Callable[..., TPOModel]) -> TPOModel:
    """A tiny model with region and temporal head, in evaluation mode."""
    return build_tiny().eval()


@pytest.fixture(scope="session")
def world() -> Callable[..., list[Sample]]:
    """Samples of a scene of the synthetic world, rendered on demand: `world(3, "region")`."""
    from tpo_lab.datasets.world.samples import samples_of
    from tpo_lab.datasets.world.scene import sample_scene

    return lambda index, *tasks: samples_of(sample_scene(index), tasks or ("conversation", "region", "temporal"))


@pytest.fixture(scope="session")
def say() -> Callable[..., Sample]:
    """A sample about a world clip from alternating texts: `say(0, "Where?", "<region>", region=[...])`."""
    from tpo_lab.datasets.world.samples import samples_of
    from tpo_lab.datasets.world.scene import sample_scene
    from tpo_lab.sample import Sample

    def made(
        scene: int, *texts: str, boxes: Sequence[Sequence[float]] = (), strokes: Sequence[Sequence[Sequence[float]]] = (), **targets: Any
    ) -> Sample:
        turns = [{"role": ("user", "assistant")[place % 2], "text": text} for place, text in enumerate(texts)]
        media = samples_of(sample_scene(scene), ("conversation",))[0].media
        record = {
            "id": f"s{scene}",
            "media": media.model_dump(mode="json"),
            "conversation": turns,
            "prompts": [
                *({"type": "box", "xyxy": list(box)} for box in boxes),
                *({"type": "scribble", "xys": [list(point) for point in stroke]} for stroke in strokes),
            ],
            "targets": targets,
        }
        return Sample.model_validate(record)

    return made


@pytest.fixture(scope="session")
def script() -> Callable[[TPOModel, Sequence[Row]], None]:
    """Makes a model write the answers of these rows by itself: its output rows are solved for, nothing is replaced.

    Every answer's states are linearly independent at this width, so there is an output row for each token whose logit is +50 where
    the token is due and -50 at the other places.
    """
    import torch

    def scripted(model: TPOModel, rows: Sequence[Row]) -> None:
        batch = model.collate(rows)
        with torch.no_grad():
            hidden = model(batch).hidden
            states = hidden[batch.predictor[:, 0], batch.predictor[:, 1]].double()
            words = model.backbone.model.lm_head
            words.weight = torch.nn.Parameter(torch.zeros_like(words.weight))
            row_of = {token: row for row, token in enumerate(model.tokens.ids.all)}
            assert torch.linalg.matrix_rank(states) == len(states), "the states are not independent: script fewer tokens"
            for token in batch.target.unique().tolist():
                due = torch.where(batch.target == token, 50.0, -50.0).double()
                solved = torch.linalg.lstsq(states, due[:, None], driver="gelsd").solution[:, 0].float()
                if token in row_of:
                    model.tokens.rows["output"][row_of[token]] = solved
                else:
                    words.weight[token] = solved

    return scripted
