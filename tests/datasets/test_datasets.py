from __future__ import annotations

import errno
import gzip
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as torchvision_datasets

from pipeline.base.errors import InputError
from pipeline.base.files import explain_os_error
from pipeline.datasets import SOURCES
from pipeline.datasets.dataset import SPLITS, Dataset, load_dataset, save_dataset
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place, RawDataset
from pipeline.datasets.split import Amount, First, Folds, assign_folds, class_quotas, split_rows
from pipeline.study.params_file import parse_study
from tests.data_files import (
    assert_holds,
    idx,
    picture_raw,
    png,
    real,
    refused,
    some,
    tree,
    write_cifar,
    write_idx,
    write_svhn,
    write_tree,
    write_zip,
)

FAMILY = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "notmnist": None}


def read(source: str, root: Path, **how: Any) -> Dataset:
    return prepare_dataset("mine", source, Place(source, str(root)), **how)


def test_digits_are_the_same_everywhere() -> None:
    digits = prepare_dataset("digits", "digits", Place("digits"))
    assert (digits.shape, digits.bounds, len(digits)) == ((1, 8, 8), (1437, 1437), 1797)
    assert digits.images.dtype == np.uint8
    by_class = {part: np.bincount(digits.labels[digits.rows(part)]).tolist() for part in ("train", "test")}
    assert by_class["train"] == [143, 146, 142, 146, 144, 145, 144, 143, 141, 143]
    assert by_class["test"] == [35, 36, 35, 37, 37, 37, 37, 36, 33, 37]
    assert np.unique(digits.images[:]).tolist() == [round(level * 255 / 16) for level in range(17)]
    assert digits.fingerprint == "77e61bf123cddac9342dcabd7d0646c28741b7c1fd5fa10f3af5dc7cebada138"


# ------------------------------------------------------------------ the MNIST family


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    ("source", "below"),
    [(source, below) for source, name in FAMILY.items() for below in ("", name and f"{name}/raw") if below is not None],
)
def test_mnist_family(tmp_path: Path, source: str, below: str, gzipped: bool) -> None:
    raw = some((1, 6, 5))
    write_idx(tmp_path / below, raw, gzipped=gzipped)
    dataset = read(source, tmp_path)
    assert_holds(dataset, raw)
    assert len(set(dataset.classes)) == 10


@pytest.mark.parametrize(
    ("root", "shared", "local", "found"),
    [
        ("root", "shared", "local", "root"),
        (None, "shared", "local", "shared"),
        (None, "empty", "local", "local"),
        (None, None, "local", "local"),
    ],
)
def test_where_files_are_looked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    root: str | None,
    shared: str | None,
    local: str,
    found: str,
) -> None:
    raws = {name: some((1, 4, 4), seed=seed) for seed, name in enumerate(("root", "shared", "local"))}
    write_idx(tmp_path / "root", raws["root"])
    write_idx(tmp_path / "shared/letters", raws["shared"])
    write_idx(tmp_path / "local/data/raw/letters", raws["local"])
    (tmp_path / "empty/letters").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / local)
    monkeypatch.delenv("TEACHERCACHE_DATA", raising=False)
    if shared:
        monkeypatch.setenv("TEACHERCACHE_DATA", str(tmp_path / shared))
    place = Place("letters", str(tmp_path / root) if root else None)
    assert_holds(prepare_dataset("letters", "notmnist", place), raws[found])


def test_a_root_that_is_not_there_is_not_replaced_by_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path / "data/raw/mnist", some((1, 4, 4)))
    monkeypatch.chdir(tmp_path)
    with refused(
        "data folder 'mnist'", f"expected its files in {tmp_path / 'typo'},", "found no such folder", "`root:`"
    ):
        prepare_dataset("mnist", "mnist", Place("mnist", str(tmp_path / "typo")))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with refused("data folder 'mnist'", f"expected its files in {tmp_path}", "found an empty folder"):
        read("mnist", tmp_path)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "damaged", "parts"),
    [
        (IMAGES, lambda data: data[:-7], ["expected 376 bytes for shape (12, 6, 5)", "found 369 bytes"]),
        (IMAGES, lambda data: data + b"\0", ["expected 376 bytes for shape (12, 6, 5)", "found 377 bytes"]),
        (IMAGES, lambda data: data[:9], ["expected 16 bytes for shape (12, 0, 0)", "found 9 bytes"]),
        (IMAGES, lambda _: b"", ["expected an idx file of 3 dimensions (magic 00000803)", "found magic (empty)"]),
        (IMAGES, lambda data: b"\x1f\x8b" + data[2:], ["(magic 00000803)", "found magic 1f8b0803"]),
        (IMAGES, lambda _: idx(np.zeros(12)), ["of 3 dimensions (magic 00000803)", "found magic 00000801"]),
        (LABELS, lambda _: idx(np.zeros((12, 6, 5))), ["of 1 dimensions (magic 00000801)", "found magic 00000803"]),
        (LABELS, lambda _: idx(np.zeros(13)), [f"expected 12 labels, one for each image of {IMAGES}", "found 13"]),
        (LABELS, lambda _: idx(np.zeros(11)), [f"expected 12 labels, one for each image of {IMAGES}", "found 11"]),
        (LABELS, lambda _: idx(np.arange(12)), ["expected labels below 10", "found 11"]),
    ],
)
def test_damaged_idx_files_are_refused(
    tmp_path: Path, file: str, damaged: Callable[[bytes], bytes], parts: list[str]
) -> None:
    write_idx(tmp_path, some((1, 6, 5)))
    path = tmp_path / file
    path.write_bytes(damaged(path.read_bytes()))
    with refused(f"{path}: ", *parts):
        read("mnist", tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 40, -9, -1])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, keep: int) -> None:
    write_idx(tmp_path, some((1, 6, 5)), gzipped=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with refused(f"{path}: ", "found", "fetch the file again"):
        read("mnist", tmp_path)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, some((1, 6, 5)), gzipped=True)
    path = tmp_path / f"{LABELS}.gz"
    data = bytearray(gzip.compress(idx(np.zeros(12)), mtime=0))
    data[-6] ^= 1
    path.write_bytes(data)
    with refused(f"{path}: expected a whole gzip file", "CRC check failed"):
        read("mnist", tmp_path)


