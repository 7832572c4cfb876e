"""The cache tools, `plan` and `fidelity`, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from pipeline import cache, runs
from pipeline.base.errors import InputError, NotNowError
from pipeline.base.statistics import compare_pairs
from pipeline.cache import reader_limits as readability
from pipeline.cache import writer
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.dtypes import DType
from pipeline.fields.rows import CachedRows
from pipeline.graph import stages as graph
from pipeline.report.fidelity import (
    EXACT,
    Encoding,
    SeedAccuracies,
    compare_encodings,
    compute_kl,
    describe_doubts,
    encode_logits,
    format_comparison,
)
from pipeline.runs.new_folders import open_work_beside
from pipeline.study.params_file import parse_study
from tests.conftest import ROOT, Capture, Run, refused, shell, write_study
from tests.store_plans import cut_store, shrink_blocks
from tests.stored_chunks import read_chunks

DUMP = "data/cache/big-logits"
FOREIGN = ("--from", "x.npy", "--teacher", "t", "--data", "data/prepared/digits")


def out(run: Run, capsys: Capture, folder: Path, *arguments: str) -> str:
    """What a command that succeeds prints."""
    capsys.readouterr()
    code = run(folder, *arguments)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def differing(run: Run, capsys: Capture, folder: Path, a: str, b: str, *options: str) -> str:
    """What `cache diff` prints of two caches that differ."""
    capsys.readouterr()
    assert run(folder, "cache", "diff", a, b, *options) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_inspect_says_what_the_teacher_knows(run: Run, capsys: Capture, copy_of: Path) -> None:
    facts = json.loads(out(run, capsys, copy_of, "cache", "inspect", DUMP, "--json"))
    logits = cache.open(copy_of / DUMP).load()[0].astype(np.float64)
    labels = np.load(copy_of / "data/prepared/digits/labels.npy")[: len(logits)]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(1)
    right = logits.argmax(1) == labels
    assert facts["facts"]["entropy"]["mean"] == pytest.approx(entropy.mean(), rel=1e-12)
    assert facts["facts"]["entropy"]["quartiles"] == pytest.approx(np.quantile(entropy, [0.25, 0.5, 0.75]).tolist())
    assert facts["facts"]["agreement_with_labels"] == right.mean()
    per_class = [right[labels == label].mean() for label in range(10)]
    assert facts["facts"]["agreement_per_class"] == pytest.approx(per_class)
    assert facts["facts"]["chosen_per_class"] == np.bincount(logits.argmax(1), minlength=10).tolist()
    assert facts["arrays"]["logits"]["shape"] == [1, 200, 10]
    shown = out(run, capsys, copy_of, "cache", "inspect", DUMP)
    assert f"agreement with the labels: {100 * right.mean():.2f} %" in shown
    assert facts["root"] in shown


def test_inspect_without_the_data_says_so(run: Run, capsys: Capture, copy_of: Path) -> None:
    shutil.copytree(copy_of / DUMP, copy_of / "alone")
    shown = out(run, capsys, copy_of, "cache", "inspect", "alone")
    assert "no labels" in shown
    assert "agreement with" not in shown
    with_data = out(run, capsys, copy_of, "cache", "inspect", "alone", "--data", "data/prepared/digits")
    assert "agreement with the labels" in with_data


def test_inspect_refuses_other_data(run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]) -> None:
    study["datasets"]["digits"]["train"] = {"first": 100}
    write_study(copy_of, study)
    assert run(copy_of, "prepare", "digits") == 0
    data = ("--data", "data/prepared/digits")
    assert "expected the cache's data set" in refused(run, capsys, copy_of, "cache", "inspect", DUMP, *data)
    assert "no labels" in out(run, capsys, copy_of, "cache", "inspect", DUMP)  # nobody asked for those data


def test_verify_names_the_block_and_repairs_it(run: Run, capsys: Capture, copy_of: Path) -> None:
    assert "whole: 5 files, 1 chunks" in out(run, capsys, copy_of, "cache", "verify", DUMP)
    shutil.copytree(copy_of / DUMP, copy_of / "sound")
    chunk = "data.zarr/logits/c/0/0/0"
    flip(copy_of / DUMP / chunk, 777)
    flip(copy_of / DUMP / "card.md", 3)
    message = refused(run, capsys, copy_of, "cache", "verify", DUMP)
    assert "damaged files: 2, damaged chunks: 1" in message
    run(copy_of, "cache", "verify", DUMP)
    assert f"{chunk}: damaged chunk: array 'logits', view 0, rows 0 to 199" in capsys.readouterr().out
    assert "repaired" in out(run, capsys, copy_of, "cache", "verify", DUMP, "--repair", "fixed")
    assert files(copy_of / "fixed") == files(copy_of / "sound")
    assert [path.name for path in copy_of.iterdir() if path.name.startswith(".fixed")] == []


def test_damage_beside_the_rows_is_repaired_without_a_teacher(run: Run, capsys: Capture, copy_of: Path) -> None:
    before = files(copy_of / DUMP)
    (copy_of / DUMP / "data.zarr/logits/zarr.json").unlink()
    shutil.rmtree(copy_of / "data/teachers")
    assert "repaired" in out(run, capsys, copy_of, "cache", "verify", DUMP, "--repair", "fixed")
    assert files(copy_of / "fixed") == before


def test_a_repair_by_another_teacher_is_refused(
    run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]
) -> None:
    flip(copy_of / DUMP / "data.zarr/logits/c/0/0/0", 5)
    study["teachers"]["big"]["epochs"] = 3
    write_study(copy_of, study)
    assert run(copy_of, "train-teacher", "big") == 0
    message = refused(run, capsys, copy_of, "cache", "verify", DUMP, "--repair", "fixed")
    assert "none with this teacher and these data" in message
    assert not (copy_of / "fixed").exists()


def test_nothing_is_written_over_something(run: Run, capsys: Capture, copy_of: Path) -> None:
    before = files(copy_of / "data")
    for command in (
        ("verify", DUMP, "--repair", "data/students"),
        ("convert", DUMP, "data/students"),
        ("create", "data/students", *FOREIGN),
    ):
        if command[0] == "verify":
            flip(copy_of / DUMP / "card.md", 1)
        assert "expected a new folder, found something that is there" in refused(
            run, capsys, copy_of, "cache", *command
        )
        if command[0] == "verify":
            flip(copy_of / DUMP / "card.md", 1)
    assert files(copy_of / "data") == before


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_convert_keeps_every_bit(run: Run, capsys: Capture, copy_of: Path, codec: str) -> None:
    there = out(run, capsys, copy_of, "cache", "convert", DUMP, "h", "--format", "hdf5", "--codec", codec)
    assert "the same values" in there
    out(run, capsys, copy_of, "cache", "convert", "h", "back", "--format", "zarr", "--codec", "none")
    assert files(copy_of / "back") == files(copy_of / DUMP)
    a, h = cache.open(copy_of / DUMP), cache.open(copy_of / "h")
    assert (h.manifest.store, h.manifest.arrays["logits"].codec) == ("hdf5", codec)
    assert a.manifest.values == h.manifest.values
    assert np.array_equal(a.load(), h.load())


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
@pytest.mark.parametrize(("kib", "rows"), [(1, 16), (4, 64), (8, 200), (1 << 20, 200)])
def test_convert_cuts_chunks_of_the_size_that_is_asked_for(
    run: Run, capsys: Capture, copy_of: Path, store: str, kib: int, rows: int
) -> None:
    form = ("--format", store, "--codec", "gzip", "--chunk-kib", str(kib))
    assert "the same values" in out(run, capsys, copy_of, "cache", "convert", DUMP, "new", *form)
    made = cache.open(copy_of / "new")
    assert made.manifest.arrays["logits"].chunk_rows == rows  # of 40 bytes, as many as divide 16 batches of 64
    assert np.array_equal(made.load(), cache.open(copy_of / DUMP).load())
    assert np.array_equal(made.rows([199, 0, 64]), made.load()[0][[199, 0, 64]])


def test_a_size_of_chunks_out_of_bounds_is_refused(run: Run, copy_of: Path) -> None:
    for kib in (0, (1 << 20) + 1):
        assert run(copy_of, "cache", "convert", DUMP, "new", "--chunk-kib", str(kib)) == 2
        with pytest.raises(InputError, match="chunk_kib: expected 1 to 1,048,576, found "):
            runs.convert_cache(copy_of / DUMP, copy_of / "new", chunk_kib=kib)
    assert not (copy_of / "new").exists()


def test_a_dump_of_other_chunks_is_the_same_knowledge(
    run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]
) -> None:
    before = cache.open(copy_of / DUMP).manifest
    metrics = copy_of / "data/metrics/students/kd.json"
    trained = json.loads(metrics.read_bytes())["weights_sha256"]
    study["dumps"]["big-logits"]["chunk_kib"] = 1
    write_study(copy_of, study)
    predicted = json.loads(out(run, capsys, copy_of, "plan", "--json"))["big-logits"]
    assert run(copy_of, "train-student", "kd") == 0  # from the dump that is there
    assert run(copy_of, "dump-logits", "big-logits") == 0
    made = cache.open(copy_of / DUMP).manifest
    assert made.arrays["logits"].chunk_rows == 8 < before.arrays["logits"].chunk_rows
    assert predicted["bytes"] == 8000 + 25 * (4 + 16 + 56) + 4
    assert (made.values, made.field) == (before.values, before.field)
    assert run(copy_of, "train-student", "kd") == 0
    assert json.loads(metrics.read_bytes())["weights_sha256"] == trained


def test_convert_to_a_coarser_format_is_what_a_dump_would_have_written(
    run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]
) -> None:
    assert "other values" in out(run, capsys, copy_of, "cache", "convert", DUMP, "half", "--dtype", "float16")
    study["cache"]["dtype"] = "float16"
    write_study(copy_of, study)
    assert run(copy_of, "dump-logits", "big-logits") == 0
    assert files(copy_of / "half") == files(copy_of / DUMP)


def test_numbers_that_went_through_a_coarser_format_say_so(run: Run, capsys: Capture, copy_of: Path) -> None:
    original = copy_of / "original"
    shutil.copytree(copy_of / DUMP, original)
    out(run, capsys, copy_of, "cache", "convert", DUMP, "half", "--dtype", "bfloat16")
    out(run, capsys, copy_of, "cache", "convert", "half", "wide", "--dtype", "float32")
    wide = cache.open(copy_of / "wide")
    assert wide.manifest.field.parameters["through"] == ["bfloat16"]
    shutil.rmtree(copy_of / DUMP)
    shutil.copytree(copy_of / "wide", copy_of / DUMP)
    message = refused(run, capsys, copy_of, "train-student", "kd")
    assert "field.parameters.through expected None, found ['bfloat16']" in message


def test_convert_refuses_what_a_format_cannot_hold(run: Run, capsys: Capture, copy_of: Path) -> None:
    outputs = np.zeros((200, 10))
    outputs[137, 2] = 1e6
    np.save(copy_of / "x.npy", outputs)
    create = FOREIGN
    out(run, capsys, copy_of, "cache", "create", "c", *create, "--dtype", "float32")
    message = refused(run, capsys, copy_of, "cache", "convert", "c", "d", "--dtype", "float16")
    assert "sample 137" in message
    assert "1e+06, beyond its range" in message
    assert "sample 137" in refused(run, capsys, copy_of, "cache", "create", "d", *create)
    assert not list(copy_of.glob("*d*work*")) + list(copy_of.glob("d"))
    assert "--codec: expected one of none, gzip for hdf5" in refused(
        run, capsys, copy_of, "cache", "convert", "c", "d", "--format", "hdf5", "--codec", "zstd"
    )


def test_diff_names_the_samples(run: Run, capsys: Capture, copy_of: Path) -> None:
    outputs = np.random.default_rng(0).normal(size=(200, 10))
    data = ("--teacher", "t", "--teacher-sha256", "ab" * 32, "--data", "data/prepared/digits", "--dtype", "float32")
    np.save(copy_of / "x.npy", outputs)
    out(run, capsys, copy_of, "cache", "create", "a", "--from", "x.npy", *data)
    outputs[[3, 150], [1, 2]] += 0.5
    np.save(copy_of / "x.npy", outputs)
    out(run, capsys, copy_of, "cache", "create", "b", "--from", "x.npy", *data, "--format", "hdf5", "--codec", "gzip")
    found = json.loads(differing(run, capsys, copy_of, "a", "b", "--json"))
    assert found["same_values"] is False
    assert {name for name, _, _ in found["entries"]} == {
        "store",
        "arrays.logits.codec",
        "arrays.logits.shard",
        "values",
        "root",
    }
    (array,) = found["arrays"]
    assert (array["samples"], array["rows"], array["of"]) == ([3, 150], 2, 200)
    assert array["largest"] == pytest.approx(0.5, abs=1e-6)
    shown = differing(run, capsys, copy_of, "a", "b")
    assert "2 of 200 rows differ, by at most 0.5; samples (2): 3, 150" in shown
    assert "other values" in shown
    same = json.loads(out(run, capsys, copy_of, "cache", "diff", "a", "a", "--json"))
    assert same == {
        "entries": [], "arrays": [], "alone": [], "same_values": True, "same_numbers": True, "unit": "sample",
    }  # fmt: skip
    assert same.keys() == found.keys()
    other_form = json.loads(differing(run, capsys, copy_of, DUMP, "a", "--json"))
    assert other_form.keys() == found.keys()


def test_a_foreign_teacher_teaches(run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]) -> None:
    labels = np.load(copy_of / "data/prepared/digits/labels.npy")
    outputs = np.eye(10)[labels] * 5
    outputs[-1] = 0
    outputs[-1, (labels[-1] + 1) % 10] = 1  # one mistake among the test samples
    np.save(copy_of / "outputs.npy", outputs)
    create = ("cache", "create", "data/cache/api-logits", "--from", "outputs.npy", "--teacher", "api")
    made = out(run, capsys, copy_of, *create, "--data", "data/prepared/digits", "--dtype", "float32", "--batch", "64")
    match = re.search(r"weights ([0-9a-f]{64})", made)
    assert match
    opened = cache.open(copy_of / "data/cache/api-logits")
    tests = len(outputs) - opened.manifest.dataset.bounds[1]
    assert opened.manifest.teacher.test_accuracy == pytest.approx(1 - 1 / tests)
    assert np.array_equal(opened.load()[0], outputs.astype("f4"))
    study["teachers"]["api"] = {"external": match[1]}
    study["dumps"] = {"api-logits": {"field": "logits", "of": "api", "samples": "all", "batch": 64}}
    write_study(copy_of, study)
    assert "written: 6 stages" in out(run, capsys, copy_of, "graph")
    assert "api" not in {
        line.strip() for line in (copy_of / "dvc.yaml").read_text().splitlines() if "train-teacher" in line
    }
    assert run(copy_of, "train-student", "kd") == 0
    assert json.loads((copy_of / "data/metrics/students/kd.json").read_bytes())["taught_by"] == ["api"]
    assert run(copy_of, "report") == 0
    study["teachers"]["api"] = {"external": "00" * 32}
    write_study(copy_of, study)
    message = refused(run, capsys, copy_of, "train-student", "kd")
    assert "teacher.weights_sha256 expected 0000" in message
    assert "make it with `teachercache cache create data/cache/api-logits`" in message
    assert "external" in refused(run, capsys, copy_of, "train-teacher", "api")
    assert "cache create" in refused(run, capsys, copy_of, "dump-logits", "api-logits")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            np.zeros((199, 10)),
            "floats of shape (200, 10), training rows, or (660, 10), all rows, found float64 (199, 10)",
        ),
        (np.zeros((200, 9)), "found float64 (200, 9)"),
        (np.zeros((200, 10), int), "found int64 (200, 10)"),
        (np.full((200, 10), np.nan), "sample 0: expected finite float16 numbers, found NaN or inf"),
        (
            np.array([{}], dtype=object),
            "a .npy file of numbers, found no array of numbers; save the outputs as float32",
        ),
    ],
)
def test_foreign_outputs_that_do_not_fit_are_refused(
    run: Run, capsys: Capture, copy_of: Path, outputs: Any, message: str
) -> None:
    np.save(copy_of / "x.npy", outputs, allow_pickle=True)
    create = ("cache", "create", "new", *FOREIGN)
    assert message in refused(run, capsys, copy_of, *create)
    assert not (copy_of / "new").exists()


def test_nothing_is_written_into_a_cache_or_where_nothing_can_be(run: Run, capsys: Capture, copy_of: Path) -> None:
    message = refused(run, capsys, copy_of, "cache", "convert", DUMP, f"{DUMP}/sub")
    assert "expected a place outside of any cache" in message
    assert run(copy_of, "cache", "verify", DUMP) == 0
    (copy_of / "afile").write_text("")
    assert "afile/x: expected a folder that can be made" in refused(
        run, capsys, copy_of, "cache", "convert", DUMP, "afile/x"
    )
    shown = out(run, capsys, copy_of, "cache", "verify", DUMP, "--repair", "new")
    assert "nothing to repair; new was not written" in shown


@pytest.mark.dvc
def test_dvc_keeps_a_cache_that_no_stage_makes(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(made / DUMP, folder / "data/cache/api-logits")
    shutil.copy(ROOT / ".gitignore", folder)
    shell(folder, "git init -q . && dvc init -q && dvc add -q data/cache/api-logits")
    assert (folder / "data/cache/api-logits.dvc").exists()
    assert "data/cache/api-logits.dvc" in shell(folder, "git add -A && git ls-files")


def test_storage_options_are_pairs(run: Run, capsys: Capture, copy_of: Path) -> None:
    message = refused(run, capsys, copy_of, "cache", "inspect", "memory://x", "--storage", "anon")
    assert "--storage: expected KEY=VALUE, found anon" in message


def test_plan_predicts_the_size_to_the_byte(run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]) -> None:
    study["views"] = {"policy": "flip", "count": 3}
    study["dumps"]["more"] = {
        "field": "logits",
        "of": "big",
        "batch": 64,
        "format": "hdf5",
        "top_k": 3,
        "temperature": 2.0,
    }
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    write_study(copy_of, study)
    made = json.loads(out(run, capsys, copy_of, "plan", "--json"))
    assert made["big-logits"]["students"] == 2
    assert made["more"]["students"] == 0
    assert made["big-logits"]["pays_from"] >= 1
    assert made["big-logits"]["live_seconds"] > 0
    for name in ("big-logits", "more"):
        assert run(copy_of, "dump-logits", name) == 0
        manifest = cache.open(copy_of / "data/cache" / name).manifest
        stored = sum(info.bytes for file, info in manifest.files.items() if "/c/" in file)
        if manifest.store == "hdf5":
            chunks = read_chunks(copy_of / "data/cache" / name).values()
            stored = sum(int(each.records["bytes"].sum()) for each in chunks)
        assert made[name]["bytes"] == stored + manifest.files["chunks.bin"].bytes
        assert made[name]["files"] == len(manifest.files)
    assert "pays from" in out(run, capsys, copy_of, "plan")


def test_plan_says_which_dump_would_be_refused(
    run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"field": "logits", "of": "big", "batch": 64}
    study["dumps"] |= {"hdf5": more | {"format": "hdf5"}, "top": more | {"top_k": 3, "temperature": 2.0}}
    study["dumps"]["of-kd"] = more | {"of": "kd"}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    write_study(copy_of, study)
    told = {}
    for limit in (8 << 20, 3000, 1000):
        monkeypatch.setattr(readability, "MAX_MANIFEST_BYTES", limit)
        capsys.readouterr()
        assert run(copy_of, "plan", "--json") == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out).keys() == study["dumps"].keys()
        told[limit] = printed.err.splitlines()
    assert told[8 << 20] == []
    (line,) = told[3000]  # the one of three arrays
    start = "warning: dump 'top' would be refused: "
    assert line.startswith(
        f"{start}cache data/cache/top: manifest: expected at most 0 MiB, as readers do, found up to "
    )
    assert "bytes; shorten the names of classes, or the parameters; nothing was computed" in line
    assert [text.split("'")[1] for text in told[1000]] == sorted(study["dumps"])
    monkeypatch.setattr(readability, "MAX_MANIFEST_BYTES", 3000)
    refusal = refused(run, capsys, copy_of, "dump-logits", "top")
    assert refusal.split("found")[0] == line.replace(start, "error: ").split("found")[0]
    assert run(copy_of, "dump-logits", "big-logits") == 0


def test_plan_spends_nothing_and_needs_nothing(
    run: Run, capsys: Capture, tmp_path: Path, study: dict[str, Any]
) -> None:
    write_study(tmp_path / "new", study)
    made = json.loads(out(run, capsys, tmp_path / "new", "plan", "--json"))
    assert made["big-logits"]["bytes"] == 200 * 10 * 4 + 4 + (16 + 4) + 56  # rows, their checksum, an index, a record
    assert not (tmp_path / "new/data").exists()


def test_fidelity_compares_what_a_student_makes_of_each_form(run: Run, capsys: Capture, copy_of: Path) -> None:
    shown = out(run, capsys, copy_of, "fidelity", "kd", "--top-k", "3")
    rows = json.loads((copy_of / "data/fidelity/kd/fidelity.json").read_bytes())["rows"]
    assert [row["encoding"] for row in rows] == ["float32", "float16", "bfloat16", "top-3, float16"]
    trained = json.loads((copy_of / "data/metrics/students/kd.json").read_bytes())["test_accuracy_per_seed"]
    assert rows[0]["test_accuracy_per_seed"] == trained  # float32 in the cache, float32 here
    assert [row["bytes"] for row in rows] == [8000, 4000, 4000, 200 * (6 + 6 + 4)]
    assert rows[0]["kl"]["max"] < 1e-12 < rows[1]["kl"]["mean"] < rows[2]["kl"]["mean"] < rows[3]["kl"]["mean"]
    assert (copy_of / "data/fidelity/kd/fidelity.md").read_text() in shown
    message = refused(run, capsys, copy_of, "fidelity", "baseline")
    assert "expected soft_targets as the only loss that reads a dump, found none" in message


def test_fidelity_says_that_nothing_was_learnt(run: Run, capsys: Capture, copy_of: Path, study: dict[str, Any]) -> None:
    card = copy_of / "data/teachers/big/card.json"
    guesses = "is no better than chance"
    card.write_text(json.dumps({**json.loads(card.read_text()), "doubt": guesses}))
    study["students"]["kd"] |= {"optimizer": {"name": "sgd", "lr": 1e-12}, "epochs": 1}
    write_study(copy_of, study)
    assert run(copy_of, "fidelity", "kd", "--top-k", "3") == 0
    shown = capsys.readouterr()
    teacher, student = (line for line in shown.err.splitlines() if line.startswith("warning: "))
    means = "; what the table compares means little"
    assert teacher == f"warning: teacher 'big' {guesses}{means}"
    assert student.startswith(f"warning: student 'kd' {guesses}: right for ")
    assert student.endswith(f" (seed 0, seed 1) from float32; float16; bfloat16; top-3, float16{means}")
    page = (copy_of / "data/fidelity/kd/fidelity.md").read_text()
    assert page in shown.out
    assert [line[:28] for line in page.splitlines() if line.startswith("Doubtful")] == [
        "Doubtful: teacher 'big' is n",
        "Doubtful: student 'kd' is no",
    ]
    rows = json.loads((copy_of / "data/fidelity/kd/fidelity.json").read_bytes())["rows"]
    assert all(set(row["doubts"]) == {"seed 0", "seed 1"} for row in rows)


def test_only_the_doubtful_encodings_are_named() -> None:
    made = iter(
        [
            SeedAccuracies([0.9, 0.9]),
            SeedAccuracies([0.9, 0.1], {"seed 1": "says '3'"}),
            SeedAccuracies([0.1, 0.1], {"seed 0": "x"}),
        ]
    )
    encodings = [Encoding("float16"), Encoding("float16", 2)]
    rows = compare_encodings(
        np.zeros((1, 4, 3), np.float32), encodings, temperature=1.0, teacher="t", train=lambda _: next(made)
    )
    assert describe_doubts(rows) == "says '3' (seed 1) from float16; top-2, float16"
    assert "doubts" not in rows[0]
    assert describe_doubts(rows[:1]) is None
    assert format_comparison(rows, ["a *b* doubts"]).endswith("|\n\nDoubtful: a \\*b\\* doubts.\n")
    assert "Doubtful" not in format_comparison(rows)


def test_the_kl_error_is_that_of_the_kept_probabilities() -> None:
    exact = np.array([[[2.0, 1.0, 0.5, -1.0], [0.0, 3.0, 0.1, 0.2]]], np.float32)
    made = encode_logits(exact, Encoding("float32", 2), 1.0, "t")
    p = np.exp(exact[0]) / np.exp(exact[0]).sum(1, keepdims=True)
    q = p.copy()
    for row in q:
        rest = np.argsort(row)[:2]
        row[rest] = row[rest].mean()
    expected = (p * np.log(p / q)).sum(1)
    found = compute_kl(exact, made, 1.0)
    assert found["mean"] == pytest.approx(expected.mean(), abs=1e-7)
    assert found["max"] == pytest.approx(expected.max(), abs=1e-7)
    assert compute_kl(exact, encode_logits(exact, EXACT, 1.0, "t"), 1.0)["max"] == 0


def test_differences_are_paired_by_seed() -> None:
    exact = np.zeros((1, 4, 3), np.float32)
    reached = iter([[0.5, 0.7, 0.6], [0.51, 0.72, 0.6]])
    rows = compare_encodings(
        exact, [Encoding("float16")], temperature=1.0, teacher="t", train=lambda _: SeedAccuracies(next(reached))
    )
    assert rows[1]["difference"]["mean"] == pytest.approx(0.01)
    # Student's t with 2 degrees of freedom: 4.302653 * std / sqrt(3), std = 0.01.
    assert rows[1]["difference"]["high"] == pytest.approx(0.01 + 4.302653 * 0.01 / 3**0.5, abs=1e-6)
    assert compare_pairs([1.0], [0.5]).low is None
    assert compare_pairs([1.0, 0.9], [0.5, 0.8]).low is None


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_intervals_stand_where_there_are_three_seeds(seeds: int) -> None:
    exact = np.zeros((1, 4, 3), np.float32)
    reached = iter([[0.5, 0.7, 0.6][:seeds], [0.51, 0.72, 0.6][:seeds]])
    rows = compare_encodings(
        exact, [Encoding("float16")], temperature=1.0, teacher="t", train=lambda _: SeedAccuracies(next(reached))
    )
    head, _, _, row = format_comparison(rows).splitlines()
    assert "| test accuracy (%, ± std) | difference to float32 (points, 95 % interval) |" in head
    assert ("fewer than 3 seeds: no interval" in row) == (seeds < 3)
    assert (" to " in row, f"n = {seeds}" in row) == (seeds == 3, seeds == 3)
    assert ("±" in row) == (seeds > 1)


def test_a_cache_handed_over_without_anything_else_trains_a_student(
    made: Path, tmp_path: Path, study: dict[str, Any]
) -> None:
    """The README's walk without DVC: two folders that share nothing but the copied store."""
    theirs = write_study(tmp_path / "theirs", study)
    shutil.copytree(made / DUMP, theirs / DUMP)
    text = (ROOT / "README.md").read_text()
    (walk,) = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "cache verify data/cache" in block]
    commands = [line.partition("#")[0].strip() for line in walk.splitlines()]
    assert len(commands) == 3
    for command in commands:
        shell(theirs, command)
    assert not (theirs / "data/teachers").exists()
    ours, new = (json.loads((f / "data/metrics/students/kd.json").read_bytes()) for f in (made, theirs))
    assert new["test_accuracy_per_seed"] == ours["test_accuracy_per_seed"]
    assert new["weights_sha256"] == ours["weights_sha256"]
    shutil.rmtree(theirs / "data/prepared")
    study["datasets"]["digits"]["seed"] = 1
    study["datasets"]["digits"]["train"] = 0.5
    write_study(theirs, study)
    shell(theirs, "teachercache prepare digits")
    with pytest.raises(AssertionError, match=r"dataset\.fingerprint expected"):
        shell(theirs, "teachercache train-student kd")


