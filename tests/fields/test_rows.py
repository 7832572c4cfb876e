"""What a field's numbers may be, looked at piece by piece."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.base.errors import InputError
from pipeline.fields import rows

CACHE: Any = SimpleNamespace(
    manifest=SimpleNamespace(dataset=SimpleNamespace(classes=["a", "b", "c"])), folder=Path("dump"), fix="dump again"
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE", 7)


@pytest.mark.parametrize("place", [0, 6, 7, 38, 39])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(place: int, bad: float, dtype: torch.dtype) -> None:
    values = torch.zeros(2, 5, 4, dtype=dtype)
    rows.refuse_other_numbers(CACHE, "logits", values)
    values.view(-1)[place] = bad
    with pytest.raises(
        InputError, match="cache dump: array 'logits': expected finite numbers, found others; dump again"
    ):
        rows.refuse_other_numbers(CACHE, "logits", values)


@pytest.mark.parametrize("place", [0, 6, 7, 39])
@pytest.mark.parametrize("bad", [-1, 3])
def test_an_index_that_is_no_class_is_found_wherever_it_is(place: int, bad: int) -> None:
    values = torch.full((2, 5, 4), 2, dtype=torch.int16)
    values.view(-1)[place] = bad
    with pytest.raises(InputError, match=r"array 'indices': expected classes 0\.\.2, found others"):
        rows.refuse_other_numbers(CACHE, "indices", values)
    rows.refuse_other_numbers(CACHE, "sample_ids", values)  # whose numbers mean something else


class LargestResult(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many numbers the largest tensor has that is no part of the field."""

    def __init__(self, field: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers, self.field = 0, field.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() != self.field:
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("piece", [7, 100])
def test_no_more_than_a_piece_is_made_of_a_field(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(rows, "PIECE", piece)
    values = torch.zeros(2, 50, 4)
    with LargestResult(values) as largest:
        rows.refuse_other_numbers(CACHE, "logits", values)
    assert largest.numbers == piece
