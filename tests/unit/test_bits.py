"""Sets of events at a bit each."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.settlement import Bits

MASKS = st.integers(0, 70).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n)))


@given(MASKS)
def test_it_is_the_set_of_the_mask(masks: tuple[np.ndarray, np.ndarray]) -> None:
    mask, other = masks
    bits, others = Bits.of(mask), Bits.of(other)
    assert bits.mask().tolist() == mask.tolist()
    assert len(bits) == int(mask.sum())
    assert bool(bits) is bool(mask.any())
    assert (bits & others).mask().tolist() == (mask & other).tolist()
    assert (bits | others).mask().tolist() == (mask | other).tolist()
    assert (bits - others).mask().tolist() == (mask & ~other).tolist()


@given(arrays(bool, st.integers(1, 70)), st.data())
def test_parts_of_it(mask: np.ndarray, data: st.DataObject) -> None:
    bits = Bits.of(mask)
    begin = data.draw(st.integers(0, len(mask)))
    end = data.draw(st.none() | st.integers(begin, len(mask) + 5))
    assert bits.mask(begin, end).tolist() == mask[begin:end].tolist()
    places = np.array(data.draw(st.lists(st.integers(0, len(mask) - 1))), dtype=np.int64)
    assert bits.at(places).tolist() == mask[places].tolist()
    most = data.draw(st.integers(0, 12))
    assert bits.first(most).tolist() == np.flatnonzero(mask)[:most].tolist()