def test_a_closed_pipe_ends_quietly(made: Path) -> None:
    shown = shell(made, f"({sys.executable} -m stages.main cache inspect {DUMP} --json; echo code $? >&2) | true")
    assert "Traceback" not in shown
    assert os.path.exists(made / DUMP)  # noqa: PTH110


def test_create_never_mixes_two_files(
    run: Run, capsys: Capture, copy_of: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch, 1000)  # many blocks
    outputs = np.ones((200, 10))
    create = ("cache", "create", "c", "--from", "x.npy", "--teacher", "t", "--teacher-sha256", "ab" * 32)
    data = ("--data", "data/prepared/digits", "--batch", "16")
    outputs[190] = 1e30
    np.save(copy_of / "x.npy", outputs)
    assert "sample 190" in refused(run, capsys, copy_of, *create, *data)
    np.save(copy_of / "x.npy", np.full((200, 10), 2.0))
    out(run, capsys, copy_of, *create, *data)
    assert np.unique(cache.open(copy_of / "c").load()).tolist() == [2.0]


def unfinished(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.work"))


def test_a_refused_output_leaves_nothing_behind(
    run: Run, capsys: Capture, copy_of: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch, 1000)  # many blocks, most of which are fine
    outputs = np.ones((200, 10))
    outputs[190] = 1e30
    np.save(copy_of / "x.npy", outputs)
    before = sorted(copy_of.iterdir())
    create = ("cache", "create", "new", *FOREIGN, "--batch", "16")
    assert "sample 190" in refused(run, capsys, copy_of, *create)
    flip(copy_of / DUMP / "data.zarr/logits/c/0/0/0", 3)
    repair = ("cache", "verify", DUMP, "--repair", "new", "--params", "nowhere.yaml")
    assert "nowhere.yaml" in refused(run, capsys, copy_of, *repair)
    flip(copy_of / DUMP / "data.zarr/logits/c/0/0/0", 3)
    assert sorted(copy_of.iterdir()) == before


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OSError(28, "No space left on device", "x"), NotNowError("gone")])
def test_what_a_stopped_one_has_done_is_kept(
    run: Run, copy_of: Path, end: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch, 1000)
    np.save(copy_of / "x.npy", np.ones((200, 10)))
    create = ("cache", "create", "new", *FOREIGN, "--batch", "16")

    def stopped(*_: Any) -> None:
        raise end

    with monkeypatch.context() as patch:
        patch.setattr(writer, "seal_store", stopped)
        assert run(copy_of, *create) != 0
    kept = sorted((copy_of / ".new.work").rglob("*.raw"))
    assert len(kept) > 1
    times = [path.stat().st_mtime_ns for path in kept]
    with monkeypatch.context() as patch:
        patch.setattr(writer, "seal_store", stopped)
        assert run(copy_of, *create) != 0
    assert [path.stat().st_mtime_ns for path in kept] == times  # taken up, not made again
    assert run(copy_of, *create) == 0
    assert unfinished(copy_of) == []


