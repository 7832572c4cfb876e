"""Outputs from elsewhere: what their numbers are, and in which order their columns stand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.cache.rewrite import convert_cache
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.dumps.foreign.columns import match_columns
from pipeline.dumps.foreign.teacher import ForeignTeacher, read_outputs
from pipeline.dumps.hooks import list_derived_parameters
from pipeline.teacher import Samples
from tests.conftest import STUDY, Capture, Run, copied, refused, write_study
from tests.scenes import digits


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


def logits_of(dataset: Dataset, seed: int = 0) -> NDArray[np.float64]:
    """(rows, 10): a teacher that is nearly always right."""
    made = np.random.default_rng(seed).normal(size=(len(dataset), 10))
    made[np.arange(len(made)), dataset.labels] += 6
    return made


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    made: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return made


def centred(logits: NDArray[Any]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = logits - logits.mean(1, keepdims=True)
    return made


def read(folder: Path, dataset: Dataset, outputs: NDArray[Any], **options: Any) -> ForeignTeacher:
    np.save(folder / "x.npy", outputs)
    return read_outputs(folder / "x.npy", dataset, "api", None, **options)[0]


def refusal(folder: Path, dataset: Dataset, outputs: NDArray[Any], **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, dataset, outputs, **options)
    return str(caught.value).removeprefix(f"{folder}/")


def answered(teacher: ForeignTeacher, dataset: Dataset) -> NDArray[np.float32]:
    samples = Samples(dataset.images, len(dataset), 512)
    (answer,) = teacher.compute_outputs(samples, ["logits"], 0, 0, len(dataset))
    return answer.numpy("logits")


Change = Callable[[NDArray[np.float64]], NDArray[Any]]
PROBABLE: dict[str, Change] = {
    "float64": lambda p: p,
    "float32": lambda p: p.astype("f4"),
    "float16": lambda p: p.astype("f2"),
    "three decimals": lambda p: p.round(3),
    "two decimals": lambda p: p.round(2),
    "Fortran order": np.asfortranarray,
    "one-hot": lambda p: np.eye(10)[p.argmax(1)],
    "sharp": lambda p: softmax(np.log(p) * 20),
    "nearly uniform": lambda p: softmax(np.log(p) / 1000),
    "a tenth of it broken": lambda p: np.where(np.arange(len(p))[:, None] % 10, p, 0.0),
    "a negative zero": lambda p: np.where(p < 1e-3, -1e-9, p),
}


@pytest.mark.parametrize("name", PROBABLE)
def test_rows_that_look_like_probabilities_are_refused(tmp_path: Path, dataset: Dataset, name: str) -> None:
    outputs = PROBABLE[name](softmax(logits_of(dataset)))
    message = refusal(tmp_path, dataset, outputs)
    assert message.startswith("x.npy: expected logits, found rows that look like probabilities (")
    assert f" of {len(dataset):,}); say --values probabilities" in message
    assert ("--floor 1e-6" in message) == bool((outputs <= 0).any())
    taken = read(tmp_path, dataset, outputs, values="logits")  # told by name
    assert any("taken as logits, as --values says, though" in line for line in taken.warnings)
    assert np.array_equal(answered(taken, dataset), outputs.astype("f4"))


LOG_PROBABLE: dict[str, Change] = {
    "float64": np.log,
    "float16": lambda p: np.log(p).astype("f2"),
    "two decimals": lambda p: np.log(p).round(2),
    "with zeros": lambda p: np.where(p < 1e-3, -np.inf, np.log(np.maximum(p, 1e-30))),
}


@pytest.mark.parametrize("name", LOG_PROBABLE)
def test_rows_that_look_like_log_probabilities_are_refused(tmp_path: Path, dataset: Dataset, name: str) -> None:
    outputs = LOG_PROBABLE[name](softmax(logits_of(dataset)))
    message = refusal(tmp_path, dataset, outputs)
    assert "expected logits, found rows that look like log-probabilities (" in message
    assert "say --values log-probabilities" in message
    assert ("--floor 1e-6" in message) == bool(np.isinf(outputs).any())
    if name != "with zeros":
        taken = read(tmp_path, dataset, outputs, values="log-probabilities")
        assert taken.notes[0].startswith("log-probabilities: kept as they are")
        assert np.array_equal(answered(taken, dataset), outputs.astype("f4"))
        assert taken.card["outputs"] == {"given": "log-probabilities"}
        as_logits = read(tmp_path, dataset, outputs, values="logits")
        assert as_logits.card["outputs"] == {}
        assert np.array_equal(answered(as_logits, dataset), outputs.astype("f4"))


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z,
        lambda z: -np.abs(z),
        lambda z: z.astype("f2"),
        lambda z: np.maximum(z, 0),
        lambda z: np.where(np.arange(len(z))[:, None] == 3, softmax(z), z),  # one row sums to 1 by accident
        lambda z: np.where(np.arange(len(z))[:, None] % 3 == 0, softmax(z), z),
        lambda z: z * 1000,
        lambda z: z * 1e-6,
        np.zeros_like,
        np.ones_like,
        lambda z: 1 / (1 + np.exp(-z)),
    ],
)
def test_logits_are_taken_as_they_are(tmp_path: Path, dataset: Dataset, change: Change) -> None:
    outputs = change(logits_of(dataset))
    for values in (None, "logits"):
        teacher = read(tmp_path, dataset, outputs, values=values)
        assert np.array_equal(answered(teacher, dataset), outputs.astype("f4"))
        assert teacher.card["outputs"] == {}
        assert not any("as --values says" in line for line in teacher.warnings)
    all_within = (outputs >= 0).all() and (outputs <= 1).all()
    assert any("lie in [0, 1]" in line for line in teacher.warnings) == all_within  # sigmoids


def test_two_classes_and_a_thousand(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for classes in (2, 1000):
        count = 300
        images = np.zeros((count, 1, 2, 2), np.uint8)
        labels = generator.integers(0, classes, count)
        names = [f"{number:04d}" for number in range(classes)]
        made = Dataset(images, labels, (200, 200), tuple(names), np.arange(count), "d")
        logits = generator.normal(size=(count, classes)) * 3
        read(tmp_path, made, logits)
        read(tmp_path, made, -np.abs(logits))
        for outputs in (softmax(logits), softmax(logits).astype("f2"), np.log(softmax(logits)).astype("f2")):
            assert "rows that look like " in refusal(tmp_path, made, outputs)
        exact = answered(read(tmp_path, made, softmax(logits), values="probabilities"), made)
        assert np.allclose(centred(exact), centred(logits), atol=1e-5)


def test_probabilities_become_their_logarithms(tmp_path: Path, dataset: Dataset) -> None:
    logits = logits_of(dataset)
    teacher = read(tmp_path, dataset, softmax(logits), values="probabilities")
    made = answered(teacher, dataset)
    assert np.allclose(centred(made), centred(logits), atol=1e-5)  # the same logits, but for a constant a row
    for temperature in (1.0, 4.0):
        ours, true = (torch.softmax(torch.from_numpy(z / temperature), 1) for z in (made.astype("f8"), logits))
        assert torch.allclose(ours, true, atol=1e-6)
    assert teacher.card["outputs"] == {"given": "probabilities"}
    assert teacher.notes[0] == "probabilities: their logarithms are kept, which are logits up to a constant a row"


def test_a_floor_stands_for_what_has_no_logarithm(tmp_path: Path, dataset: Dataset) -> None:
    exact = softmax(logits_of(dataset) * 3)
    cut = np.where(exact < 1e-3, 0.0, exact)
    message = refusal(tmp_path, dataset, cut, values="probabilities")
    row, column = np.argwhere(cut <= 0)[0]
    assert (
        f"sample {row}, class '{column}': expected a probability above 0, which has a logarithm, found 0; " in message
    )
    assert message.endswith("say --floor 1e-6, and smaller ones count as that")
    with np.errstate(divide="ignore"):
        logs = np.log(cut)
    assert "found -inf, the logarithm of 0; say --floor 1e-6" in refusal(
        tmp_path, dataset, logs, values="log-probabilities"
    )
    for outputs, values in ((cut, "probabilities"), (logs, "log-probabilities")):
        teacher = read(tmp_path, dataset, outputs, values=values, floor=1e-4)
        made = answered(teacher, dataset)
        assert np.allclose(made, np.log(np.maximum(cut, 1e-4)), rtol=1e-6)
        below = int((cut < 1e-4).sum())
        assert f"floor: {below:,} of {cut.size:,} probabilities were below 0.0001 and count as that" in teacher.notes
        assert teacher.card["outputs"] == {"given": values, "floor": 1e-4}


@pytest.mark.parametrize(
    ("values", "floor", "message"),
    [
        (None, 1e-6, "--floor: expected --values probabilities or log-probabilities, found none"),
        ("logits", 1e-6, "--floor: expected --values probabilities or log-probabilities, found logits"),
        ("probabilities", 0.0, "--floor: expected a probability above 0 and below 1/10, that of chance, found 0"),
        ("probabilities", -1.0, "found -1; say 1e-6"),
        ("log-probabilities", 0.1, "found 0.1; say 1e-6"),
        ("probabilities", float("nan"), "found nan; say 1e-6"),
        ("probabilities", float("inf"), "found inf; say 1e-6"),
    ],
)
def test_floors_that_are_none_are_refused(
    tmp_path: Path, dataset: Dataset, values: Any, floor: float, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, dataset, softmax(logits_of(dataset)), values=values, floor=floor)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "change", "message"),
    [
        ("probabilities", lambda z: z, "sample 0: expected probabilities, which sum to 1, found numbers from -"),
        ("probabilities", lambda z: np.log(softmax(z)), "mend this row, or say --values log-probabilities"),
        ("probabilities", lambda z: softmax(z) * 100, "divide them by 100"),
        ("probabilities", lambda z: softmax(z) * 0.8, "found numbers from"),
        ("log-probabilities", softmax, "say --values probabilities, which most rows look like"),
        ("log-probabilities", lambda z: z, "whose exponentials sum to 1"),
        ("log-probabilities", lambda z: np.log(softmax(z)) - 1, "sum of exp 0.367879"),
        (None, lambda z: softmax(z) * 100, "look like percentages (1,797 of 1,797 sum to 100); divide them by 100"),
        (None, lambda z: np.where(z < -1, -np.inf, z), ": expected a finite logit, found -inf; put a finite number"),
        ("logits", lambda z: np.where(z < -1, -np.inf, z), ": expected a finite logit, found -inf; put a finite"),
    ],
)
def test_numbers_that_are_not_what_is_said_are_refused(
    tmp_path: Path, dataset: Dataset, values: Any, change: Change, message: str
) -> None:
    assert message in refusal(tmp_path, dataset, change(logits_of(dataset)), values=values)


@pytest.mark.parametrize("row", [[0.5, 0.6] + [0.0] * 8, [float("nan")] * 10, [-0.1, 1.1] + [0.0] * 8, [0.0] * 10])
def test_one_row_that_is_none_is_named(tmp_path: Path, dataset: Dataset, row: list[float]) -> None:
    outputs = softmax(logits_of(dataset))
    outputs[1234] = row
    message = refusal(tmp_path, dataset, outputs, values="probabilities", floor=1e-6)
    assert "sample 1234: expected probabilities, which sum to 1, found numbers from" in message


# Columns.


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("blank", ["", "{end}{end}", "  {end}"])
def test_columns_are_matched_by_name(tmp_path: Path, ending: str, mark: str, blank: str) -> None:
    names = ["dog", "blue jay", "kätzchen", "ka\u0308tzchen hoch", "10", "a\u2028b", "tab\tin"]
    classes = sorted(names)
    text = mark + ending.join(names) + ending + blank.format(end=ending) * 2
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert [names[column] for column in match_columns(tmp_path / "names.txt", classes)] == classes
    composed = text.replace("a\u0308", "ä").replace("dog", " dog\t")  # as another system writes accents
    (tmp_path / "names.txt").write_bytes(composed.encode())
    assert [names[column] for column in match_columns(tmp_path / "names.txt", classes)] == classes


def test_classes_that_differ_in_little_are_told_apart(tmp_path: Path) -> None:
    classes = ["a", " a", "\u00e4", "a\u0308"]
    (tmp_path / "names.txt").write_text("a\u0308\n a\n\u00e4\na\n")
    assert match_columns(tmp_path / "names.txt", classes) == [3, 1, 2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\ndog\n", "found none of 'owl'"),
        ("cat\ndog\nowl\ndog\n\ncat\n", "found twice: 'cat' (lines 1, 6), 'dog' (lines 2, 4)"),
        ("cat\ndog\nowel\n", "found none of 'owl'; no class: 'owel' (line 3: 'owl'?)"),
        ("\n\ncat\ndog\nowl\nxyz\n", "found no class: 'xyz' (line 6)"),
        ("cat,dog,owl", "found none of 'cat', 'dog', 'owl'; no class: 'cat,dog,owl' (line 1"),
        ("", "expected each of the data set's 3 classes once, one a line, found none of 'cat', 'dog', 'owl'"),
        ("CAT\ndog\nowl", "found none of 'cat'; no class: 'CAT' (line 1)"),
        (b"caf\xe9\ndog\nowl", "expected text in UTF-8, found other bytes; save it as UTF-8"),
        ("\ufeffcat".encode("utf-16"), "expected text in UTF-8"),
        ("\n".join(f"x{n}" for n in range(9)), "'x4' (line 5) and 4 more"),
    ],
)
def test_names_that_are_not_the_classes_are_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        match_columns(tmp_path / "names.txt", ["cat", "dog", "owl"])
    assert message in str(caught.value)


def test_a_file_of_names_that_is_none_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, found in (
        (tmp_path / "nowhere.txt", "No such file"), (tmp_path, "a folder"), (tmp_path / "pipe", "a pipe"),
        (Path("/dev/zero"), "a pipe, a socket or a device"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"expected a text file, one class a line, found {found}"):
            match_columns(path, ["a"])


def cut_archive(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), a=np.zeros((9, 10)))
    path.write_bytes(path.with_suffix(".npz").read_bytes()[:300])


def negative_shape(path: Path) -> None:
    np.save(path, np.zeros((9, 10), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(9, 10)", b"(-9, 1)"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy leaves a cut archive open
@pytest.mark.parametrize("make", [cut_archive, negative_shape, os.mkfifo, os.mkdir])
def test_a_file_of_outputs_that_is_none_is_refused(
    tmp_path: Path, dataset: Dataset, make: Callable[[Path], Any]
) -> None:
    make(tmp_path / "outputs.npy")
    with pytest.raises(InputError, match=r"expected a \.npy file of numbers, found "):
        read_outputs(tmp_path / "outputs.npy", dataset, "api", None)


@pytest.mark.parametrize("values", ["logits", "probabilities"])
def test_columns_in_another_order_are_put_in_ours(tmp_path: Path, dataset: Dataset, values: Any) -> None:
    logits = logits_of(dataset)
    outputs = softmax(logits) if values == "probabilities" else logits
    given = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]  # the class of each column
    (tmp_path / "names.txt").write_text("\n".join(map(str, given)))
    straight = read(tmp_path, dataset, outputs, values=values)
    expected = answered(straight, dataset)
    matched = read(tmp_path, dataset, outputs[:, given], values=values, classes=tmp_path / "names.txt")
    assert np.array_equal(answered(matched, dataset), expected)
    for key in ("test_accuracy", "test_accuracy_per_class"):
        assert matched.card[key] == straight.card[key]
    assert (matched.notes, matched.warnings) == (straight.notes, straight.warnings)
    assert straight.card["test_accuracy"] > 0.9


# How right they are.


ROWS = "are the rows in the order of images.npy?"
COLUMNS = "are the columns in the order of the classes ('0', '1', '2', '3', ...)? give theirs with --classes names.txt"


def test_the_accuracy_of_each_part_is_told(tmp_path: Path, dataset: Dataset) -> None:
    logits = logits_of(dataset)
    right = logits.argmax(1) == dataset.labels
    first, second = dataset.bounds
    shares = [(right[:first], "train"), (right[first:second], "validation"), (right[second:], "test")]
    expected = ", ".join(f"{100 * part.mean():.2f} % of {len(part):,} {name} rows" for part, name in shares)
    assert read(tmp_path, dataset, logits).notes == (f"the argmax is right for {expected}",)
    assert read(tmp_path, dataset, logits[:first]).notes == (
        f"the argmax is right for {100 * right[:first].mean():.2f} % of {first:,} train rows",
    )


def test_near_chance_is_told_loudly(tmp_path: Path, dataset: Dataset) -> None:
    generator = np.random.default_rng(1)
    logits = logits_of(dataset)
    folders = sorted(range(10), key=lambda number: str(number * 7 % 10 + 5))  # 10 to 14 come first, as folders sort
    for outputs, hint in (
        (generator.normal(size=logits.shape), False),
        (np.zeros_like(logits), False),
        (logits[generator.permutation(len(logits))], False),
        (logits[np.argsort(dataset.labels, kind="stable")], False),  # as a loader of folders gives them
        (logits[::-1].copy(), False),
        (np.roll(logits, 1, axis=0), False),
        (logits[:, folders], True),
        (logits[:, np.roll(np.arange(10), 1)], True),
    ):
        *_, line = read(tmp_path, dataset, outputs).warnings
        assert line.startswith("the argmax is right for ")
        assert "near chance (10.18 %)" in line
        assert ("with its columns in another order" in line) == hint
        assert line.endswith(f": {COLUMNS if hint else ROWS}")
    (tmp_path / "names.txt").write_text("\n".join(map(str, range(10))))
    for outputs, advice in (
        (logits[:, ::-1].copy(), "are the names in the order of the columns?"),
        (logits[::-1].copy(), ROWS),
    ):
        (line,) = read(tmp_path, dataset, outputs, classes=tmp_path / "names.txt").warnings
        assert line.endswith(f": {advice}")


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("each", [6, 24])
def test_rows_that_are_too_few_to_tell_from_columns(tmp_path: Path, classes: int, each: int) -> None:
    labels = np.tile(np.arange(classes), each)
    names = tuple(f"{number:02d}" for number in range(classes))
    images = np.zeros((len(labels), 1, 2, 2), np.uint8)
    made = Dataset(images, labels, (len(labels), len(labels)), names, np.arange(len(labels)), "d")
    columns = COLUMNS.replace("'0', '1', '2', '3', ...", ", ".join(map(repr, names[:4])) + ", ..." * (classes > 4))
    for outputs, advice in (
        (np.eye(classes)[np.sort(labels)] * 3, ROWS),
        (np.eye(classes)[(labels + 1) % classes] * 3, columns),
    ):
        (line,) = read(tmp_path, made, outputs).warnings
        assert ": ".join(line.split(": ")[1:]) == (advice if each == 24 else f"{ROWS} {columns}")


def test_a_few_columns_in_another_order_are_seen(tmp_path: Path, dataset: Dataset) -> None:
    logits = logits_of(dataset)
    exchanged = logits[:, [2, 0, 1, 4, 3, 5, 6, 7, 8, 9]]
    (line,) = read(tmp_path, dataset, exchanged).warnings
    permuted = 100 * (logits.argmax(1) == dataset.labels).mean()
    assert f", though for {permuted:.2f} % with its columns in another order: {COLUMNS}" in line
    assert "near chance" not in line
    unsure = logits * 0.5 + np.random.default_rng(3).normal(size=logits.shape)
    assert read(tmp_path, dataset, unsure).warnings == ()


# The command, and the cache that it makes.


@pytest.fixture
def place(run: Run, tmp_path: Path) -> Path:
    """A study with nothing but prepared data."""
    folder = write_study(tmp_path / "study", copied(STUDY))
    assert run(folder, "prepare", "digits") == 0
    return folder


CREATE = (
    "cache",
    "create",
    "data/cache/api-logits",
    "--from",
    "x.npy",
    "--teacher",
    "api",
    "--data",
    "data/prepared/digits",
)


def outputs_for(place: Path) -> NDArray[np.float64]:
    labels = np.load(place / "data/prepared/digits/labels.npy")
    made = np.random.default_rng(0).normal(size=(len(labels), 10))
    made[np.arange(len(made)), labels] += 6
    return made * 2


def test_a_study_is_taught_by_probabilities(run: Run, capsys: Capture, place: Path) -> None:
    logits = outputs_for(place)
    given = list(range(10))[::-1]
    (place / "names.txt").write_text("\r\n".join(map(str, given)) + "\r\n")
    probabilities = softmax(logits)
    np.save(place / "x.npy", np.where(probabilities < 1e-6, 0.0, probabilities)[:, given].astype("f4"))
    message = refused(run, capsys, place, *CREATE)
    assert "x.npy: expected logits, found rows that look like probabilities" in message
    assert not (place / "data/cache").exists()
    capsys.readouterr()
    options = ("--values", "probabilities", "--floor", "1e-6", "--classes", "names.txt", "--dtype", "float32")
    assert run(place, *CREATE, *options, "--teacher-sha256", "ab" * 32) == 0
    printed = capsys.readouterr()
    assert "probabilities: their logarithms are kept" in printed.out
    assert "were below 1e-06 and count as that" in printed.out
    assert "the argmax is right for 100.00 % of 200 train rows, 100.00 % of 100 validation rows" in printed.out
    assert printed.err == ""
    made = cache.open(place / "data/cache/api-logits")
    assert made.manifest.field.parameters == {
        "dtype": "float32", "top_k": None, "temperature": None, "given": "probabilities", "floor": 1e-6,
    }  # fmt: skip
    card = (place / "data/cache/api-logits/card.md").read_text()
    assert "- numbers: logarithms of probabilities (given as probabilities), none below that of 1e-06\n" in card
    assert np.allclose(made.load()[0], np.log(np.maximum(probabilities, 1e-6)), atol=1e-3)
    study = copied(STUDY)
    study["teachers"] = {"api": {"external": "ab" * 32}}
    study["dumps"] = {"api-logits": {"field": "logits", "of": "api", "samples": "all", "batch": 512}}
    write_study(place, study)
    assert run(place, "train-student", "kd") == 0  # what the numbers were is no option of the study's
    convert_cache(made, place / "half", place / "work", store="hdf5", dtype="float16")
    assert cache.open(place / "half").manifest.field.parameters["given"] == "probabilities"
    capsys.readouterr()
    assert run(place, "cache", "inspect", "data/cache/api-logits") == 0
    assert "dtype float32, floor 1e-06, given probabilities)" in capsys.readouterr().out


def test_logits_are_sealed_in_the_bytes_that_they_always_were(run: Run, capsys: Capture, place: Path) -> None:
    np.save(place / "x.npy", outputs_for(place))
    assert run(place, *CREATE) == 0
    made = cache.open(place / "data/cache/api-logits").manifest
    assert set(made.field.parameters) == {"dtype", "top_k", "temperature"}
    assert "- numbers" not in (place / "data/cache/api-logits/card.md").read_text()
    assert list_derived_parameters("logits") == ("given", "floor")


def test_warnings_are_loud(run: Run, capsys: Capture, place: Path) -> None:
    np.save(place / "x.npy", outputs_for(place)[::-1])
    assert run(place, *CREATE) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: the argmax is right for ")
    assert printed.err.endswith(f": {ROWS}\n")
    assert printed.err.count("\n") == 1
    assert "warning: " not in printed.out
    assert "\nthe argmax is right for " in printed.out


def test_the_top_k_of_probabilities(tmp_path: Path, dataset: Dataset) -> None:
    logits = logits_of(dataset)
    options = {"top_k": 3, "temperature": 4.0, "dtype": "float32"}
    made = {}
    for values, outputs in (("probabilities", softmax(logits)), ("logits", logits)):
        teacher = read(tmp_path, dataset, outputs, values=values)
        each = DumpRequest(tmp_path / values, tmp_path / f".{values}", "logits", options, "zarr")
        dump_fields(teacher, dataset, [each], samples="all")
        made[values] = cache.open(each.target)
    assert np.array_equal(made["probabilities"].load("indices"), made["logits"].load("indices"))
    ours, true = (np.concatenate([it.load("values") / 4, it.load("tail")], 2) for it in made.values())
    assert np.allclose(centred(ours[0]), centred(true[0]), atol=1e-5)


def test_a_stopped_seal_of_other_columns_is_not_taken_up(
    run: Run, capsys: Capture, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cache import writer
    from tests.store_plans import shrink_blocks

    shrink_blocks(monkeypatch, 1000)  # many blocks
    logits = outputs_for(place)[:200]  # training rows alone: no measured accuracy tells them apart
    np.save(place / "x.npy", logits)
    (place / "names.txt").write_text("\n".join(map(str, range(9, -1, -1))))

    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "seal_store", stopped)
        assert run(place, *CREATE, "--dtype", "float32") != 0
    assert list((place / "data/cache/.api-logits.work").rglob("*.raw"))
    assert run(place, *CREATE, "--dtype", "float32", "--classes", "names.txt") == 0
    assert np.array_equal(cache.open(place / "data/cache/api-logits").load()[0], logits[:, ::-1].astype("f4"))


def test_whole_numbers_are_told_how_to_become_floats(run: Run, capsys: Capture, place: Path) -> None:
    np.save(place / "x.npy", (outputs_for(place) * 100).astype(int))
    assert "found int64 (660, 10); save them as floats: outputs.astype('float32')" in refused(
        run, capsys, place, *CREATE
    )
    for outputs in (np.zeros((0, 10)), np.zeros((660, 0)), np.zeros(()), np.zeros((660, 10, 1))):
        np.save(place / "x.npy", outputs)
        assert f"found float64 {outputs.shape}; save one row of floats" in refused(run, capsys, place, *CREATE)
    assert not (place / "data/cache").exists()


def test_the_order_is_documented_where_the_command_is(run: Run, capsys: Capture, place: Path) -> None:
    capsys.readouterr()
    assert run(place, "cache", "create", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("column c of class c of its dataset.json", "sorted as text (1, 10, 11, 2)", "--values", "--floor"):
        assert words in shown
    assert "classes" in json.loads((place / "data/prepared/digits/dataset.json").read_bytes())