@pytest.mark.parametrize(("source", "hint"), [("mnist", True), ("notmnist", False)])
def test_a_missing_file_is_named(tmp_path: Path, source: str, hint: bool) -> None:
    write_idx(tmp_path, some((1, 6, 5)))
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with refused(f"t10k-labels-idx1-ubyte[.gz]: expected the file in {tmp_path}", "found nothing; put it there"):
        read(source, tmp_path)
    with refused("`download: true`" if hint else "put it there"):
        read(source, tmp_path)


# ------------------------------------------------------------------ CIFAR and SVHN


@pytest.mark.parametrize(("source", "name", "classes"), [("cifar10", "CIFAR10", 10), ("cifar100", "CIFAR100", 100)])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, classes: int) -> None:
    raw = some((3, 32, 32), train=classes + 3, test=classes, classes=classes)
    write_cifar(tmp_path, raw, monkeypatch, name)
    dataset = read(source, tmp_path)
    assert_holds(dataset, raw)
    assert dataset.classes == raw.classes


def test_a_cifar_batch_without_its_checksum_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        write_tree(tmp_path, {f"cifar-10-batches-py/{name}": pickle.dumps(Trap())})
    with refused(f"CIFAR10 in {tmp_path}: ", "published checksums", "not found or corrupted", "`download: true`"):
        read("cifar10", tmp_path)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "cifar-10-batches-py/test_batch").read_bytes())
    assert (tmp_path / "sprung").exists()


def test_svhn_stores_the_digit_0_as_10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = some((3, 32, 32))
    assert 0 in raw.train_labels
    write_svhn(tmp_path, raw, monkeypatch)
    dataset = read("svhn", tmp_path)
    assert_holds(dataset, raw)
    assert dataset.classes == tuple("0123456789")


def test_svhn_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path, some((3, 32, 32)), monkeypatch)
    monkeypatch.setitem(torchvision_datasets.SVHN.split_list, "test", ["", "test_32x32.mat", "0" * 32])
    with refused(f"SVHN in {tmp_path}: ", "published checksums", "not found or corrupted"):
        read("svhn", tmp_path)


@pytest.mark.parametrize(
    ("size", "grey", "shape"), [(28, True, (1, 28, 28)), (None, True, (1, 32, 32)), (7, False, (3, 7, 7))]
)
def test_arrays_are_made_grey_and_resized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, grey: bool, shape: tuple[int, int, int]
) -> None:
    raw = some((3, 32, 32))
    write_svhn(tmp_path, raw, monkeypatch)
    dataset = read("svhn", tmp_path, size=size, grey=grey)
    picture = Image.fromarray(np.moveaxis(raw.test_images[-1], 0, -1)).convert("L" if grey else "RGB")
    expected = np.asarray(picture.resize(shape[:0:-1], Image.Resampling.BILINEAR))
    assert dataset.shape == shape
    np.testing.assert_array_equal(dataset.images[-1], expected[None] if grey else np.moveaxis(expected, -1, 0))


# ------------------------------------------------------------------ image folders


def one_zip(folder: Path, files: dict[str, bytes]) -> Path:
    return write_zip(folder / "all.zip", files)


def zip_a_part(folder: Path, files: dict[str, bytes]) -> Path:
    for part in ("train", "test"):
        write_zip(folder / f"my-{part}.zip", {name: data for name, data in files.items() if name.startswith(part)})
    return folder


def zip_some_classes(folder: Path, files: dict[str, bytes]) -> Path:
    for top, names in (("a", ("c02",)), ("b", ("c00", "c01"))):
        chosen = {f"{top}/{name}": data for name, data in files.items() if name.split("/")[1] in names}
        write_zip(folder / f"{top}.zip", chosen)
    return folder