def test_the_work_of_another_process_is_left_alone(run: Run, capsys: Capture, copy_of: Path) -> None:
    np.save(copy_of / "x.npy", np.ones((200, 10)))
    with open_work_beside(copy_of / "new") as work:
        work.mkdir()
        for command in (("cache", "create", "new", *FOREIGN), ("cache", "convert", DUMP, "new")):
            assert "expected no other writer" in refused(run, capsys, copy_of, *command)
        assert work.is_dir()
    assert unfinished(copy_of) == []
    assert run(copy_of, "cache", "convert", DUMP, "new") == 0


def test_diff_of_caches_with_other_arrays(run: Run, capsys: Capture, copy_of: Path) -> None:
    np.save(copy_of / "x.npy", np.random.default_rng(0).normal(size=(200, 10)))
    create = (
        *FOREIGN,
        "--top-k",
        "3",
        "--temperature",
        "4",
    )
    out(run, capsys, copy_of, "cache", "create", "top", *create)
    found = json.loads(differing(run, capsys, copy_of, DUMP, "top", "--json"))
    assert (found["same_values"], found["same_numbers"]) == (False, False)
    shown = differing(run, capsys, copy_of, DUMP, "top")
    for line in ("array logits: only in A", "array values: only in B", "array tail: only in B", "other values"):
        assert line in shown.splitlines()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_wider_copy_holds_the_same_numbers(run: Run, capsys: Capture, copy_of: Path, dtype: str) -> None:
    np.save(copy_of / "x.npy", np.random.default_rng(0).normal(size=(200, 10)))
    out(run, capsys, copy_of, "cache", "create", "a", *FOREIGN, "--dtype", dtype)
    out(run, capsys, copy_of, "cache", "convert", "a", "b", "--dtype", "float32", "--format", "hdf5")
    shown = differing(run, capsys, copy_of, "a", "b")
    assert f"array logits: the same numbers in all 200 rows ({dtype} in A, float32 in B)" in shown
    assert shown.splitlines()[-1] == "same numbers, in other number formats"
    assert "field.parameters.dtype" in shown  # what differs is named
    assert json.loads(differing(run, capsys, copy_of, "a", "b", "--json"))["same_numbers"] is True
    out(run, capsys, copy_of, "cache", "convert", "a", "c", "--format", "hdf5")
    shown = differing(run, capsys, copy_of, "a", "c")
    assert shown.splitlines()[-1] == "same values"
    assert "store" in shown
    assert out(run, capsys, copy_of, "cache", "diff", "c", "c") == "same values\n"
    assert "expected a cache's manifest" in refused(run, capsys, copy_of, "cache", "diff", "a", "nowhere")


