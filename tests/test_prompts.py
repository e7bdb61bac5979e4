"""What users point at: strokes on a grid, and one encoder for boxes, points and scribbles."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tpo_lab.errors import UsageError
from tpo_lab.prompts import RASTER, Pointed, PromptEncoder, draw_box, draw_stroke

CELL = 1 / RASTER


def centre(drawn: torch.Tensor) -> tuple[float, float]:
    """Where a drawing lies in the mean, (x, y) in [0,1]."""
    cells = (torch.arange(RASTER) + 0.5) / RASTER
    return float((drawn.sum(0) * cells).sum()), float((drawn.sum(1) * cells).sum())


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.31, 0.77), (CELL / 2, 1 - CELL / 2)])
def test_a_point_is_drawn_where_it_is(place: tuple[float, float]) -> None:
    drawn = draw_stroke(torch.tensor([place]))
    assert float(drawn.sum()) == pytest.approx(1)
    assert (drawn > 0).sum() <= 4
    assert centre(drawn) == pytest.approx(place, abs=1e-6)


def test_a_point_at_the_edge_is_drawn_in_the_last_cell() -> None:
    assert draw_stroke(torch.tensor([[1.0, 0.0]]))[0, RASTER - 1] == 1


def test_a_stroke_is_drawn_evenly_however_many_points_say_it() -> None:
    few = draw_stroke(torch.tensor([[0.2, 0.2], [0.8, 0.2]]))
    many = draw_stroke(torch.tensor([[0.2, 0.2], [0.21, 0.2], [0.22, 0.2], [0.8, 0.2]]))
    torch.testing.assert_close(few, many, atol=1e-3, rtol=0)
    assert centre(few) == pytest.approx((0.5, 0.2), abs=1e-3)
    assert not few[RASTER // 2 :].any()


def test_a_stroke_that_stands_still_is_a_point() -> None:
    still = torch.tensor([[0.3, 0.4]] * 3)
    torch.testing.assert_close(draw_stroke(still), draw_stroke(still[:1]))


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.31, 0.4, 0.52, 0.47), (0.5, 0.5, 0.501, 0.501)])
def test_a_box_is_drawn_as_the_area_that_it_covers(box: tuple[float, ...]) -> None:
    drawn = draw_box(torch.tensor([box]))
    low, high = torch.tensor(box[:2]), torch.tensor(box[2:])
    cells = low + (high - low) * torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    counted = torch.zeros(RASTER, RASTER)
    places = (cells * RASTER).long().clamp(max=RASTER - 1)
    counted.index_put_((places[:, 1], places[:, 0]), torch.ones(len(places)), accumulate=True)
    torch.testing.assert_close(drawn, counted / len(places), atol=0.02, rtol=0)


def test_a_box_without_area_is_a_point() -> None:
    torch.testing.assert_close(draw_box(torch.tensor([[0.3, 0.4, 0.3, 0.6]])), draw_stroke(torch.tensor([[0.3, 0.5]])))


def collated(*prompts: list[list[float]]) -> Pointed:
    return Pointed.collate(prompts, [(0, 3 * place, 0) for place in range(len(prompts))])


def seen(count: int, cells: int = 16) -> torch.Tensor:
    """Visual tokens of as many prompts on the same frame."""
    return torch.randn(1, cells, 12, generator=torch.Generator().manual_seed(1)).expand(count, -1, -1)


@pytest.mark.parametrize("understood", ["box+stroke", "drawn"])
def test_each_prompt_is_encoded_by_its_kind(understood: Any) -> None:
    torch.manual_seed(0)
    encoder = PromptEncoder(12, understood)
    box, point, scribble = [[0.1, 0.2, 0.3, 0.4]], [[0.6, 0.7]], [[0.1, 0.1], [0.2, 0.9]]
    together = encoder(collated(point, box, scribble), seen(3))
    for row, prompt in enumerate((point, box, scribble)):
        torch.testing.assert_close(together[row : row + 1], encoder(collated(prompt), seen(1)))
    drawn = encoder.stroke(draw_box(torch.tensor(box))[None], seen(1))
    torch.testing.assert_close(together[1:2], drawn if understood == "drawn" else encoder.box(torch.tensor(box)))


@pytest.mark.parametrize("side", [4, 14])
def test_what_is_drawn_looks_like_what_lies_under_it(side: int) -> None:
    encoder = PromptEncoder(12, "drawn")
    for parameter in encoder.parameters():
        torch.nn.init.zeros_(parameter)
    tokens = seen(2, side * side)
    middle = (side // 2 + 0.5) / side
    point, quarter = [[middle, 0.5 / side]], [[0.0, 0.0, 0.5, 0.5]]
    looks = encoder(collated(point, quarter), tokens)
    if side == 4:
        torch.testing.assert_close(looks[0], tokens[0, side // 2])
    torch.testing.assert_close(looks[1], tokens[0].reshape(side, side, 12)[: side // 2, : side // 2].mean((0, 1)), atol=0.02, rtol=0)


def test_an_encoder_of_boxes_says_that_it_understands_no_strokes() -> None:
    encoder = PromptEncoder(12, "box")
    assert encoder(collated([[0.0, 0, 1, 1]]), seen(1)).shape == (1, 12)
    with pytest.raises(UsageError, match="boxes, which are all that this model understands"):
        encoder(collated([[0.0, 0, 1, 1]], [[0.5, 0.5]]), seen(2))


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match="prompts: expected one of box, box\\+stroke, drawn"):
        PromptEncoder(12, "points")  # type: ignore[arg-type]


def test_questions_have_the_mean_of_what_is_pointed_at_in_them() -> None:
    embedded = torch.tensor([[1.0, 0], [3, 4], [5, 5]])
    pointed = Pointed.collate([[[0.5, 0.5]]] * 3, [(0, 4, 0), (0, 6, 0), (1, 4, 0)])
    row, question = torch.tensor([0, 0, 1, 1]), torch.tensor([[3, 7], [3, 6], [3, 9], [5, 9]])
    assert pointed.mean_within(embedded, row, question).tolist() == [[2, 2], [1, 0], [5, 5], [0, 0]]
