"""The token table: one token each in any tokenizer, its own gradients, and not a bit changed for other ids."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.tokens import PROMPT_TOKEN, TokenIds, TokenTable, add_tokens, route_token, slot_token
from tpo_lab.training.cost.memory import LiveBytes

HEADS = ("region", "temporal")
WIDTH, ROWS = 5, 12
# prompt and routes beyond the 12 rows of the embedding, slots among them
IDS = TokenIds(route={"region": 15, "temporal": 13}, slot={"region": 2, "temporal": 7}, prompt=12)
ORDER = (12, 15, 2, 13, 7)


def embedding() -> nn.Embedding:
    return nn.Embedding(ROWS, WIDTH)


def table(layer: nn.Embedding, **options: Any) -> TokenTable:
    return TokenTable(IDS, layer, torch.randn(ROWS, WIDTH), **options)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Callable[[], Any]]:
    """WordPiece and Unigram, trained here, and a tokenizer that keeps no added token whole."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    text = ["the red ball meets the blue ring", "a small square stops midway and blinks"] * 20

    def trained(model: Any, trainer: Any, pre: Any) -> Any:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre
        tokenizer.train_from_iterator(text, trainer)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")

    special = ["[UNK]", "[PAD]"]
    pieces = trained(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False),
        pre_tokenizers.BertPreTokenizer(),
    )
    unigram = trained(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="[UNK]", show_progress=False),
        pre_tokenizers.Metaspace(),
    )
    return {"wordpiece": lambda: copy.deepcopy(pieces), "unigram": lambda: copy.deepcopy(unigram)}


@pytest.mark.parametrize("kind", ["nano", "wordpiece", "unigram"])
def test_add_tokens_makes_each_a_single_token_in_any_tokenizer(kind: str, tokenizers: Any, tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer) if kind == "nano" else tokenizers[kind]()
    before = tokenizer.encode("the red ball", add_special_tokens=False)
    size = len(tokenizer)
    ids = add_tokens(tokenizer, HEADS)
    assert sorted(ids.all) == list(range(size, size + 5)), "the words' own ids must not move"
    names = [PROMPT_TOKEN, *(text for head in HEADS for text in (route_token(head), slot_token(head)))]
    assert [tokenizer.encode(f"red ball{name}", add_special_tokens=False)[-1] for name in names] == list(ids.all)
    assert tokenizer.encode("the red ball", add_special_tokens=False) == before
    assert add_tokens(tokenizer, HEADS) == ids and len(tokenizer) == size + 5


class Splitting:
    """A tokenizer that knows the added tokens but cuts them at the colon."""

    def get_vocab(self) -> dict[str, int]:
        return {}

    def add_tokens(self, tokens: list[Any]) -> None:
        self.added = [token.content for token in tokens]

    def convert_tokens_to_ids(self, text: str) -> int:
        return 100 + self.added.index(text)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [7, 8] if ":" in text else [100] * text.count(PROMPT_TOKEN)


def test_add_tokens_refuses_a_tokenizer_that_splits() -> None:
    with pytest.raises(TPOError, match=r"expected '<region:route>' to be the single token 101, got \[7, 8\]"):
        add_tokens(Splitting(), ("region",))


def test_token_ids_list_the_rows_of_the_table_and_know_heads_by_route() -> None:
    assert IDS.all == ORDER
    assert IDS.head_of_route == {15: "region", 13: "temporal"}


def test_hook_puts_rows_and_task_tokens_for_plain_ids_on_both_sides_of_the_vocabulary() -> None:
    layer = embedding()
    tokens = table(layer)
    found = layer(torch.tensor([[15, 3, 2], [7, 12, 13]]))
    rows = tokens.rows["input"]
    assert torch.equal(found[0], torch.stack([rows[1], layer.weight[3], tokens.task["region"]]))
    assert torch.equal(found[1], torch.stack([tokens.task["temporal"], rows[0], rows[3]]))