def test_two_zeros_are_two_values(run: Run, capsys: Capture, copy_of: Path) -> None:
    outputs = np.random.default_rng(0).normal(size=(200, 10)).astype("f4")
    digest = ("--teacher-sha256", "ab" * 32)
    for name, zero in (("a", 0.0), ("b", -0.0)):
        outputs[7, 3] = zero
        np.save(copy_of / "x.npy", outputs)
        out(run, capsys, copy_of, "cache", "create", name, *FOREIGN, *digest)
    shown = differing(run, capsys, copy_of, "a", "b")
    assert "1 of 200 rows differ, by at most 0; samples (1): 7" in shown


def test_a_cache_says_in_two_lines_what_it_is(made: Path, tmp_path: Path) -> None:
    shown = repr(cache.open(made / DUMP)).splitlines()
    root = cache.open(made / DUMP).manifest.root[:12]
    assert shown == [
        f"Cache {made / DUMP}: logits of big on digits",
        f"  logits float32 (1, 200, 10); zarr, root {root}",
    ]
    entries = cache.open(made / DUMP).manifest.model_dump()
    description = {key: entries[key] for key in ("field", "teacher", "dataset", "views", "batch")}
    description["teacher"]["name"] = "a\nb\x1b[31m" + "c" * 500
    names = [f"t{number}" for number in range(30)]
    plan = cut_store({name: ArrayPlan((2,), "float16") for name in names}, 1, 9, 9)
    writer.write_cache(
        tmp_path / "many", tmp_path / "work", plan, lambda _: {name: np.ones((9, 2), "f2") for name in names},
        store="zarr", description=description,
    )  # fmt: skip
    first, second = repr(cache.open(tmp_path / "many")).split("\n")
    assert "logits of a\\nb\\x1b[31mccc" in first
    assert second.startswith("  t0 float16 (1, 9, 2), t1 float16 (1, 9, 2), t10 float16 (1, 9, 2) and 27 more; zarr")
    assert max(map(len, (first, second))) < 400


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": np.zeros((1, 200, 1), "f4")}, "expected logits float32 (10,), found logits float32 (1,)"),
        ({"logits": np.zeros((1, 200, 10), "f2")}, "found logits float16 (10,)"),
        ({"other": np.zeros((1, 200, 10), "f4")}, "found other float32 (10,)"),
        ({"logits": np.full((1, 200, 10), np.nan, "f4")}, "array 'logits': expected finite numbers"),
    ],
)
def test_a_sealed_cache_whose_arrays_are_not_its_fields_is_refused(
    run: Run, capsys: Capture, copy_of: Path, arrays: dict[str, Any], message: str
) -> None:
    manifest = cache.open(copy_of / DUMP).manifest
    description = {
        key: value for key, value in manifest.model_dump().items()
        if key in ("field", "teacher", "dataset", "views", "batch")
    }  # fmt: skip
    plans = {name: ArrayPlan(values.shape[2:], cast("DType", values.dtype.name)) for name, values in arrays.items()}
    plan = cut_store(plans, 1, 200, 64)
    writer.write_cache(
        copy_of / DUMP, copy_of / "w", plan,
        lambda block: {name: values[0, block.start : block.stop] for name, values in arrays.items()},
        store="zarr", description=description,
    )  # fmt: skip
    assert message in refused(run, capsys, copy_of, "train-student", "kd")


