"""Batch plans: who sits with whom, the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.training.batch_plan import Last, count_batches, make_batch_plan


@given(
    samples=st.integers(1, 200), batch_size=st.integers(1, 40), plans=st.integers(1, 4), shuffle=st.booleans(),
    seed=st.integers(0, 2**64 - 1), last=st.sampled_from(["drop", "keep", "wrap"]),
)  # fmt: skip
def test_a_plan_is_made_of_whole_batches_of_different_samples(
    samples: int, batch_size: int, plans: int, shuffle: bool, seed: int, last: Last
) -> None:
    if samples < batch_size and last != "keep":
        with pytest.raises(InputError, match="batch_size: expected at most"):
            make_batch_plan(samples, batch_size, plans=plans, shuffle=shuffle, seed=seed, last=last)
        return
    plan = make_batch_plan(samples, batch_size, plans=plans, shuffle=shuffle, seed=seed, last=last)
    assert plan.dtype == np.int64
    assert plan.shape == (plans, count_batches(samples, batch_size, last), batch_size)
    for each in plan:
        assert all(len(set(batch[batch >= 0])) == (batch >= 0).sum() for batch in each)
        counts = np.bincount(each[each >= 0], minlength=samples)
        if last == "drop":
            assert counts.sum() == samples // batch_size * batch_size
            assert counts.max(initial=0) <= 1
        else:
            assert counts.min() == 1
            assert counts.sum() == (samples if last == "keep" else each.size)
        assert (each[:-1] >= 0).all()
        assert np.all(np.diff((each[-1] >= 0).astype(int)) <= 0)  # nobody sits at the end alone


GOLDEN = [[[1, 4, 8], [6, 5, 0], [3, 2, 7]]]


def test_by_hand() -> None:
    assert make_batch_plan(7, 3, shuffle=False).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert make_batch_plan(7, 3, shuffle=False, last="keep").tolist() == [[[0, 1, 2], [3, 4, 5], [6, -1, -1]]]
    assert make_batch_plan(7, 3, shuffle=False, last="wrap").tolist() == [[[0, 1, 2], [3, 4, 5], [6, 0, 1]]]
    assert make_batch_plan(6, 3, plans=2, shuffle=False, last="wrap").tolist() == [[[0, 1, 2], [3, 4, 5]]] * 2
    # For ever: a plan that changed with a library would not be that of the caches made before.
    assert make_batch_plan(9, 3, seed=5).tolist() == GOLDEN
    assert make_batch_plan(9, 3, plans=2, seed=5)[:1].tolist() == GOLDEN


def test_plans_and_seeds_differ_and_no_place_is_preferred() -> None:
    plan = make_batch_plan(1000, 10, plans=40, seed=1)
    assert len({each.tobytes() for each in plan}) == 40
    assert not np.array_equal(plan[0], make_batch_plan(1000, 10, seed=2)[0])
    places = np.argsort(plan.reshape(40, -1), axis=1)  # of each sample in each plan
    # The mean place of a sample over 40 plans: 499.5 with a standard error of 45.6.
    assert np.abs(places.mean(0) - 499.5).max() < 5 * 45.6
    assert 35 < places.mean(0).std() < 56
