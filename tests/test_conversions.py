"""Published weights become folders: through the frame that every kind shares, and bit by bit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from tests.sam2.test_weights import official_names
from tpo_lab.conversions import CONVERSIONS, convert_weights
from tpo_lab.errors import UsageError
from tpo_lab.sam2 import configs, sam2_config, untrained, weights
from tpo_lab.sam2.weights import load_sam2, to_official


@pytest.fixture(scope="module", autouse=True)
def _tiny_size() -> Iterator[None]:
    """A size of SAM2 that nobody published, so that its weights take a moment."""
    from tests.sam2 import test_weights

    sizes = MappingProxyType({**configs.SIZES, "hiera-nano": configs.HieraSize(8, 1, (1, 1, 1, 1), (2,))})
    with pytest.MonkeyPatch.context() as patch:
        for module in (configs, weights, test_weights):
            patch.setattr(module, "SIZES", sizes)
        yield


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file as SAM2's authors publish theirs, and its weights as transformers names them."""
    torch.manual_seed(0)
    state = untrained(sam2_config("hiera-nano", version="2.1")).state_dict()
    place = tmp_path_factory.mktemp("sam2") / "sam2.1_hiera_nano.pt"
    torch.save({"model": to_official(state, official_names("hiera-nano", "2.1"))}, place)
    return place, state


def test_sam2_comes_out_bit_by_bit(official: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, call_cli: Callable[..., Any]) -> None:
    place, state = official
    found = convert_weights("sam2", place, tmp_path / "sam2")
    again = load_sam2(tmp_path / "sam2").state_dict()
    assert again.keys() == state.keys() and all(torch.equal(again[name], value) for name, value in state.items())
    assert (found["opens"], found["kind"]) == (str(tmp_path / "sam2"), "sam2")
    done = call_cli("checkpoint", "convert", "sam2", place, "--out", tmp_path / "again")
    assert done == 0 and (tmp_path / "again" / "config.json").is_file()


def test_conversion_that_fails_leaves_nothing(official: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    place, _ = official
    content = torch.load(place, weights_only=True)
    del content["model"]["memory_attention.norm.weight"]
    torch.save(content, tmp_path / "broken.pt")
    with pytest.raises(UsageError, match=r"1 missing: memory_attention\.layer_norm\.weight"):
        convert_weights("sam2", tmp_path / "broken.pt", tmp_path / "sam2")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pt"]


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_every_kind_has_a_function_that_takes_its_options(kind: str) -> None:
    conversion = CONVERSIONS[kind]
    module, _, name = conversion.function.partition(":")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    assert len([each for each in parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]) == 2
    for option in (*conversion.needs, *conversion.takes):
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert (parameters[option].default is inspect.Parameter.empty) == (option in conversion.needs)


def test_options_reach_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    given: list[Any] = []

    def convert(source: Path, folder: Path, *, tokenizer: Path | None = None) -> Path:
        given.append((source, folder, tokenizer))
        folder.mkdir()
        save_file({"w": torch.zeros(2, 3)}, folder / "model.safetensors")
        return folder / "checkpoint"

    monkeypatch.setattr("tpo_lab.backbones.videochat2_parts.conversion.convert", convert)
    found = convert_weights("videochat-tpo", tmp_path, tmp_path / "new", tokenizer=tmp_path / "words", base=None)
    assert given == [(tmp_path, tmp_path / "new", tmp_path / "words")]
    assert (found["opens"], found["tensors"], found["parameters"]) == (str(tmp_path / "new" / "checkpoint"), 1, 6)


@pytest.fixture
def call_cli() -> Callable[..., int]:
    from tpo_lab import cli

    return lambda *words: cli.run([str(word) for word in words])