LAYOUTS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folders": write_tree,
    "nested folders": lambda folder, files: write_tree(folder / "top/my images", files).parents[1],
    "one zip": lambda folder, files: one_zip(folder, files).parent,
    "the zip itself": one_zip,
    "deflated": lambda folder, files: write_zip(folder / "a.zip", files, zipfile.ZIP_DEFLATED).parent,
    "nested zip": lambda folder, files: one_zip(folder, {f"top/{name}": data for name, data in files.items()}),
    "two zips": zip_a_part,
    "zips of some classes": zip_some_classes,
    "train zipped": lambda folder, files: write_tree(
        zip_a_part(folder, {name: data for name, data in files.items() if name.startswith("train")}),
        {name: data for name, data in files.items() if name.startswith("test")},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_imagefolder_reads_the_same_from_folders_and_zips(tmp_path: Path, layout: str) -> None:
    raw = picture_raw()
    noise = {
        "train/notes.txt": b"x",
        "__MACOSX/train/c00/._0.png": b"x",
        "train/c01/.hidden.png": b"x",
        "train/x.png": b"",
    }
    dataset = read("imagefolder", LAYOUTS[layout](tmp_path / "images", {**tree(raw), **noise}))
    assert_holds(dataset, raw)
    assert dataset.classes == raw.classes


def test_imagefolder_reads_below_the_class_folders(tmp_path: Path) -> None:
    raw = picture_raw()
    files = {name.replace("/0", "/deeper/0"): data for name, data in tree(raw).items()}
    assert_holds(read("imagefolder", write_tree(tmp_path, files)), raw)


def test_imagefolder_with_other_folder_names(tmp_path: Path) -> None:
    raw = picture_raw()
    write_tree(tmp_path, {**tree(raw, "learn", "val"), "train/c00/other.png": b"no image", "test/c09/other.png": b""})
    assert_holds(read("imagefolder", tmp_path, options={"train_folder": "learn", "test_folder": "val"}), raw)


def test_imagefolder_without_a_test_part(tmp_path: Path) -> None:
    raw = picture_raw()
    classes_at_the_top = {name.removeprefix("train/"): data for name, data in tree(raw).items() if "train/" in name}
    write_tree(tmp_path, classes_at_the_top)
    options = {"train_folder": ".", "test_folder": None}
    with refused("test images: expected some, found none", "`folds:`"):
        read("imagefolder", tmp_path, options=options)
    dataset = read("imagefolder", tmp_path, options=options, folds=Folds(3, 0))
    assert dataset.bounds == (8, 8)
    np.testing.assert_array_equal(dataset.images, raw.train_images[dataset.origin])
    np.testing.assert_array_equal(dataset.labels, raw.train_labels[dataset.origin])


def test_imagefolder_crops_the_centre_and_makes_grey(tmp_path: Path) -> None:
    stripes = np.zeros((3, 4, 12), np.uint8)
    stripes[0, :, :4], stripes[1, :, 4:8], stripes[2, :, 8:] = 200, 200, 200
    upright = stripes.swapaxes(1, 2)
    files = {
        f"{part}/{label}/0.png": png(pixels)
        for part in ("train", "test")
        for label, pixels in (("a", stripes), ("b", upright))
    }
    write_tree(tmp_path, files)
    colour = read("imagefolder", tmp_path, size=4)
    assert colour.shape == (3, 4, 4)
    assert (colour.images[:] == np.array([0, 200, 0])[:, None, None]).all()
    grey = read("imagefolder", tmp_path, size=4, grey=True)
    assert grey.shape == (1, 4, 4)
    assert np.unique(grey.images[:]).tolist() == [Image.new("RGB", (1, 1), (0, 200, 0)).convert("L").getpixel((0, 0))]


def test_imagefolder_resizes_the_shorter_side(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8), (3, 24, 24))
    shapes = {"a": ramp, "b": ramp[:, 6:18]}
    write_tree(tmp_path, {f"{part}/{name}/0.png": png(shapes[name]) for part in ("train", "test") for name in shapes})
    dataset = read("imagefolder", tmp_path, size=6)
    whole, middle = np.diff(dataset.images[:2, 0, 3].astype(int))
    assert (whole[1:-1].tolist(), middle[1:-1].tolist()) == ([40] * 3, [20] * 3)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"test/c03/0.png": png(np.zeros((3, 6, 5), np.uint8))},
            ["the same class folders in train and test", "only in test: c03; put images into train/c03, or take test"],
        ),
        (
            {"train/c01/001.png": b"no image"},
            ["{root}/train/c01/001.png: expected an image", "leave it out or replace it"],
        ),
        ({"test/c00/000.png": cut(png(np.zeros((3, 6, 5), np.uint8)))}, ["{root}/test/c00/000.png: expected an image"]),
        (
            {"train/c01/x.png": png(np.zeros((3, 5, 6), np.uint8))},
            ["{root}/train/c01/x.png: expected 5x6 pixels like", "found 6x5", "`size:`"],
        ),
    ],
    ids=["other classes", "no image", "half an image", "another size"],
)
def test_bad_image_folders_are_refused(tmp_path: Path, change: dict[str, bytes], parts: list[str]) -> None:
    write_tree(tmp_path, {**tree(picture_raw()), **change})
    with refused(*(part.format(root=tmp_path) for part in parts)):
        read("imagefolder", tmp_path)


