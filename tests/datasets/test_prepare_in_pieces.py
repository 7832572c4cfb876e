"""Preparing in pieces: only what is kept is decoded, in order, in little memory; and what is remembered of the result."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.base import checked_copies
from pipeline.base.errors import InputError
from pipeline.base.files import explain_os_error
from pipeline.base.threads import map_ahead
from pipeline.datasets import dataset as datasets
from pipeline.datasets import image_files, raw
from pipeline.datasets.class_folders import find_classes
from pipeline.datasets.dataset import SPLITS, Dataset, ImagesFile, compute_fingerprint, load_dataset, save_dataset
from pipeline.datasets.duplicates import first_occurrences, hash_images
from pipeline.datasets.image_files import Decoder
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.datasets.split import Amount, First, Folds, split_rows
from pipeline.study.params_file import parse_study
from tests.conftest import ROOT, Run, warm_python, write_study
from tests.data_files import assert_holds, picture_raw, png, refused, some, tree, write_idx, write_tree, write_zip

RAW = picture_raw()  # 12 + 11 images (3, 6, 5) of the classes c00, c01, c02
FILES = tree(RAW)
PIXELS = np.concatenate([RAW.train_images, RAW.test_images])
LABELS = np.concatenate([RAW.train_labels, RAW.test_labels])


def read(root: Path, **how: Any) -> Dataset:
    return prepare_dataset("mine", "imagefolder", Place("mine", str(root)), **how)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, by name."""
    seen: list[str] = []
    whole = Decoder.read

    def noted(self: Decoder, file: Any, make: Any) -> Any:
        seen.append(file.where)
        return whole(self, file, make)

    monkeypatch.setattr(Decoder, "read", noted)
    return seen


# ------------------------------------------------------------------ what is kept


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"train": 3, "validation": 3},
        {"train": 0.5, "test": 3},
        {"test": First(4)},
        {"test": 0.5, "folds": Folds(3, 1)},
        {"validation": 0.3, "duplicates": "refuse"},
    ],
    ids=str,
)
@pytest.mark.parametrize("zipped", [False, True])
def test_only_what_is_kept_is_decoded(tmp_path: Path, decoded: list[str], how: dict[str, Any], zipped: bool) -> None:
    write_zip(tmp_path / "a.zip", FILES) if zipped else write_tree(tmp_path, FILES)
    made = read(tmp_path, **how)
    split = {key: value for key, value in how.items() if key != "duplicates"}
    rows = np.concatenate(split_rows(RAW.train_labels, RAW.test_labels, **split))
    assert made.origin.tolist() == rows.tolist()
    np.testing.assert_array_equal(made.images, PIXELS[rows])
    np.testing.assert_array_equal(made.labels, LABELS[rows])
    assert len(set(decoded)) == len(made)
    assert len(decoded) == len(made) + 1  # the first tells the size of all


def test_a_damaged_image_that_is_not_kept_is_no_matter(tmp_path: Path) -> None:
    names = sorted(name for name in FILES if name.startswith("test/"))
    write_tree(tmp_path, {**FILES, names[-1]: b"no image"})
    with refused(f"{names[-1]}: expected an image"):
        read(tmp_path)
    assert len(read(tmp_path, test=First(4))) == len(RAW.train_labels) + 4


def test_copies_that_are_dropped_are_found_among_all(tmp_path: Path, decoded: list[str]) -> None:
    write_tree(tmp_path, {**FILES, "train/c00/again.png": FILES["train/c00/000.png"]})
    made = read(tmp_path, duplicates="drop", test=3)
    assert made.duplicates == {"dropped": 1}
    assert len(made) == 12 + 3
    assert len(decoded) == 1 + 24 + 1 + 15


# ------------------------------------------------------------------ part of the test images


POOL, TEST = np.arange(100) % 4, np.arange(40) % 4