def test_hook_sends_gradient_to_the_table_and_none_to_the_base() -> None:
    layer = embedding()
    tokens = table(layer)
    added = layer(torch.tensor([[2, 15, 12, 15]]))
    (added * torch.tensor([1.0, 10.0, 100.0, 1000.0])[None, :, None]).sum().backward()
    assert tokens.task["region"].grad is not None and tokens.task["region"].grad.eq(1).all()
    assert tokens.task["temporal"].grad is None
    grad = tokens.rows["input"].grad
    assert grad is not None and grad[:, 0].tolist() == [100, 1010, 0, 0, 0]
    assert layer.weight.grad is None or not layer.weight.grad.any()


def test_hook_leaves_other_ids_bit_identical_with_their_gradient() -> None:
    layer = embedding()
    plain = copy.deepcopy(layer)
    tokens = table(layer)
    mixed = torch.tensor([[3, 15, 0, 11, 2]])
    words = torch.tensor([0, 2, 3])
    assert torch.equal(layer(mixed)[0, words], plain(mixed[0, words]))
    layer(mixed).pow(2).sum().backward()
    plain(mixed[0, words]).pow(2).sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad), "id 0 stands in for hidden ids, and must not feel it"
    assert torch.equal(layer(torch.tensor([0, 3, 4])), plain(torch.tensor([0, 3, 4])))
    tokens.detach_hooks()
    assert torch.equal(layer(torch.tensor([2])), plain(torch.tensor([2])))
    with pytest.raises(IndexError):
        layer(torch.tensor([15]))


def test_extend_logits_puts_the_added_ids_in_their_own_columns() -> None:
    tokens = table(embedding())
    hidden, base = torch.randn(2, 3, WIDTH), torch.randn(2, 3, ROWS)
    extended = tokens.extend_logits(base, hidden)
    assert extended.shape == (2, 3, 16)
    words = [index for index in range(ROWS) if index not in ORDER]
    assert torch.equal(extended[..., words], base[..., words])
    for row, token in enumerate(ORDER):
        assert torch.allclose(extended[..., token], hidden @ tokens.rows["output"][row])
    assert extended[..., 14].eq(float("-inf")).all(), "an id that nobody owns can never be written"


def test_extend_logits_of_a_wider_model_keeps_its_width() -> None:
    assert table(embedding()).extend_logits(torch.zeros(1, 40), torch.zeros(1, WIDTH)).shape == (1, 40)


def test_untrained_rows_have_identical_logits_so_no_route_can_be_chosen() -> None:
    layer = embedding()
    output = torch.randn(ROWS, WIDTH)
    tokens = TokenTable(IDS, layer, output)
    logits = tokens.extend_logits(torch.zeros(6, ROWS), torch.randn(6, WIDTH))[:, list(ORDER)]
    assert logits.eq(logits[:, :1]).all()
    assert torch.allclose(tokens.rows["output"], output.mean(0).expand(5, -1))
    assert torch.allclose(tokens.rows["input"], layer.weight.mean(0).expand(5, -1))
    with torch.no_grad():
        tokens.rows["output"][1] += 1
    assert not tokens.extend_logits(torch.zeros(6, ROWS), torch.randn(6, WIDTH))[:, [12, 15]].diff().eq(0).any()


@pytest.mark.parametrize(("asked", "expected"), [(None, 0.02), (1.0, 1.0)])
def test_task_tokens_start_at_the_scale_of_the_embedding_or_the_released_one(asked: float | None, expected: float) -> None:
    wide = nn.Embedding(ROWS, 4000)
    nn.init.normal_(wide.weight, std=0.02)
    tokens = TokenTable(IDS, wide, wide.weight, task_std=asked)
    assert all(float(token.detach().std()) == pytest.approx(expected, rel=0.1) for token in tokens.task.values())
    assert not torch.equal(tokens.task["region"], tokens.task["temporal"])