def test_test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    raw = picture_raw()
    write_tree(
        tmp_path,
        tree(RawDataset(raw.train_images, raw.train_labels, raw.test_images[..., :4], raw.test_labels, raw.classes)),
    )
    with refused(f"image folder {tmp_path}: expected test images of (6, 5)", "found (6, 4)", "`size:`"):
        read("imagefolder", tmp_path)


@pytest.mark.parametrize("absent", ["train", "test"])
def test_a_part_without_images_is_refused(tmp_path: Path, absent: str) -> None:
    write_tree(tmp_path, {name: data for name, data in tree(picture_raw()).items() if not name.startswith(absent)})
    write_tree(tmp_path, {f"{absent}/c00/readme.txt": b"no image", f"{absent}/loose.png": b""})
    with refused(f"image folder {tmp_path}: expected images in {absent}/<class>/", "found none", "`train_folder:`"):
        read("imagefolder", tmp_path)


def test_an_unreadable_image_is_told_without_a_memory_address(tmp_path: Path) -> None:
    write_tree(tmp_path, {**tree(picture_raw()), "train/c00/000.png": b"no image"})
    with pytest.raises(Exception, match=r"000\.png: expected an image") as caught:
        read("imagefolder", tmp_path)
    assert "object at 0x" not in str(caught.value)


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    path = one_zip(tmp_path, tree(picture_raw()))
    path.write_bytes(path.read_bytes()[:-30])
    with refused(f"{path}: expected a whole zip file", "fetch it again"):
        read("imagefolder", tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("offset", [0, 20], ids=["first byte", "middle"])
def test_a_corrupt_member_of_a_zip_is_named(tmp_path: Path, compression: int, offset: int) -> None:
    path = write_zip(tmp_path / "all.zip", tree(picture_raw()), compression)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("train/c01/005.png").header_offset + 30 + len("train/c01/005.png")
    data = bytearray(path.read_bytes())
    data[start + offset] ^= 0x07
    path.write_bytes(data)
    with refused(f"{path}:train/c01/005.png: expected an image"):
        read("imagefolder", tmp_path)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = one_zip(tmp_path, tree(picture_raw()))
    data = path.read_bytes()
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        pieces = data.split(signature)
        data = signature.join([pieces[0], *(piece[: flags - 4] + b"\x01" + piece[flags - 3 :] for piece in pieces[1:])])
    path.write_bytes(data)
    with refused(f"{path}:test/c02/", "expected a file without a password, found an encrypted one; unpack the zip"):
        read("imagefolder", tmp_path)


def test_an_unknown_source_is_refused_with_the_nearest() -> None:
    with refused(
        "params.yaml: datasets.a.source: unknown source 'mnits'",
        "expected one of amat, cifar10",
        "did you mean 'mnist'?",
    ):
        parse_study({"datasets": {"a": {"source": "mnits"}}})


def test_options_of_a_source_belong_to_it_alone() -> None:
    section = parse_study({"dataset": {"source": "imagefolder", "test_folder": None, "size": 8}}).datasets["default"]
    assert section.options == {"train_folder": "train", "test_folder": None}
    with refused("params.yaml: datasets.default: unknown key 'test_folder'", "expected one of"):
        parse_study({"dataset": {"source": "mnist", "test_folder": "val"}})


def test_every_source_is_tested() -> None:
    elsewhere = {"mnist_variations", "amat"}  # test_mnist_variations.py
    assert set(SOURCES.entries) == {"digits", *FAMILY, "cifar10", "cifar100", "svhn", "imagefolder", *elsewhere}


# ------------------------------------------------------------------ the split

POOL = np.repeat(np.arange(4), [57, 31, 9, 3])[np.random.default_rng(0).permutation(100)]
TEST = np.arange(20) % 4


def halves(**how: Any) -> tuple[list[int], list[int], list[int]]:
    train, validation, test = split_rows(POOL, TEST, **how)
    return train.tolist(), validation.tolist(), test.tolist()


def test_without_options_all_of_the_pool_trains() -> None:
    assert halves() == (list(range(100)), [], list(range(100, 120)))


def test_the_first_come_in_file_order_validation_before_train() -> None:
    assert halves(validation=First(5), train=First(75)) == (list(range(5, 80)), list(range(5)), list(range(100, 120)))


@pytest.mark.parametrize(
    ("amount", "count"), [(40, 40), (0.4, 40), (6, 6), (99, 99), (0.05, 5), (0.125, 12), (100, 100)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_and_shares_are_stratified(amount: Amount, count: int, seed: int) -> None:
    train = halves(train=amount, seed=seed)[0]
    assert (len(train), train) == (count, sorted(set(train)))
    assert train[-1] < 100
    taken = np.bincount(POOL[train], minlength=4)
    assert (np.abs(taken - np.bincount(POOL) * count / 100) < 1).all()


def test_the_seed_draws_the_rows() -> None:
    assert halves(train=40, seed=3) == halves(train=40, seed=3)
    assert halves(train=40, seed=3)[0] != halves(train=40, seed=4)[0]
    assert halves(train=40, seed=3)[0] != list(range(40))


def test_validation_leaves_the_rest_to_train() -> None:
    train, validation, test = halves(validation=0.25)
    assert (len(validation), sorted(train + validation), train) == (25, list(range(100)), sorted(train))
    some_of_them = halves(validation=0.25, train=0.2)
    assert some_of_them[1:] == (validation, test)
    assert len(some_of_them[0]) == 15
    assert set(some_of_them[0]) < set(train)


@pytest.mark.parametrize("count", [2, 6, 7])
def test_folds_are_balanced_and_cover_everything_once(count: int) -> None:
    labels = np.concatenate([POOL, TEST])
    parts = [split_rows(POOL, TEST, folds=Folds(count, fold), seed=5) for fold in range(count)]
    tests = [test for _, _, test in parts]
    assert np.sort(np.concatenate(tests)).tolist() == list(range(120))
    classes = np.array([np.bincount(labels[test], minlength=4) for test in tests])
    assert np.ptp(classes.sum(axis=1)) <= 1
    assert (np.ptp(classes, axis=0) <= 1).all()
    for train, validation, test in parts:
        assert (len(validation), sorted([*train, *test]), train.tolist()) == (0, list(range(120)), sorted(train))
    assert tests[0].tolist() != split_rows(POOL, TEST, folds=Folds(count, 0), seed=6)[2].tolist()


def test_validation_and_train_come_out_of_the_other_folds() -> None:
    train, validation, test = halves(folds=Folds(6, 2), validation=10, train=30)
    assert (len(train), len(validation), len(test), len({*train, *validation, *test})) == (30, 10, 20, 60)
    assert test == halves(folds=Folds(6, 2))[2]


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        (
            {"train": 101},
            ["train: expected 4 to 100 images, so that each of 4 classes", "found 101; ask for another amount"],
        ),
        ({"train": First(101)}, ["train: expected 1 to 100 images, found 101"]),
        ({"train": 0.001}, ["train: expected 4 to 100 images", "found 0"]),
        ({"train": 91, "validation": 10}, ["train: expected 4 to 90 images", "found 91"]),
        ({"validation": 101}, ["validation: expected 1 to 96 images", "found 101"]),
        ({"validation": First(100)}, ["train: expected at least one image", "none left beside validation and test"]),
        (
            {"folds": Folds(200, 199)},
            [
                f"folds: expected at most {len(POOL) + len(TEST)}, which is how many images there are, found 200, of which fold 199 is empty; state fewer folds, or add images"
            ],
        ),
    ],
)
def test_a_split_of_more_than_there_is_is_refused(how: dict[str, Any], parts: list[str]) -> None:
    with refused(*parts):
        halves(**how)


def quotas_of_old(counts: Any, wanted: int) -> Any:
    """Largest remainders without bounds: what every split was made with before there were any."""
    exact = counts * wanted / counts.sum()
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: wanted - quota.sum()]] += 1
    return quota