@pytest.mark.parametrize(("amount", "count"), [(First(7), 7), (8, 8), (0.25, 10), (40, 40), (First(40), 40)])
def test_some_of_the_test_images_are_taken(amount: Amount, count: int) -> None:
    train, validation, test = split_rows(POOL, TEST, test=amount, validation=10)
    whole = split_rows(POOL, TEST, validation=10)
    assert (train.tolist(), validation.tolist()) == (whole[0].tolist(), whole[1].tolist())
    assert len(test) == count
    assert set(test) <= set(whole[2])
    assert test.tolist() == sorted(test)
    if isinstance(amount, First):
        assert test.tolist() == list(range(100, 100 + count))
    else:
        assert set(np.bincount(TEST[test - 100])) <= {count // 4, -(-count // 4)}


def test_the_seed_draws_the_test_images() -> None:
    drawn = [split_rows(POOL, TEST, test=8, seed=seed)[2].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert split_rows(POOL, TEST, test=40, seed=1)[2].tolist() == list(range(100, 140))


@pytest.mark.parametrize(
    ("amount", "found"), [(41, "41"), (First(41), "41"), (0.001, "0")], ids=["number", "first", "share"]
)
def test_more_or_fewer_test_images_than_can_be_are_refused(amount: Amount, found: str) -> None:
    with refused(f"test: expected 1 to 40 images, found {found}; ask for another amount"):
        split_rows(POOL, TEST, test=amount)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "all", {"first": 0}, {"last": 3}])
def test_other_amounts_are_refused(value: Any) -> None:
    with refused("datasets.default.test"):
        parse_study({"dataset": {"source": "digits", "test": value}})


@pytest.mark.parametrize("value", [{"first": 20}, 20, 0.5])
def test_the_amount_reaches_every_source(run: Run, tmp_path: Path, value: Any) -> None:
    write_idx(tmp_path / "mnist", some((1, 4, 4), train=30, test=40))
    section = {"source": "mnist", "root": "mnist", "test": value}
    write_study(tmp_path, {"datasets": {"digits": section}})
    assert run(tmp_path, "prepare", "digits") == 0
    made = load_dataset(tmp_path / "data/prepared/digits")
    counts = [len(made.labels[made.rows(split)]) for split in SPLITS]
    assert counts == [30, 0, 20]


# ------------------------------------------------------------------ threads, order, pieces


def test_pieces_and_threads_are_no_part_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "photos", FILES)
    whole = Decoder.read
    names = sorted(FILES, reverse=True)

    def slow_first(self: Decoder, file: Any, make: Any) -> Any:
        time.sleep(0.001 * names.index(file.path.as_posix()))  # the first takes longest
        return whole(self, file, make)

    monkeypatch.setattr(Decoder, "read", slow_first)
    monkeypatch.setattr(raw, "MOST_PIECE", 2)
    out = tmp_path / "out"
    out.mkdir()
    made = read(tmp_path / "photos", folder=out)
    assert_holds(made, RAW)
    assert made.fingerprint == compute_fingerprint(PIXELS, made.labels, made.bounds, 3)


def test_threads_are_only_a_few_pieces_ahead() -> None:
    begun: list[int] = []

    def begin(item: int) -> int:
        begun.append(item)
        return item

    with ThreadPoolExecutor(image_files.DECODERS) as threads:
        for number in map_ahead(threads, begin, range(100), image_files.AHEAD):
            assert len(begun) <= number + image_files.AHEAD
    assert sorted(begun) == list(range(100))


@pytest.mark.skipif(image_files.DECODERS < 2, reason="one processor has one thread")
def test_images_are_decoded_in_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "MOST_PIECE", 1)
    meet, whole = threading.Barrier(2), Decoder.read

    def together(self: Decoder, file: Any, make: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and file.path.name in ("000.png", "001.png"):
            meet.wait(20)  # for the other one
        return whole(self, file, make)

    monkeypatch.setattr(Decoder, "read", together)
    assert_holds(read(write_tree(tmp_path, FILES)), RAW)


def test_garbage_is_not_looked_for_while_files_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled: list[bool] = []

    def noted(*given: Any) -> Any:
        enabled.append(gc.isenabled())
        return find_classes(*given)

    monkeypatch.setattr("pipeline.datasets.imagefolder.find_classes", noted)
    read(write_tree(tmp_path / "whole", FILES))
    assert (enabled, gc.isenabled()) == ([False], True)
    with refused("train"):
        read(write_tree(tmp_path / "other", {"nothing.txt": b""}))
    assert gc.isenabled()


def test_the_first_damaged_image_in_order_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "MOST_PIECE", 1)
    names = sorted(FILES)
    files = {**FILES, **dict.fromkeys(names[-3:], b"no image")}  # of the training images
    for _ in range(5):
        with refused(f"{names[-3]}: expected an image"):
            read(write_tree(tmp_path, files))


def test_threads_and_zips_are_closed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    before = threading.active_count()
    read(path)
    with refused("train"):
        read(path, train=100)
    assert threading.active_count() == before
    assert str(path) not in [each.path for each in psutil.Process().open_files()]


