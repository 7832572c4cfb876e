"""Dumps by several processes, as torchrun starts them: the bytes of one, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.base.errors import InputError
from pipeline.base.ranks import ALONE, Ranks, find_ranks
from pipeline.cache.blocks import ArrayPlan
from pipeline.dumps.shared_pass import choose_segment_rows
from tests.conftest import Run, write_study
from tests.scenes import tree
from tests.torchrun import start_processes

ROOT = Path(__file__).parents[2]
STUDY: dict[str, Any] = {
    "datasets": {"digits": {"source": "digits"}},
    "views": {"policy": "crop_flip", "count": 3, "padding": 1},
    "teachers": {"big": {"model": {"name": "cnn", "widths": [4, 6, 9]}, "epochs": 1}},
    "dumps": {
        "logits": {"field": "logits", "of": "big", "batch": 16},
        "top": {"field": "logits", "of": "big", "top_k": 3, "temperature": 4.0, "batch": 16, "format": "hdf5"},
        "hints": {"field": "hints", "of": "big", "taps": ["block1", "features"], "batch": 16, "codec": "zstd"},
        "p": {"field": "affinities", "of": "big", "batch": 16, "batch_size": 50, "perplexity": 10.0, "plans": 2},
    },
    "students": {"kd": {"model": {"name": "mlp", "widths": [8]}, "epochs": 1, "losses": {"ce": {}}}},
}


def prepare(folder: Path, run: Run, views: int = 3) -> dict[str, Any]:
    """A study with a teacher, and the bytes of its dumps by one process; then they are gone."""
    write_study(folder, {**STUDY, "views": {**STUDY["views"], "count": views}})
    assert run(folder, "prepare", "digits") == 0
    assert run(folder, "train-teacher", "big", "--device", "cpu") == 0
    assert run(folder, "dump", "big", "--device", "cpu") == 0
    return take_dumps(folder)


def take_dumps(folder: Path) -> dict[str, Any]:
    """The bytes of all dumps, which are then removed."""
    made = {}
    for name in STUDY["dumps"]:
        place = folder / "data/cache" / name
        made[name] = tree(place)
        place.rename(folder / f"{name}-{time.monotonic_ns()}")
    return made


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.endurance)])
def test_several_processes_make_the_bytes_of_one(tmp_path: Path, run: Run, processes: int) -> None:
    alone = prepare(tmp_path, run)
    started = start_processes(tmp_path, processes, "stages.dump", "big", "--device", "cpu")
    told, errors = started.communicate(timeout=300)
    assert started.returncode == 0, errors
    assert sorted(line.split(":")[0] for line in told.splitlines()) == sorted(STUDY["dumps"])  # once, not by each
    assert take_dumps(tmp_path) == alone
    timings = tmp_path / "data/timings/dump-big/timings.json"
    assert timings.exists()


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.endurance)])
def test_processes_that_are_killed_cost_at_most_what_they_were_at(tmp_path: Path, run: Run, kills: int) -> None:
    """torchrun starts all of them again; finished pieces are taken up."""
    alone, drawn = prepare(tmp_path, run, views=12), random.Random(5)
    started = start_processes(tmp_path, 2, "stages.dump", "big", "--device", "cpu", restarts=kills)
    killed = 0
    while killed < kills and started.poll() is None:
        pieces = {*(tmp_path / ".work").rglob("*.raw")}
        time.sleep(drawn.uniform(0.0, 0.3))
        if not pieces and not drawn.randrange(8):  # as a rule once something is there, now and then before
            continue
        workers = psutil.Process(started.pid).children()
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            drawn.choice(workers).kill()
            killed += 1
        time.sleep(1.0)
    _, errors = started.communicate(timeout=500)
    assert started.returncode == 0, errors
    assert killed
    assert take_dumps(tmp_path) == alone


def test_what_is_refused_is_told_by_each_and_nothing_is_left(tmp_path: Path, run: Run) -> None:
    prepare(tmp_path, run)
    started = start_processes(tmp_path, 2, "stages.dump", "big", "nothing", "--device", "cpu")
    _, errors = started.communicate(timeout=300)
    assert started.returncode != 0
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert told
    assert all("unknown" in line and "'nothing'" in line for line in told)
    assert not [*(tmp_path / "data/cache").iterdir()]


def test_who_runs_alone_is_not_told_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "1")  # as some set it for whole machines
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_ranks() == ALONE
    assert ALONE.take_share([1, 2, 3]) == [1, 2, 3]
    assert ALONE.agree(lambda: 5) == 5
    assert ALONE.collect("x") == ["x"]
    ALONE.wait()


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "5"), ("LOCAL_RANK", "1"), ("TORCHELASTIC_RUN_ID", "x")):
        monkeypatch.setenv(name, value)
    assert find_ranks() == Ranks(3, 5, 1)
    assert not find_ranks().is_first
    assert find_ranks().take_share(range(12)) == [3, 8]


@pytest.mark.parametrize("told", [("x", "2"), ("2", "2"), ("-1", "2"), ("0", "0")])
def test_nonsense_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch, told: tuple[str, str]) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", told[0])
    monkeypatch.setenv("WORLD_SIZE", told[1])
    with pytest.raises(InputError, match="RANK, WORLD_SIZE, LOCAL_RANK: expected as torchrun sets them"):
        find_ranks()


@pytest.mark.parametrize(("rows", "batch"), [(1, 512), (512 * 64, 512), (50_000, 128), (1_281_167, 64), (10**9, 7)])
def test_a_view_has_some_tens_of_segments_where_it_has_batches_enough(rows: int, batch: int) -> None:
    segment = choose_segment_rows(rows, batch)
    assert segment % batch == 0
    count = -(-rows // segment)
    assert count <= 64
    assert count >= min(32, -(-rows // batch))
    assert (segment // batch).bit_count() == 1  # so that blocks and segments divide each other


def test_an_array_plan_keeps_its_form_without_its_codec() -> None:
    from pipeline.cache.store_plan import plan_whole_blocks

    plan = plan_whole_blocks({"a": ArrayPlan((3,), "float16", "zstd")}, views=2, rows=10, batch=4, block_rows=4)
    assert plan.arrays == {"a": ArrayPlan((3,), "float16")}
    assert [(block.view, block.start, block.stop) for block in plan.blocks()] == [
        (view, start, stop) for view in (0, 1) for start, stop in ((0, 4), (4, 8), (8, 10))
    ]