def test_quotas_are_the_largest_remainders_wherever_those_leave_each_class_an_image() -> None:
    generator, changed = np.random.default_rng(0), 0
    for _ in range(400):
        counts = generator.integers(1, generator.choice([3, 20, 500]), generator.integers(2, 12))
        for least, most in ((0, counts - 1), (1, counts)):
            smallest, largest = len(counts) * least, most.sum()
            if smallest == largest:
                continue
            wanted = int(generator.integers(max(1, smallest), largest + 1))
            quota, old = class_quotas(counts, wanted, least, most), quotas_of_old(counts, wanted)
            assert quota.sum() == wanted
            assert (quota >= least).all()
            assert (quota <= most).all()
            if (old >= least).all() and (old <= most).all():
                assert quota.tolist() == old.tolist()
            else:
                changed += 1
                # Moving one image from any class to another, within the bounds, brings them no nearer to their shares.
                short = counts * wanted / counts.sum() - quota
                gain = short[quota < most].max(initial=-np.inf) - short[quota > least].min(initial=np.inf)
                assert gain <= 1 + 1e-9
    assert changed > 50


@pytest.mark.parametrize(
    ("train", "validation", "rare"),
    [(None, 0.5, 1), (None, 3, 1), (0.3, 0.3, 2), (4, 60, 1), (8, None, 3), (None, 0.9, 1)],
)
@pytest.mark.parametrize("seed", range(4))
def test_every_class_keeps_a_training_image_where_there_is_a_choice(
    train: Amount | None, validation: Amount | None, rare: int, seed: int
) -> None:
    labels = np.repeat(np.arange(4), [40, 30, rare, rare])[np.random.default_rng(seed).permutation(70 + 2 * rare)]
    made, held_out, _ = split_rows(labels, np.arange(4), train=train, validation=validation, seed=seed)
    assert set(labels[made].tolist()) == {0, 1, 2, 3}
    assert not set(made.tolist()) & set(held_out.tolist())
    assert isinstance(validation, float) or len(held_out) == (validation or 0)
    assert len(made) == train or not isinstance(train, int)