@pytest.mark.parametrize("seed", range(5))
def test_first_occurrences_are_those_of_a_slow_search(seed: int) -> None:
    generator = np.random.default_rng(seed)
    images, order = generator.integers(0, 2, (60, 1, 2, 2), np.uint8), generator.permutation(60)
    seen: dict[bytes, int] = {}
    slow = {int(row): seen.setdefault(images[row].tobytes(), int(row)) for row in order}
    assert first_occurrences(hash_images(images), order).tolist() == [slow[row] for row in range(60)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_of_any_channels_are_read_as_they_are(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "MOST_PIECE", 4)
    images = some((channels, 4, 5))
    rows = np.array([3, 14, 0, 22, 11, 12, 5])
    shape = images.find_shape(3)
    whole = np.concatenate([images.train_images, images.test_images])
    pieces = list(images.read(rows, shape))
    assert [len(piece) for piece in pieces] == [4, 3]
    assert shape == pieces[0].shape[1:]
    np.testing.assert_array_equal(np.concatenate(pieces), whole[rows])


def test_the_bar_tells_images_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[float, str]] = []
    closed: list[str] = []

    @contextmanager
    def bar(description: str, total: float) -> Iterator[Any]:
        assert (description, total) == ("images", 23)
        yield lambda done, note: said.append((done, note))
        closed.append(description)

    monkeypatch.setattr("pipeline.datasets.prepare.progress_bar", bar)
    monkeypatch.setattr(raw, "MOST_PIECE", 10)
    read(write_tree(tmp_path, FILES))
    assert [done for done, _ in said] == [10, 20, 23]
    assert all(note.endswith(" images/s") for _, note in said)
    assert closed == ["images"]


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("source", ["imagefolder", "mnist"])
def test_the_file_has_the_bytes_of_a_saved_array(tmp_path: Path, source: str) -> None:
    images = some((1, 6, 5), train=12, test=11, classes=3)
    if source == "mnist":
        write_idx(tmp_path / "data", images)
    else:
        write_tree(tmp_path / "data", FILES)
    place = Place("mine", str(tmp_path / "data"))
    (tmp_path / "made").mkdir()
    made = prepare_dataset("mine", source, place, validation=3, folder=tmp_path / "made")
    held = prepare_dataset("mine", source, place, validation=3)
    assert isinstance(made.images, ImagesFile)
    assert made.fingerprint == held.fingerprint
    save_dataset(made, tmp_path / "made")
    save_dataset(held, tmp_path / "held")
    for name in datasets.FILES:
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "held" / name).read_bytes()
    assert load_dataset(tmp_path / "made").fingerprint == held.fingerprint