def test_indices_that_are_no_classes_are_refused(made: Path) -> None:
    folder = made.parent / "indices"
    manifest = cache.open(made / DUMP).manifest
    entries = manifest.model_dump()
    description = {key: entries[key] for key in ("teacher", "dataset", "views", "batch")}
    description["field"] = {"name": "logits", "parameters": {"dtype": "float16", "top_k": 2, "temperature": 4.0}}
    rows = {
        "values": np.zeros((200, 2), "f2"),
        "indices": np.full((200, 2), 10, "i2"),
        "tail": np.zeros((200, 1), "f4"),
    }
    plans = {name: ArrayPlan(values.shape[1:], cast("DType", values.dtype.name)) for name, values in rows.items()}
    writer.write_cache(
        folder / "dump", folder / "work", cut_store(plans, 1, 200, 64),
        lambda block: {name: values[block.start : block.stop] for name, values in rows.items()},
        store="zarr", description=description,
    )  # fmt: skip
    opened = cache.open(folder / "dump")
    with pytest.raises(InputError, match=r"array 'indices': expected classes 0\.\.9"):
        CachedRows.from_cache(opened, torch.device("cpu"))


def test_a_linked_chunk_is_repaired(run: Run, capsys: Capture, copy_of: Path) -> None:
    before = files(copy_of / DUMP)
    chunk = copy_of / DUMP / "data.zarr/logits/c/0/0/0"
    chunk.rename(copy_of / "away")
    chunk.symlink_to(copy_of / "away")
    assert "repaired" in out(run, capsys, copy_of, "cache", "verify", DUMP, "--repair", "fixed")
    assert files(copy_of / "fixed") == before