ORDERED = np.repeat(np.arange(8), 5)


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        ({"validation": First(15)}, ["validation: expected a training image of each class, found none of c0, c1, c2;"]),
        ({"validation": First(15)}, ["state `validation: 15`, which is drawn from each class, in place of the first"]),
        ({"train": First(10)}, ["train: expected a training image of each class, found none of c2, c3, c4 and 3 more"]),
        ({"train": First(10)}, ["state `train: 10`, which is drawn from each class"]),
        ({"validation": 4, "train": First(30)}, ["train: expected a training image of each class, found none of c"]),
        ({"train": 7}, ["train: expected 8 to 40 images, so that each of 8 classes has one that trains, found 7"]),
        ({"train": 0.1}, ["train: expected 8 to 40 images", "found 4; ask for another amount"]),
        ({"validation": 33}, ["validation: expected 1 to 32 images, so that each of 8 classes has one", "found 33"]),
        ({"validation": 0.99}, ["validation: expected 1 to 32 images", "found 40"]),
        ({"validation": 30, "train": 9, "folds": Folds(2, 0)}, ["validation: expected 1 to", "found 30"]),
    ],
)
def test_a_split_that_takes_whole_classes_is_refused(how: dict[str, Any], parts: list[str]) -> None:
    with refused(*parts):
        split_rows(ORDERED, np.arange(8), classes=[f"c{label}" for label in range(8)], **how)


@pytest.mark.parametrize(
    ("labels", "key", "first", "offered"),
    [
        ([0, 0, 1, 1, 2, 2], "validation", 3, 3),
        ([0, 0, 1, 1, 2, 2], "validation", 5, 3),
        ([0, 0, 0, 0, 0, 1, 1, 2], "validation", 6, 5),
        ([0, 0, 1, 1, 2, 2], "train", 2, 3),
        ([0, 0, 1, 1, 2, 2], "train", 4, 4),
        ([0, 1, 2], "train", 1, 3),
        ([0, 1, 2], "validation", 2, None),
    ],
)
def test_what_is_offered_in_place_of_the_first_can_be_had(
    labels: list[int], key: str, first: int, offered: int | None
) -> None:
    given = np.array(labels)
    how: dict[str, Any] = {key: First(first)}
    fix = f"state `{key}: {offered}`, which is drawn from each class" if offered else "; add images of these classes"
    with refused(f"{key}: expected a training image of each class, found none of", fix):
        split_rows(given, given, **how)
    if offered:
        how = {key: offered}
        made, _, _ = split_rows(given, given, **how)
        assert set(given[made]) == {0, 1, 2}


def test_where_no_draw_is_possible_none_is_offered() -> None:
    with refused(
        "validation: expected more images to choose from, so that each of 3 classes has one that trains, found 1; "
        "leave `validation:` out, or add images"
    ):
        split_rows(np.arange(3), np.arange(3), validation=1)


def test_a_class_that_only_the_test_part_has_is_refused() -> None:
    with refused("data set: expected a training image of each class, found none of 8, 9; add images of these classes"):
        split_rows(ORDERED, np.arange(10))
    lonely = np.append(ORDERED, 8)
    fold = next(fold for fold in range(5) if 40 in split_test(lonely, fold))
    with refused("data set: expected a training image of each class, found none of 8", "or state other `folds:`"):
        split_rows(lonely, lonely[:0], folds=Folds(5, fold))
    assert 40 in split_rows(lonely, lonely[:0], folds=Folds(5, (fold + 1) % 5))[0]


def split_test(labels: Any, fold: int) -> list[int]:
    return np.flatnonzero(assign_folds(labels, 5, 0) == fold).tolist()


DIGITS_SPLIT = "2848adb5b9c3d57f6ab335844d6c30ed7bf698a1af6925e4b9a5ae80a2669692"


def test_the_splits_of_the_studies_are_the_same_as_ever() -> None:
    """As they were before a split kept a training image a class: of digits, and of MNIST's and CIFAR's sizes."""
    digits = prepare_dataset("digits", "digits", Place("digits"), validation=0.2)
    assert (digits.bounds, digits.fingerprint) == ((1150, 1437), DIGITS_SPLIT)
    generator = np.random.default_rng(0)
    like_mnist, like_cifar = generator.integers(0, 10, 70_000), np.repeat(np.arange(10), 6000)
    for labels, test, how, expected in (
        (like_mnist, 10_000, {"validation": First(5000), "train": First(10_000)}, "58747426c3d45877"),
        (like_mnist, 10_000, {"validation": 5000}, "75d931e0d726bab4"),
        (like_cifar, 10_000, {"folds": Folds(30, 0), "validation": 2000, "train": 3000}, "56871752f65eb0ff"),
        (like_cifar, 10_000, {"folds": Folds(6, 2), "validation": 1000, "train": 500}, "29b06edaa1cedf61"),
    ):
        parts = split_rows(labels[:-test], labels[-test:], **how)
        assert sha256(np.concatenate(parts).astype("<i8")).hexdigest()[:16] == expected


def test_no_test_images_are_refused() -> None:
    with refused("test images: expected some, found none", "state `folds:`"):
        split_rows(POOL, TEST[:0])


