"""Images that are read ahead, in order, are those that an index would give, each as its view shows it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.datasets.dataset import ImagesFile
from pipeline.training import consecutive_images
from pipeline.training.consecutive_images import WORDS_BATCHES, show_images
from pipeline.views.view import PLAIN, Views

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (203, 3, 6, 5), np.uint8)
SHIFTED = Views("crop_flip", 3, 9, {"padding": 2})


def show_each(views: Views, view: int, start: int, stop: int) -> torch.Tensor:
    """One image at a time."""
    shown = []
    for number in range(start, stop):
        ids = torch.tensor([number])
        words = views.words(ids, torch.full_like(ids, view))
        shown.append(views.apply(torch.from_numpy(IMAGES[number : number + 1]), words))
    return torch.cat(shown)


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize(("start", "stop", "size"), [(0, 203, 4), (8, 203, 8), (64, 128, 64), (0, 203, 500), (0, 1, 1)])
def test_a_view_of_consecutive_images(tmp_path: Path, in_a_file: bool, start: int, stop: int, size: int) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    images: Any = ImagesFile(tmp_path / "images.npy") if in_a_file else IMAGES
    plain = [*show_images(images, PLAIN, view=0, ids=range(start, stop, size), device=CPU)]
    assert [len(rows) for rows in plain[:-1]] == [size] * (-(-(stop - start) // size) - 1)
    assert np.array_equal(torch.cat(plain), IMAGES[start:stop])
    shown = torch.cat([*show_images(images, SHIFTED, view=2, ids=range(start, stop, size), device=CPU)])
    assert torch.equal(shown, show_each(SHIFTED, 2, start, stop))
    assert not torch.equal(shown, torch.from_numpy(IMAGES[start:stop]))


def test_random_words_are_drawn_for_some_batches_together(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = Views.words

    def words(self: Views, ids: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        drawn.append(len(ids))
        return real(self, ids, views)

    monkeypatch.setattr(Views, "words", words)
    assert len([*show_images(IMAGES, SHIFTED, view=0, ids=range(0, 203, 4), device=CPU)]) == 51
    assert drawn == [4 * WORDS_BATCHES] * 3 + [203 - 12 * WORDS_BATCHES]


def test_who_looks_at_no_more_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    shown = show_images(IMAGES, PLAIN, view=0, ids=range(0, 203, 4), device=CPU)
    assert len(next(shown)) == 4
    assert threading.active_count() == before + 1
    shown.close()
    assert threading.active_count() == before


def test_damage_comes_where_its_images_would(monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged:
        shape = IMAGES.shape

        def __getitem__(self, rows: slice) -> Any:
            if rows.stop > 100:
                raise OSError("unreadable")
            return IMAGES[rows]

    monkeypatch.setattr("pipeline.training.feeder.MOST_BATCHES", 1)
    shown = consecutive_images.show_images(Damaged(), PLAIN, view=0, ids=range(0, 203, 50), device=CPU)  # type: ignore[arg-type]
    assert [len(next(shown)) for _ in range(2)] == [50, 50]
    with pytest.raises(OSError, match="unreadable"):
        next(shown)
