"""Run lengths of masks, against COCO's own code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from tpo_lab.errors import UsageError
from tpo_lab.rle import decode_rle, encode_rle

MASKS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(bool, size))


@given(MASKS)
def test_it_writes_what_coco_writes_and_reads_it_back(mask: np.ndarray) -> None:
    wanted = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    found = encode_rle(mask)
    assert found == {"size": [int(side) for side in wanted["size"]], "counts": wanted["counts"].decode()}
    assert (decode_rle("mask", found) == mask).all()


@pytest.mark.parametrize("size", [(300, 500), (1, 5000)])
def test_long_runs_take_several_letters(size: tuple[int, int]) -> None:
    mask = np.zeros(size, bool)
    mask[:, 100:400] = True
    assert encode_rle(mask)["counts"] == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


@pytest.mark.parametrize("shape", [(0, 3), (4,), (2, 2, 2)])
def test_what_is_no_mask_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"mask.*booleans \[h, w\]"):
        encode_rle(np.zeros(shape, bool))


@pytest.mark.parametrize("counts", [[2**62] * 4 + [240], [2**70], [-(2**70), 240], [2**61] * 8 + [240]])
def test_runs_that_no_size_holds_are_refused(counts: list[int]):
    """Their sum in 64 bits would be right."""
    with pytest.raises(UsageError, match="counts"):
        decode_rle("m", {"size": [12, 20], "counts": counts})