def test_prepare_puts_images_labels_and_origin_in_the_split_s_order(tmp_path: Path) -> None:
    raw = some((1, 3, 3), train=40, test=20)
    write_idx(tmp_path, raw)
    dataset = read("mnist", tmp_path, train=10, validation=First(6), folds=Folds(3, 1), seed=2)
    rows = split_rows(raw.train_labels, raw.test_labels, train=10, validation=First(6), folds=Folds(3, 1), seed=2)
    assert dataset.origin.tolist() == np.concatenate(rows).tolist()
    np.testing.assert_array_equal(dataset.images, np.concatenate([raw.train_images, raw.test_images])[dataset.origin])
    np.testing.assert_array_equal(dataset.labels, np.concatenate([raw.train_labels, raw.test_labels])[dataset.origin])
    assert dataset.bounds == (10, 16)
    assert dataset.fingerprint != read("mnist", tmp_path, train=10, validation=First(6), folds=Folds(3, 1)).fingerprint


# ------------------------------------------------------------------ the record


def record(**changes: Any) -> Dataset:
    raw = some((3, 4, 5), classes=4)
    values: dict[str, Any] = {
        "images": np.concatenate([raw.train_images, raw.test_images]),
        "labels": np.concatenate([raw.train_labels, raw.test_labels]),
        "bounds": (12, 15),
        "classes": raw.classes,
        "origin": np.arange(23),
        "name": "mine",
    }
    return Dataset(**{key: changes.get(key, lambda value: value)(value) for key, value in values.items()})


def changed(array: Any, place: tuple[int, ...], value: int) -> Any:
    copy = array.copy()
    copy[place] = value
    return copy


def test_rows_of_the_splits() -> None:
    assert [record().rows(part) for part in SPLITS] == [slice(0, 12), slice(12, 15), slice(15, 23)]
    assert record(bounds=lambda _: (12, 12)).rows("validation") == slice(12, 12)
    assert (record().shape, len(record())) == ((3, 4, 5), 23)


def test_a_saved_data_set_comes_back(tmp_path: Path) -> None:
    dataset = record(origin=lambda rows: rows[::-1].copy())
    for _ in range(2):
        save_dataset(dataset, tmp_path / "mine")
    back = load_dataset(tmp_path / "mine")
    for name in ("images", "labels", "origin"):
        np.testing.assert_array_equal(getattr(back, name), getattr(dataset, name))
        assert getattr(back, name).dtype == getattr(dataset, name).dtype
    assert (back.bounds, back.classes, back.name) == (dataset.bounds, dataset.classes, dataset.name)
    assert (
        back.fingerprint
        == dataset.fingerprint
        == json.loads((tmp_path / "mine/dataset.json").read_text())["fingerprint"]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"images": lambda images: changed(images, (22, 2, 3, 4), images[22, 2, 3, 4] ^ 1)},
        {"labels": lambda labels: changed(labels, (14,), (labels[14] + 1) % 4)},
        {"images": lambda images: images[::-1], "labels": lambda labels: labels[::-1]},
        {"images": lambda images: images.swapaxes(2, 3)},
        {"images": lambda images: images.reshape(23, 3, 5, 4)},
        {"bounds": lambda _: (12, 16)},
        {"bounds": lambda _: (11, 15)},
        {"classes": lambda names: (*names, "more")},
    ],
    ids=["pixel", "label", "order", "turned", "shape", "validation", "train", "a class more"],
)
def test_the_fingerprint_tells_data_apart(changes: dict[str, Any]) -> None:
    assert record(**changes).fingerprint != record().fingerprint


@pytest.mark.parametrize("words", ["No space left on device", "80 requested and 4 written"])
@pytest.mark.parametrize("file", ["images.npy", "origin.npy", "dataset.json"])
def test_a_full_disk_is_told_with_the_folder_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, words: str
) -> None:
    dataset = prepare_dataset("mine", "digits", Place("digits"))
    number = (errno.ENOSPC,) * (not words[0].isdigit())

    def full(path: Path, *_: Any, **__: Any) -> None:
        if path.name == file:
            raise OSError(*number, words)

    monkeypatch.setattr(np, "save", full)
    monkeypatch.setattr("pipeline.datasets.dataset.write_json", full)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its form is what the next lines are about
        save_dataset(dataset, tmp_path / "out")
    size = dataset.images[:].nbytes + 16 * len(dataset)
    message = str(explain_os_error(caught.value))
    assert message.startswith(f"disk full while writing {tmp_path}/out; nothing half-written was published; make room ")
    assert f"make room for about {size:,} bytes there (" in message


def test_the_fingerprint_is_of_the_data_alone() -> None:
    assert record(name=lambda _: "other", images=np.asfortranarray).fingerprint == record().fingerprint


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"images": np.float32}, ["expected uint8 images (N, C, H, W)", "found float32 (23, 3, 4, 5)"]),
        ({"images": lambda images: images[:, 0]}, ["expected uint8 images (N, C, H, W)", "found uint8 (23, 4, 5)"]),
        ({"labels": np.int32}, ["expected 23 int64 labels", "found int32 (23,)"]),
        ({"labels": lambda labels: labels[:-1]}, ["expected 23 int64 labels", "found int64 (22,)"]),
        ({"labels": lambda labels: changed(labels, (3,), 4)}, ["expected labels in 0..3", "found 0..4"]),
        ({"labels": lambda labels: changed(labels, (3,), -1)}, ["expected labels in 0..3", "found -1..3"]),
        ({"origin": lambda rows: rows[:-1]}, ["origin"]),
        ({"bounds": lambda _: (0, 15)}, ["found splits that end at (0, 15, 23)"]),
        ({"bounds": lambda _: (15, 12)}, ["found splits that end at (15, 12, 23)"]),
        ({"bounds": lambda _: (12, 24)}, ["found splits that end at (12, 24, 23)"]),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], parts: list[str]) -> None:
    applied = {key: change if not isinstance(change, type) else _as(change) for key, change in changes.items()}
    with refused("data set 'mine': ", *parts):
        record(**applied)


