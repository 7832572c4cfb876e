"""Several fields from one forward pass: the bytes of each are those that it has alone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.cache.block_files import BlockFiles
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.store_plan import plan_store
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.dumps.field import RowField
from pipeline.dumps.one_pass import WantedRows, _join_neighbours, run_one_pass
from pipeline.teacher import Samples, Teacher, TeacherOutputs
from pipeline.views.view import PLAIN, Views
from tests.conftest import Capture, Run, refused, write_study
from tests.scenes import BATCH, CNN, teacher_of, tree, wanted
from tests.store_plans import shrink_blocks

FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "logits": ("logits", {}),
    "top": ("logits", {"top_k": 2, "temperature": 4.0}),
    "hints": ("hints", {"taps": ("block1", "features")}),
    "bits": ("multichannel", {}),
    "p": ("affinities", {"batch_size": 40, "perplexity": 9.0, "plans": 2}),
    "pixels": ("affinities", {"batch_size": 25, "perplexity": 9.0, "tap": "pixels", "pca": 6, "pca_over": "all"}),
}
VOTER = {**CNN, "head": {"name": "multichannel", "kernel": 8, "stride": 2, "tap": "features"}}


@pytest.fixture(scope="module")
def teacher(dataset: Dataset) -> Teacher:
    return teacher_of(dataset, VOTER)


def all_of(folder: Path, store: Any = "zarr") -> list[DumpRequest]:
    codec = {"codec": "gzip"} if store == "hdf5" else {}
    return [wanted(folder, name, field, {**options, **codec}, store) for name, (field, options) in FIELDS.items()]


class Counting:
    """Counts the network's passes."""

    def __init__(self, teacher: Teacher) -> None:
        self.passes = 0
        teacher.network.members[0].register_forward_pre_hook(self.count)

    def count(self, *_: Any) -> None:
        self.passes += 1


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize("views", [PLAIN, Views("crop_flip", 2, 1, {"padding": 1})], ids=["plain", "views"])
def test_the_same_bytes_in_one_pass_over_the_data(
    tmp_path: Path, dataset: Dataset, store: Any, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch, 20_000, 10_000)  # fields are cut into blocks of different lengths
    teacher = teacher_of(dataset, VOTER)
    counting = Counting(teacher)
    together = all_of(tmp_path / "together", store)
    made = dump_fields(teacher, dataset, together, batch=BATCH, views=views)
    batches = -(-dataset.bounds[0] // BATCH) * views.count
    probes = len(FIELDS) - 2  # two of them only read logits
    assert batches <= counting.passes <= batches + probes
    assert len({manifest.arrays[name].chunk_rows for manifest in made for name in manifest.arrays}) > 2
    for each in all_of(tmp_path / "alone", store):
        dump_fields(teacher, dataset, [each], batch=BATCH, views=views)
        other = tmp_path / "together" / each.target.name
        assert tree(other) == tree(each.target)
        assert len(tree(other)) >= 3
    assert not list((tmp_path / "together").glob(".work-*/*"))


@pytest.mark.parametrize("after", [1, 8, 24, 32])
def test_a_dump_that_was_cut_goes_on_alone_or_together(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch, 20_000, 10_000)
    whole = all_of(tmp_path / "whole")
    dump_fields(teacher, dataset, whole, batch=BATCH)
    real, written = BlockFiles.write, 0

    def write(self: BlockFiles, name: str, block: Any, values: Any) -> None:
        nonlocal written
        written += 1
        if written > after:
            raise KeyboardInterrupt
        real(self, name, block, values)

    cut = all_of(tmp_path / "cut")
    monkeypatch.setattr(BlockFiles, "write", write)
    with pytest.raises(KeyboardInterrupt):
        dump_fields(teacher, dataset, cut, batch=BATCH)
    assert not any(each.target.exists() for each in cut)
    monkeypatch.setattr(BlockFiles, "write", real)
    dump_fields(teacher, dataset, [cut[-1]], batch=BATCH)
    dump_fields(teacher, dataset, cut[:-1], batch=BATCH)
    assert all(tree(a.target) == tree(b.target) for a, b in zip(whole, cut, strict=True))


def test_a_field_that_does_not_make_what_it_planned_is_a_bug(
    tmp_path: Path, dataset: Dataset, teacher: Teacher
) -> None:
    field = RowField(
        {"x": ArrayPlan((10,), "uint8")}, ("logits",), lambda answer: {"x": answer.numpy("logits")}
    )  # an assignment would cast it
    blocks_of_x = BlockFiles(tmp_path, plan_store(field.arrays, views=1, rows=100, batch=BATCH), "zarr")
    samples = Samples(dataset.images, 100, BATCH)
    with pytest.raises(ValueError, match="array 'x': planned uint8"):
        run_one_pass(teacher, samples, [WantedRows(field, blocks_of_x, blocks_of_x.missing_blocks())], "x")


def test_a_block_with_a_part_that_was_refused_is_never_written(
    tmp_path: Path, dataset: Dataset, teacher: Teacher
) -> None:
    """Answers are packed behind the network: those that it has given meanwhile must not complete the block."""
    asked: list[int] = []

    def extract(answer: TeacherOutputs) -> dict[str, Any]:
        asked.append(answer.start)
        if answer.start == BATCH:
            raise InputError("refused")
        return {"x": answer.numpy("logits")}

    field = RowField({"x": ArrayPlan((10,), "float32")}, ("logits",), extract)
    blocks = BlockFiles(tmp_path, plan_store(field.arrays, views=1, rows=4 * BATCH, batch=BATCH), "zarr")
    assert len(blocks.missing_blocks()) == 1
    with pytest.raises(InputError, match="refused"):
        run_one_pass(
            teacher,
            Samples(dataset.images, 4 * BATCH, BATCH),
            [WantedRows(field, blocks, blocks.missing_blocks())],
            "x",
        )
    assert asked == [0, BATCH]
    assert len(blocks.missing_blocks()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_network_answers_while_the_answer_before_is_packed(
    tmp_path: Path, dataset: Dataset, teacher: Teacher
) -> None:
    second = threading.Event()

    class Watched:
        card, device, shapes = teacher.card, teacher.device, teacher.shapes

        def compute_outputs(self, *asked: Any) -> Iterator[TeacherOutputs]:
            for answer in teacher.compute_outputs(*asked):
                if answer.start == BATCH:
                    second.set()
                yield answer

    def extract(answer: TeacherOutputs) -> dict[str, Any]:
        assert second.wait(10)  # in turn, it would wait for ever
        return {"x": answer.numpy("logits")}

    field = RowField({"x": ArrayPlan((10,), "float32")}, ("logits",), extract)
    blocks = BlockFiles(tmp_path, plan_store(field.arrays, views=1, rows=4 * BATCH, batch=BATCH), "zarr")
    run_one_pass(
        Watched(), Samples(dataset.images, 4 * BATCH, BATCH), [WantedRows(field, blocks, blocks.missing_blocks())], "x"
    )
    assert not blocks.missing_blocks()


@pytest.mark.parametrize(
    ("starts", "runs"),
    [
        ([], []),
        ([0], [(0, 0)]),
        ([0, 8, 16, 32, 40, 56], [(0, 16), (32, 40), (56, 56)]),
        ([*range(0, 8 * 35, 8)], [(0, 120), (128, 248), (256, 272)]),
    ],
)
def test_neighbouring_batches_are_asked_for_together(starts: list[int], runs: list[tuple[int, int]]) -> None:
    assert [*_join_neighbours(starts, 8)] == runs


def test_a_codec_that_the_store_lacks_is_refused_at_once(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    with pytest.raises(InputError, match="dump 'h': codec: expected one of none, gzip, found zstd"):
        dump_fields(teacher, dataset, [wanted(tmp_path, "h", "hints", {}, "hdf5")])
    assert not list(tmp_path.iterdir())


def test_one_refusal_publishes_nothing(tmp_path: Path, dataset: Dataset) -> None:
    loud = teacher_of(dataset, VOTER)
    with torch.no_grad():
        loud.network.members[0].body.fc.weight.mul_(1e7)  # type: ignore[union-attr, operator]
    each = all_of(tmp_path)
    with pytest.raises(InputError, match="hint 'features'"):
        dump_fields(loud, dataset, each, batch=BATCH)
    assert not any(one.target.exists() for one in each)


@pytest.fixture
def full(study: dict[str, Any]) -> dict[str, Any]:
    study["teachers"]["big"]["head"] = {"multichannel": {"kernel": 8, "stride": 2}}
    study["dumps"] = {
        "l": {"field": "logits", "of": "big", "batch": 64}, "h": {"field": "hints", "of": "big", "batch": 64},
        "b": {"field": "multichannel", "of": "big", "batch": 64},
        "p": {"field": "affinities", "of": "big", "batch_size": 50, "perplexity": 9.0, "batch": 64},
        "other": {"field": "logits", "of": "big", "batch": 32}, "of-student": {"field": "hints", "of": "baseline"},
    }  # fmt: skip
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "l"
    return study


def test_the_command_makes_all_dumps_of_a_network(
    run: Run, capsys: Capture, tmp_path: Path, full: dict[str, Any]
) -> None:
    folder = write_study(tmp_path, full)
    for command in (("prepare", "digits"), ("train-teacher", "big"), ("train-student", "baseline")):
        assert run(folder, *command) == 0
    capsys.readouterr()
    assert run(folder, "dump", "big") == 0
    assert "dvc" not in capsys.readouterr().out
    (tmp_path / ".dvc").mkdir()
    assert run(folder, "graph") == run(folder, "dump", "big") == 0
    said = capsys.readouterr().out
    assert said.endswith("dvc commit -f dumps-big dump-logits-other\n")
    before = {name: tree(folder / "data/cache" / name) for name in ("l", "h", "b", "p", "other")}
    for field, name in (
        ("logits", "l"),
        ("hints", "h"),
        ("multichannel", "b"),
        ("affinities", "p"),
        ("logits", "other"),
    ):
        assert run(folder, f"dump-{field}", name) == 0
        assert tree(folder / "data/cache" / name) == before[name]
    for name in ("h", "l"):
        shutil.rmtree(folder / "data/cache" / name)
    untouched = (folder / "data/cache/b/manifest.json").stat().st_mtime_ns
    assert run(folder, "dump", "big", "h", "l") == 0
    assert {name: tree(folder / "data/cache" / name) for name in before} == before
    assert (folder / "data/cache/b/manifest.json").stat().st_mtime_ns == untouched
    assert "dump 'l': expected one of 'baseline', found one of 'big'" in refused(
        run, capsys, folder, "dump", "baseline", "l"
    )
    assert "unknown name 'none'" in refused(run, capsys, folder, "dump", "big", "none")
    capsys.readouterr()
    assert run(folder, "dump", "baseline") == 0
    assert "of-student: 200 samples" in capsys.readouterr().out
    assert "unknown name 'nobody'" in refused(run, capsys, folder, "dump", "nobody")
    assert "params.yaml: dumps: of 'kd': expected at least one, found none" in refused(
        run, capsys, folder, "dump", "kd"
    )