def test_names_of_a_stranger_do_nothing_to_the_terminal(run: Run, capsys: Capture, copy_of: Path) -> None:
    (copy_of / DUMP / "a\nwhole: \x1b[31mred").write_text("")
    run(copy_of, "cache", "verify", DUMP)
    printed = capsys.readouterr()
    assert "damaged: a\\nwhole: \\x1b[31mred: expected" in printed.out
    assert "\x1b" not in printed.out + printed.err
    np.save(copy_of / "x.npy", np.zeros((200, 10)))
    create = ("cache", "create", "c", "--from", "x.npy", "--data", "data/prepared/digits")
    out(run, capsys, copy_of, *create, "--teacher", "\x1b]0;owned\x07big")
    assert "\\x1b]0;owned\\x07big" in (shown := out(run, capsys, copy_of, "cache", "inspect", "c"))
    assert "\x1b" not in shown


def test_temperatures_and_top_k_that_mean_nothing_are_refused(run: Run, capsys: Capture, copy_of: Path) -> None:
    np.save(copy_of / "x.npy", np.zeros((200, 10)))
    create = (
        "cache",
        "create",
        "c",
        *FOREIGN,
        "--top-k",
        "3",
    )
    for temperature in ("0", "-1", "nan"):
        assert "temperature: expected a number above 0" in refused(
            run, capsys, copy_of, *create, "--temperature", temperature
        )
    assert "top_k: expected below its 10 classes, found 10" in refused(
        run, capsys, copy_of, "fidelity", "kd", "--top-k", "10"
    )