def _as(dtype: type) -> Callable[[Any], Any]:
    return lambda array: array.astype(dtype)


def flipped(offset: int) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[offset] ^= 1
        return bytes(changed)

    return flip


def edited(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **changes}).encode()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("images.npy", flipped(-1)),
        ("images.npy", flipped(128)),
        ("images.npy", flipped(10)),
        ("labels.npy", flipped(-8)),
        ("labels.npy", lambda data: data[:-1]),
        ("labels.npy", lambda data: data[:5]),
        ("labels.npy", lambda _: b""),
        ("origin.npy", flipped(-8)),
        ("dataset.json", edited(bounds=[12, 16])),
        ("dataset.json", edited(samples=22)),
        ("dataset.json", edited(shape=[3, 5, 4])),
        ("dataset.json", edited(fingerprint="0" * 64)),
        ("dataset.json", edited(classes=["c00", "c01", "c02"])),
        ("dataset.json", edited(classes=["c00", "c01", "c02", "c03", "more"])),
        ("dataset.json", edited(bounds=None)),
        ("dataset.json", lambda _: b"{}\n"),
        ("dataset.json", lambda data: data[:-9]),
    ],
)
def test_tampered_prepared_data_is_refused(tmp_path: Path, file: str, damage: Callable[[bytes], bytes]) -> None:
    save_dataset(record(), tmp_path / "mine")
    path = tmp_path / "mine" / file
    path.write_bytes(damage(path.read_bytes()))
    with refused("mine", "expected", "found"):
        load_dataset(tmp_path / "mine")


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "origin.npy", "dataset.json"])
def test_prepared_data_with_a_file_missing_is_refused(tmp_path: Path, file: str) -> None:
    save_dataset(record(), tmp_path / "mine")
    (tmp_path / "mine" / file).unlink()
    with refused(file, "run `teachercache prepare mine`"):
        load_dataset(tmp_path / "mine")


def test_prepared_data_holds_no_pickles(tmp_path: Path) -> None:
    save_dataset(record(), tmp_path / "mine")
    file = io.BytesIO()
    np.save(file, np.array([{}] * 23, dtype=object), allow_pickle=True)
    (tmp_path / "mine/labels.npy").write_bytes(file.getvalue())
    with refused(f"prepared data in {tmp_path / 'mine'}: expected whole .npy files", "allow_pickle=False"):
        load_dataset(tmp_path / "mine")


# ------------------------------------------------------------------ the real files


def test_real_mnist() -> None:
    mnist = read("mnist", real("mnist"))
    assert (mnist.shape, mnist.bounds, len(mnist)) == ((1, 28, 28), (60_000, 60_000), 70_000)
    assert mnist.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(mnist.labels[mnist.rows("test")]).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]


def test_real_cifar_jpegs(tmp_path: Path) -> None:
    shutil.copy(real("cifar10-jpg", "cifar10-jpg-test.zip"), tmp_path)
    options: dict[str, Any] = {"train_folder": "test", "test_folder": None}
    cifar = prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path)), folds=Folds(2, 1), options=options)
    assert (cifar.shape, cifar.bounds, len(cifar), len(cifar.classes)) == ((3, 32, 32), (5_000, 5_000), 10_000, 10)
    assert np.bincount(cifar.labels[:5_000]).tolist() == [500] * 10
    assert cifar.images[:].std() > 50
    assert cifar.duplicates is None


def test_zips_named_for_their_part_may_hold_classes_at_the_top(tmp_path: Path) -> None:
    for part in ("train", "test"):
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as archive:
            for label, name in enumerate(("a", "b")):
                archive.writestr(f"{name}/1.png", encoded(Image.new("L", (4, 4), 100 * label)))
    made = prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path)), grey=True)
    assert (made.classes, len(made), made.bounds) == (("a", "b"), 4, (2, 2))


def test_the_same_images_as_zip_and_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "train/a/1.png").write_bytes(encoded(Image.new("L", (4, 4))))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "train/a/1.png", "train/a/1.png")
    with pytest.raises(InputError, match=r"expected each image once.*keep the zip or the folder, not both"):
        prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path)))


def test_more_than_eight_bits_are_refused_and_transparency_is_white(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / part / name / "clear.png")
    made = prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path)))
    assert np.unique(made.images[:]).tolist() == [255]
    Image.new("I;16", (2, 2), 1000).save(tmp_path / "train/a/deep.png")
    with pytest.raises(InputError, match=r"deep\.png: expected an image, found pixels of mode I;16"):
        prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path)))


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