@pytest.mark.parametrize("rows_at_once", [50, 70])
def test_a_large_vocabulary_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    """The weights are kept in bfloat16, and never copied to single precision as a whole."""
    monkeypatch.setattr("tpo_lab.tokens.ROWS_AT_ONCE", rows_at_once)
    rows, width = 1000, 90
    layer, output = nn.Embedding(rows, width, dtype=torch.bfloat16), torch.randn(rows, width).bfloat16()
    table, whole = layer.weight.detach().float(), rows * width * 4
    with LiveBytes() as alive:
        torch.manual_seed(0)
        tokens = TokenTable(IDS, layer, output)
    assert alive.peak < whole / 2
    torch.testing.assert_close(tokens.rows["input"].detach(), table.mean(0).expand(5, -1))
    torch.testing.assert_close(tokens.rows["output"].detach(), output.float().mean(0).expand(5, -1))
    torch.manual_seed(0)
    torch.testing.assert_close(tokens.task["region"].detach(), torch.randn(width) * float(table.std()))


def test_prompt_values_fill_the_places_in_row_major_order_and_only_inside() -> None:
    layer = embedding()
    tokens = table(layer)
    ids = torch.tensor([[12, 3, 12], [4, 12, 5]])
    values = torch.randn(3, WIDTH, requires_grad=True)
    with tokens.prompt_values(values):
        found = layer(ids)
    assert torch.equal(found[ids == 12], values)
    found[1, 1].sum().backward()
    assert values.grad is not None and values.grad[:, 0].tolist() == [0, 0, 1]
    assert torch.equal(layer(ids)[0, 0], tokens.rows["input"][0]), "outside of the block the row of the prompt token stands there"


@pytest.mark.parametrize("given", [1, 3])
def test_prompt_values_of_the_wrong_number_are_refused(given: int) -> None:
    layer = embedding()
    tokens = table(layer)
    with (
        tokens.prompt_values(torch.zeros(given, WIDTH)),
        pytest.raises(UsageError, match=rf"prompts: expected 2 prompt vectors, got {given}"),
    ):
        layer(torch.tensor([[12, 3, 12]]))


def test_prompt_values_are_gone_after_an_error() -> None:
    layer = embedding()
    tokens = table(layer)
    with pytest.raises(RuntimeError, match="inside"), tokens.prompt_values(torch.zeros(9, WIDTH)):
        raise RuntimeError("inside")
    assert torch.equal(layer(torch.tensor([12]))[0], tokens.rows["input"][0])


def test_a_second_table_on_one_embedding_is_refused_until_the_first_lets_go() -> None:
    layer = embedding()
    first = table(layer)
    with pytest.raises(UsageError, match=r"embedding: expected a backbone without a token table.*detach_hooks"):
        table(layer)
    first.detach_hooks()
    second = table(layer)
    assert torch.equal(layer(torch.tensor([2]))[0], second.task["region"])


def test_a_copied_model_uses_its_own_table() -> None:
    layer = embedding()
    holder = nn.ModuleDict({"layer": layer, "tokens": table(layer)})
    twin = copy.deepcopy(holder)
    with torch.no_grad():
        twin["tokens"].task["region"].fill_(3.0)
    assert twin["layer"](torch.tensor([2])).eq(3).all()
    assert not layer(torch.tensor([2])).eq(3).any()


def test_table_keeps_the_embeddings_precision() -> None:
    layer = nn.Embedding(ROWS, WIDTH, dtype=torch.bfloat16)
    tokens = TokenTable(IDS, layer, layer.weight)
    found: Tensor = layer(torch.tensor([[2, 15, 3]]))
    assert found.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in tokens.parameters()} == {torch.float32}
    assert tokens.extend_logits(torch.zeros(1, ROWS, dtype=torch.bfloat16), found[0, :1]).dtype == torch.float32