def test_a_student_of_an_external_teacher_depends_on_what_names_it(study: dict[str, Any]) -> None:
    study["teachers"]["api"] = {"external": "ab" * 32}
    study["dumps"]["big-logits"]["of"] = "api"
    made = {stage.name: stage for stage in graph.compile_stages(parse_study(study))}
    assert {"teachers.api", "dumps.big-logits", "cache"} <= set(made["train-student-kd"].params)
    assert "teachers.api" not in made["train-student-baseline"].params
    study["views"] = {"policy": "flip", "count": 2}
    with pytest.raises(InputError, match=r"dumps\.big-logits\.of: expected a teacher that is run here"):
        parse_study(study)


def test_a_name_that_no_file_system_takes_is_refused(run: Run, capsys: Capture, made: Path) -> None:
    said = refused(run, capsys, made, "cache", "convert", "data/cache/big-logits", "x" * 300)
    assert "expected a folder that can be made, found File name too long; choose another" in said


@pytest.mark.parametrize("teacher", ["", "  "])
def test_a_foreign_teacher_has_a_name(run: Run, capsys: Capture, made: Path, tmp_path: Path, teacher: str) -> None:
    np.save(tmp_path / "o.npy", np.zeros((3, 10), np.float32))
    command = (
        "cache",
        "create",
        str(tmp_path / "new"),
        "--from",
        str(tmp_path / "o.npy"),
        "--data",
        "data/prepared/digits",
    )
    assert "--teacher: expected the teacher's name" in refused(run, capsys, made, *command, "--teacher", teacher)