def test_images_that_exceed_the_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2069)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with refused(
        "23 images of 5x6 pixels and 3 channels: expected at most the 2,069 bytes of free disk space, found 2,070"
    ):
        read(write_tree(tmp_path / "photos", FILES), folder=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is Linux's /dev/full")
def test_a_disk_that_fills_up_is_said(tmp_path: Path) -> None:
    (tmp_path / "images.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        read(write_tree(tmp_path / "photos", FILES), folder=tmp_path)
    assert "make room for about 2,070 bytes there" in str(explain_os_error(caught.value))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_prepare_leaves_nothing_that_is_taken_for_whole(
    run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    raw_images = some((3, 40, 40), train=400, test=200, classes=2)
    write_zip(tmp_path / "a.zip", tree(raw_images))
    write_study(tmp_path, {"datasets": {"photos": {"source": "imagefolder", "root": "a.zip"}}})
    code = (
        "import signal, time; from pipeline.datasets.image_files import Decoder; whole = Decoder.read\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what started the tests may ignore it
        "def slow(*args): time.sleep(0.01); return whole(*args)\n"
        "Decoder.read = slow; from stages.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "prepare", "photos"], cwd=tmp_path, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    work = tmp_path / "data/prepared"
    while not [path for path in tmp_path.rglob("images.npy") if path.stat().st_size > 1000]:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait(60) != 0
    assert not (work / "photos").exists()
    with refused("run `teachercache prepare photos`"):
        load_dataset(work / "photos")
    assert run(tmp_path, "prepare", "photos") == 0
    assert len(load_dataset(work / "photos")) == 600


# ------------------------------------------------------------------ memory

PICTURES, SIDE, ALLOWED = 1500, 256, 80 << 20  # 295 MB of pixels


def peak() -> int:
    """The most memory that this process has held since the count was reset, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def measure_memory(folder: Path, duplicates: Any) -> dict[str, int]:
    """Prepare images that take far more memory than is allowed."""
    generator = np.random.default_rng(0)
    data = [png(np.full((3, SIDE, SIDE), colour, np.uint8)) for colour in generator.permutation(200)]
    write_zip(
        folder / "a.zip",
        {f"{part}/c{n % 2}/{n}.png": data[n % 200] for n in range(PICTURES) for part in ("train",)}
        | {f"test/c{n}/1.png": data[n] for n in (0, 1)},
    )
    read(write_tree(folder / "photos", FILES), duplicates=duplicates)  # imports all that is needed
    (folder / "out").mkdir()
    Path("/proc/self/clear_refs").write_text("5")
    base = peak()
    made = read(folder / "a.zip", duplicates=duplicates, folder=folder / "out")
    save_dataset(made, folder / "out")
    grown = peak() - base
    written = (folder / "out/images.npy").stat().st_size
    load_dataset(folder / "out", resident=False)
    loaded = peak() - base
    held = np.ones(ALLOWED + (50 << 20), np.uint8)
    assert held[-1]
    return {"grown": grown, "loaded": loaded, "written": written, "seen of a large array": peak() - base}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_images_are_prepared_in_little_memory(tmp_path: Path) -> None:
    done = warm_python(ROOT, "-m", "tests.datasets.test_prepare_in_pieces", str(tmp_path), "keep")
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, int] = json.loads(done.stdout)
    assert seen["written"] > 290_000_000
    assert seen["seen of a large array"] > ALLOWED  # so the measure would tell
    assert seen["grown"] < ALLOWED
    assert seen["loaded"] < ALLOWED


# ------------------------------------------------------------------ what is remembered


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The counts of images that are hashed for a fingerprint."""
    seen: list[int] = []
    whole = datasets.compute_fingerprint

    def noted(images: Any, *rest: Any) -> str:
        seen.append(len(images))
        return whole(images, *rest)

    monkeypatch.setattr(datasets, "compute_fingerprint", noted)
    return seen


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_dataset(read(write_tree(tmp_path / "photos", FILES)), tmp_path / "mine")
    time.sleep(0.03)  # beyond the tick of the file system's clock
    return tmp_path / "mine"


@pytest.mark.parametrize("resident", [True, False])
def test_a_copy_is_hashed_once(saved: Path, hashed: list[int], resident: bool) -> None:
    first = load_dataset(saved, resident=resident)
    again = [load_dataset(saved, resident=kept) for kept in (True, False, True)]
    assert hashed == [23]
    assert {each.fingerprint for each in again} == {first.fingerprint}


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    with path.open("r+b") as file:
        file.write(data)


def keep_time(path: Path, change: Callable[[Path], None]) -> None:
    found = path.stat()
    change(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replaced(path: Path) -> None:
    """Another file of the same size in its place, with the same time."""
    other = path.with_suffix(".other")
    shutil.copy2(path, other)
    keep_time(other, flip)
    other.replace(path)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "origin.npy"])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    "change",
    [flip, lambda path: keep_time(path, flip), replaced, lambda path: path.write_bytes(path.read_bytes()[:-1])],
    ids=["content", "content, same time", "another file, same time", "size"],
)
def test_a_changed_file_is_found_whatever_is_remembered(
    saved: Path, change: Callable[[Path], None], file: str, resident: bool
) -> None:
    load_dataset(saved)
    change(saved / file)
    with pytest.raises(InputError, match="expected"):
        load_dataset(saved, resident=resident)
    with pytest.raises(InputError, match="expected"):  # it is not remembered as whole
        load_dataset(saved, resident=resident)


def test_a_touched_or_copied_or_edited_one_is_hashed_again(saved: Path, hashed: list[int], tmp_path: Path) -> None:
    load_dataset(saved)
    os.utime(saved / "images.npy")
    load_dataset(saved)
    shutil.copytree(saved, tmp_path / "other")
    load_dataset(tmp_path / "other")
    assert hashed == [23] * 3
    card = saved / "dataset.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "fingerprint": "0" * 64}))
    with refused("expected fingerprint 000"):
        load_dataset(saved)


def test_where_nothing_can_be_noted_each_load_hashes(
    saved: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_copies, "find_user_folder", lambda _: None)
    for _ in range(2):
        load_dataset(saved)
    assert hashed == [23, 23]


if __name__ == "__main__":
    print(json.dumps(measure_memory(Path(sys.argv[1]), sys.argv[2])))
