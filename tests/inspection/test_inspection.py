"""What `cache inspect` says of hints and affinities, against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.inspection.affinities import _count_neighbours, affinities
from pipeline.inspection.hints import hints
from tests.scenes import CNN, digits, made, teacher_of, wanted


def test_activations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inspection.hints.PIECE_BYTES", 10_000)  # many pieces
    dataset = digits()
    opened = made(teacher_of(dataset, CNN), dataset, wanted(tmp_path, "h", "hints", {"taps": ("block1", "features")}))
    facts = hints(opened, None)["taps"]
    assert set(facts) == {"block1", "features"}
    for tap, its in facts.items():
        values = opened.load(tap).astype(np.float64).reshape(dataset.bounds[0], -1)
        assert its["units"] == values.shape[1]
        assert its["mean"] == pytest.approx(values.mean())
        assert its["std"] == pytest.approx(values.std())
        assert its["largest"] == np.abs(values).max()
        assert its["zeros"] == (values == 0).mean()
        assert its["dead"] == (np.ptp(values, axis=0) == 0).sum()
    assert facts["block1"]["zeros"] > 0


def test_neighbourhoods(tmp_path: Path) -> None:
    p = np.array([[0, 0.1, 0.1, 0], [0.1, 0, 0.2, 0.1], [0.1, 0.2, 0, 0], [0, 0.1, 0, 0]])
    assert _count_neighbours(p) == pytest.approx([2, 2**1.5, 2 ** (np.log2(3) - 2 / 3), 1])
    dataset = digits()
    options = {"batch_size": 30, "perplexity": 6.0, "tap": "pixels", "last": "keep", "plans": 2, "dtype": "float32"}
    opened = made(teacher_of(dataset, CNN), dataset, wanted(tmp_path, "p", "affinities", options))
    facts = affinities(opened, dataset.labels[: dataset.bounds[0]])
    assert facts["plans"] == 2
    assert 6 < facts["neighbours"]["mean"] < 12
    assert facts["same_class_by_chance"] == pytest.approx(0.1, abs=0.02)
    assert facts["same_class"] > 3 * facts["same_class_by_chance"]
    assert "same_class" not in affinities(opened, None)
