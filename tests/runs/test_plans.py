"""What dumps of data that are not here would cost, against dumps of such data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import cache, runs
from pipeline.base.errors import InputError
from pipeline.base.plain_text import format_duration
from pipeline.base.sizes import format_size
from pipeline.runs import plans

STUDY = """
datasets:
  far: {source: imagefolder, root: nowhere}
views: {policy: flip, count: 3}
teachers:
  big: {dataset: far, model: {name: cnn, widths: [4, 6, 16]}, epochs: 1}
dumps:
  logits: {field: logits, of: big, batch: 64}
  top: {field: logits, of: big, top_k: 3, temperature: 2.0, batch: 64, format: hdf5}
  hints: {field: hints, of: big, taps: [features], batch: 64}
students:
  kd:
    dataset: far
    model: {name: mlp, widths: [8]}
    epochs: 2
    losses: {soft_targets: {weight: 1.0, temperature: 4.0, reads: logits}, hint_mse: {weight: 1.0, tap: hidden1, hint: features, reads: hints}}
"""
SIZE: dict[str, Any] = {"samples": 5000, "shape": "1x16x16", "classes": 40}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(STUDY)
    return runs.open_study("params.yaml")


def test_no_data_are_needed_where_their_size_is_told(study: Any) -> None:
    planned = runs.plan_dumps(study, "cpu", **SIZE)
    assert plans.ABOUT_SIZE in planned.text
    small, large = planned.values, runs.plan_dumps(study, "cpu", **{**SIZE, "samples": 50_000}).values
    for name in ("logits", "top", "hints"):
        assert large[name]["bytes"] == pytest.approx(10 * small[name]["bytes"], rel=0.2)
        assert large[name]["manifest_bytes"] < 1 << 16
    # 3 views of 5,000 rows of 40 float16
    assert 0 < small["logits"]["bytes"] - 3 * 5000 * 40 * 2 < 0.03 * small["logits"]["bytes"] + 4096
    assert small["top"]["files"] == 3  # data.h5, card.md and chunks.bin


def test_a_plan_sums_up_and_says_what_one_pass_saves(study: Any) -> None:
    planned = runs.plan_dumps(study, "cpu", **SIZE)
    made = planned.values
    assert made["logits"]["pass_seconds"] == pytest.approx(3 * made["logits"]["forward_seconds"])
    sums = [str(line) for line in planned.text[1:-2]]
    assert [line for line in sums if line.startswith("dumps-")] == sums[:-1]
    assert sums[0].startswith("dumps-big: logits, top, hints in one pass, where 3 would take ")
    assert sums[-1].startswith(f"all dumps: {format_size(sum(each['bytes'] for each in made.values()))}, ")
    apart = runs.plan_dumps(study.model_copy(update={"apart": True}), "cpu", **SIZE)
    assert [line for line in apart.text if "in one pass" in str(line)] == []


def test_a_shape_that_is_none_is_refused(study: Any) -> None:
    for shape in ("3x224", "3x224x0", "axbxc", "3,224,224", ""):
        with pytest.raises(InputError, match=r"--shape: expected CxHxW, such as 3x224x224, found"):
            runs.plan_dumps(study, "cpu", **{**SIZE, "shape": shape})


def test_a_field_that_is_slow_to_train_from_is_told_before_it_is_dumped(
    study: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs.plan_dumps(study, "cpu", **SIZE)
    assert "slow to train from" not in caplog.text
    monkeypatch.setattr(plans, "find_budget", lambda *_: 10_000)
    runs.plan_dumps(study, "cpu", **SIZE)
    assert "dump 'hints' would be slow to train from" in caplog.text
    assert "it is compressed: set order: blocks in kd, or codec: none here" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0017, "1.7 ms"),
        (1, "1 s"),
        (41, "41 s"),
        (119, "119 s"),
        (120, "2 min"),
        (11_520, "3.2 h"),
        (2_246_400, "26 days"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_prediction_is_what_a_dump_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and files to the last one where nothing is compressed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        """
datasets: {digits: {source: digits}}
teachers: {big: {dataset: digits, model: {name: mlp, widths: [8]}, epochs: 1}}
dumps:
  zarr: {field: logits, of: big}
  hdf5: {field: logits, of: big, format: hdf5}
  top: {field: logits, of: big, top_k: 3, temperature: 2.0}
"""
    )
    study = runs.open_study("params.yaml")
    planned = runs.plan_dumps(study, "cpu").values
    runs.prepare_dataset(study, "digits")
    runs.train_teacher(study, "big", "cpu")
    for name in planned:
        runs.make_dump(study, name, "logits", "cpu")
        opened = cache.open(tmp_path / "data/cache" / name)
        files = opened.manifest.files
        assert planned[name]["files"] == len(files)
        found = sum(file.bytes for path, file in files.items() if path.endswith(".bin") or "/c/" in path)
        if opened.manifest.store == "zarr":
            assert planned[name]["bytes"] == found
        assert planned[name]["table_bytes"] == files["chunks.bin"].bytes
        manifest = (tmp_path / "data/cache" / name / "manifest.json").stat().st_size
        assert manifest <= planned[name]["manifest_bytes"] <= 1.2 * manifest
