"""Variations of MNIST, made here or read from the authors' files; and data sets that a recipe is only told of."""

from __future__ import annotations

import hashlib
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from pipeline.base.files import read_json
from pipeline.datasets import SOURCES, amat, mnist_variations
from pipeline.datasets.dataset import load_dataset
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Pixels, Place, RawDataset
from pipeline.datasets.split import First
from pipeline.graph.code_dependencies import follow_imports
from pipeline.models import MODELS
from pipeline.study.params_file import parse_study
from tests.conftest import Run, copied, write_study
from tests.data_files import real, refused, some, write_idx, write_svhn

VARIATIONS = ("basic", "rotated", "random_background", "image_background", "rotated_image_background")
SIDE = 28


def digits_like(train: int = 40, test: int = 24) -> RawDataset:
    """MNIST in small: strokes of 1..255 in the middle 20 x 20 pixels, dark around them, no two alike."""
    raw = some((1, SIDE, SIDE), train=train, test=test)
    for images in (raw.train_images, raw.test_images):
        images[:, :, [*range(4), *range(24, 28)]] = 0
        images[:, :, :, [*range(4), *range(24, 28)]] = 0
        images[:, :, 10:14] = 0
    return raw


def make(folder: Path, raw: RawDataset | None = None, **options: Any) -> RawDataset:
    """The source's answer for small files that look like MNIST's."""
    if not folder.exists():
        write_idx(folder, raw or digits_like())
    chosen = {"train_count": 30, "test_count": 20, **options}
    made: RawDataset = SOURCES.import_function("mnist_variations")(Place("mnist_variations", str(folder)), **chosen)
    return made


def both(raw: RawDataset) -> Pixels:
    """(n, H, W): the digits of both parts."""
    return np.concatenate([raw.train_images, raw.test_images])[:, 0]


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]


# ------------------------------------------------------------------ the same bytes everywhere

GOLDEN = {
    "basic": "7ca5dd2aeb1fdd35",
    "rotated": "2870d3036f15d407",
    "random_background": "cf6334d22865fde6",
    "image_background": "96c466b84da333f8",
    "rotated_image_background": "62e98f4cc89aa69b",
}


def ramps(count: int = 64) -> RawDataset:
    """Digits that no library has drawn."""
    levels = np.arange(count)[:, None, None] * 37 + np.arange(SIDE)[:, None] * 5 + np.arange(SIDE) * 3
    levels[:, :9] = 0
    images = (levels % 256).astype(np.uint8)[:, None]
    labels = np.arange(count) % 10
    return RawDataset(images[:40], labels[:40], images[40:], labels[40:], ())


@pytest.mark.parametrize("variation", VARIATIONS)
def test_every_machine_makes_the_same_images(tmp_path: Path, variation: str) -> None:
    made = make(tmp_path / "mnist", ramps(), variation=variation)
    assert digest(both(made)) == GOLDEN[variation]


def test_the_photographs_are_decoded_to_the_same_grey_levels_everywhere() -> None:
    assert [digest(picture) for picture in mnist_variations.read_photographs()] == [
        "0293dfc3ea97a1e3",
        "e3bc979996e55c4d",
    ]


def test_the_photographs_are_scikit_learn_s() -> None:
    for ours, theirs in zip(mnist_variations.read_photographs(), load_sample_images().images, strict=True):
        assert ours.shape == theirs.shape[:2] == (427, 640)
        assert np.abs(ours - theirs @ np.array([0.299, 0.587, 0.114])).max() < 8
        assert np.abs(ours - theirs @ np.array([0.299, 0.587, 0.114])).mean() < 0.6


def test_no_cosine_lies_so_near_a_tie_that_a_library_could_round_it_the_other_way() -> None:
    exact = [math.cos(2 * math.pi * step / 65536) * 32768 for step in range(65536)]
    assert mnist_variations.cosine_table().tolist() == [round(value) for value in exact]
    assert min(abs(abs(value - math.floor(value)) - 0.5) for value in exact) > 2.6e-5


def test_chunks_are_no_part_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [both(make(tmp_path / "mnist", variation=variation)) for variation in VARIATIONS]
    monkeypatch.setattr(mnist_variations, "CHUNK", 7)
    for variation, expected in zip(VARIATIONS, whole, strict=True):
        np.testing.assert_array_equal(both(make(tmp_path / "mnist", variation=variation)), expected)


# ------------------------------------------------------------------ the digits


@pytest.mark.parametrize("seed", [0, 1])
def test_no_digit_is_in_two_parts_and_each_keeps_its_label(tmp_path: Path, seed: int) -> None:
    source = digits_like()
    made = make(tmp_path / "mnist", source, variation="basic", variation_seed=seed, train_count=40, test_count=24)
    labels = dict(zip(map(bytes, both(source)), [*source.train_labels, *source.test_labels], strict=True))
    taken = [bytes(image) for image in both(made)]
    assert len(labels) == len(set(taken)) == 64  # all of them, each once
    assert [labels[image] for image in taken] == [*made.train_labels, *made.test_labels]
    # A shuffle of both files together, not of one of them.
    assert 5 < sum(image in {bytes(one) for one in source.test_images} for image in map(bytes, made.train_images)) < 24


def test_all_variations_of_a_seed_have_the_same_digits(tmp_path: Path) -> None:
    made = [make(tmp_path / "mnist", variation=variation) for variation in VARIATIONS]
    for one in made:
        assert one.train_labels.tolist() == made[0].train_labels.tolist()
        assert one.test_labels.tolist() == made[0].test_labels.tolist()
        assert one.classes == tuple("0123456789")
        assert (one.train_images.shape, one.test_images.shape) == ((30, 1, SIDE, SIDE), (20, 1, SIDE, SIDE))
        assert one.train_images.dtype == np.uint8


def test_a_longer_training_part_begins_as_a_shorter_one(tmp_path: Path) -> None:
    for variation in VARIATIONS:
        few, many = (make(tmp_path / "mnist", variation=variation, train_count=n) for n in (10, 30))
        np.testing.assert_array_equal(few.train_images, many.train_images[:10])


# ------------------------------------------------------------------ rotation


def slowly_rotated(image: Pixels, angle: float) -> NDArray[np.float64]:
    """Bilinear interpolation at the point that a counter-clockwise turn moves here, one pixel after the other."""
    height, width = image.shape

    def at(row: int, column: int) -> float:
        return float(image[row, column]) if 0 <= row < height and 0 <= column < width else 0.0

    made = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            up, right = (height - 1) / 2 - row, column - (width - 1) / 2
            x = right * math.cos(angle) + up * math.sin(angle) + (width - 1) / 2
            y = (height - 1) / 2 - (up * math.cos(angle) - right * math.sin(angle))
            top, left = math.floor(y), math.floor(x)
            lower, after = y - top, x - left
            made[row, column] = (1 - lower) * ((1 - after) * at(top, left) + after * at(top, left + 1))
            made[row, column] += lower * ((1 - after) * at(top + 1, left) + after * at(top + 1, left + 1))
    return made


def turned(images: Pixels, *steps: int) -> Pixels:
    return mnist_variations.rotate(images, np.array(steps, np.uint64))


@pytest.mark.parametrize("shape", [(28, 28), (9, 12)])
@pytest.mark.parametrize("steps", [0, 1, 1234, 8192, 16384, 30000, 49152, 65535])
def test_a_rotation_is_the_slow_one(shape: tuple[int, int], steps: int) -> None:
    image = np.random.default_rng(steps).integers(0, 256, shape, dtype=np.uint8)
    expected = slowly_rotated(image, 2 * math.pi * steps / 65536)
    assert np.abs(turned(image[None], steps)[0] - expected).max() < 0.9


def test_quarter_turns_are_exact_and_counter_clockwise() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE), dtype=np.uint8)
    made = turned(images, 0, 16384, 32768, 49152)
    for image, one, quarters in zip(images, made, range(4), strict=True):
        np.testing.assert_array_equal(one, np.rot90(image, quarters))


def test_angles_are_uniform_over_the_whole_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NDArray[np.uint64]] = []

    def remembered(images: Pixels, angles: NDArray[np.uint64]) -> Pixels:
        seen.append(angles)
        return images

    monkeypatch.setattr(mnist_variations, "rotate", remembered)
    mnist_variations.vary_digits(np.zeros((4000, 2, 2), np.uint8), "rotated", 0, 20)
    counts = np.histogram(np.concatenate(seen), bins=16, range=(0, 65536))[0]
    assert counts.sum() == 4000
    assert ((counts - 250) ** 2 / 250).sum() < 37.7  # chi-squared, 15 degrees of freedom: once in 1,000 by chance


def test_only_rotated_variations_are_rotated(tmp_path: Path) -> None:
    plain, rotated = (both(make(tmp_path / "mnist", variation=name)) for name in ("basic", "rotated"))
    angles = np.random.Philox(key=1 << 64).random_raw(50) >> np.uint64(48)
    np.testing.assert_array_equal(rotated, mnist_variations.rotate(plain, angles))
    assert (rotated != plain).any(axis=(1, 2)).all()


# ------------------------------------------------------------------ backgrounds


def background(variation: Any, count: int, seed: int = 0, least_deviation: int = 20) -> Pixels:
    """What stands behind digits, seen behind none."""
    return mnist_variations.vary_digits(np.zeros((count, SIDE, SIDE), np.uint8), variation, seed, least_deviation)


@pytest.mark.parametrize("variation", ["random_background", "image_background", "rotated_image_background"])
def test_each_pixel_is_the_lighter_of_digit_and_background(tmp_path: Path, variation: str) -> None:
    shown = "rotated" if variation.startswith("rotated") else "basic"
    digits, made = (both(make(tmp_path / "mnist", variation=name)) for name in (shown, variation))
    behind = background(variation, 50)
    np.testing.assert_array_equal(made, np.where(digits > behind, digits, behind))
    np.testing.assert_array_equal(made[digits == 0], behind[digits == 0])
    assert (digits > behind).any(axis=(1, 2)).all()
    assert (digits < behind).any(axis=(1, 2)).all()


def test_noise_is_uniform_and_new_for_each_image() -> None:
    behind = background("random_background", 400)
    counts = np.bincount(behind.ravel(), minlength=256)
    expected = behind.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 330.5  # chi-squared, 255 degrees: once in 1,000
    assert len({bytes(image) for image in behind}) == 400
    assert abs(np.corrcoef(behind[:, 5, 5], behind[:, 5, 6])[0, 1]) < 0.2


def test_patches_are_cut_from_the_photographs() -> None:
    windows = [sliding_window_view(picture, (SIDE, SIDE)) for picture in mnist_variations.read_photographs()]
    sources = []
    for patch in background("image_background", 60):
        found = [
            (number, *corner)
            for number, views in enumerate(windows)
            for corner in np.argwhere((views[:, :, 0, :5] == patch[0, :5]).all(2))
            if (views[tuple(corner)] == patch).all()
        ]
        assert found
        sources.append(found[0])
    pictures = np.array(sources)[:, 0]
    assert 5 < pictures.sum() < 55  # of both photographs
    assert len(set(sources)) > 55
    assert np.ptp(np.array(sources)[:, 1:], axis=0).min() > 250  # from all over them


def test_each_patch_of_all_photographs_is_equally_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE + 1), dtype=np.uint8)
    pictures = [levels[0], levels[1][:, :SIDE], levels[2]]  # with 2, 1 and 2 patches
    monkeypatch.setattr(mnist_variations, "read_photographs", lambda: iter(pictures))
    drawn = [bytes(patch) for patch in background("image_background", 2000)]
    patches = [bytes(patch) for one in pictures for patch in sliding_window_view(one, (SIDE, SIDE))[0]]
    assert set(drawn) == set(patches)
    assert len(patches) == 5
    assert all(abs(drawn.count(patch) - 400) < 4 * 18 for patch in patches)


@pytest.mark.parametrize("least", [0, 20, 60])
def test_smooth_patches_are_left_out(least: int) -> None:
    deviations = background("image_background", 300, least_deviation=least).std(axis=(1, 2))
    assert deviations.min() >= least
    if not least:
        assert deviations.min() < 20


def test_the_deviation_of_every_patch_is_the_slow_one() -> None:
    picture = next(mnist_variations.read_photographs())[150:210, 100:180]
    deviations = sliding_window_view(picture, (SIDE, SIDE)).std(axis=(2, 3))
    assert deviations.min() < 40 < deviations.max()
    np.testing.assert_array_equal(mnist_variations.has_texture(picture, SIDE, SIDE, 40), deviations >= 40)
    flat = np.full((30, 30), 200, np.uint8)
    assert mnist_variations.has_texture(flat, SIDE, SIDE, 0).all()
    assert not mnist_variations.has_texture(flat, SIDE, SIDE, 1).any()


# ------------------------------------------------------------------ options


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_seed_draws_other_digits_and_other_variations(tmp_path: Path, variation: str) -> None:
    made = [make(tmp_path / "mnist", variation=variation, variation_seed=seed) for seed in (0, 1, 2**64 - 1)]
    assert len({digest(both(one)) for one in made}) == 3
    digits = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    if variation != "basic":  # the variation itself too, whatever the digits
        varied = [mnist_variations.vary_digits(digits, variation, seed, 20) for seed in (0, 1)]  # type: ignore[arg-type]
        assert (varied[0] != varied[1]).any(axis=(1, 2)).all()


def test_options_reach_the_images(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", digits_like())
    section: dict[str, Any] = {"source": "mnist_variations", "root": str(tmp_path / "mnist")}
    section |= {"variation": "image_background", "variation_seed": 5, "train_count": 50, "test_count": 9}
    section |= {"least_deviation": 40, "validation": {"first": 2}}
    spec = parse_study({"dataset": section}).datasets["default"]
    place = Place(spec.source, spec.root)
    dataset = prepare_dataset("mine", spec.source, place, validation=spec.validation, options=spec.options)
    assert (dataset.bounds, len(dataset)) == ((48, 50), 59)
    expected = make(tmp_path / "mnist", **{key: section[key] for key in spec.options})
    np.testing.assert_array_equal(dataset.images[48:50], expected.train_images[:2])
    np.testing.assert_array_equal(dataset.images[50:], expected.test_images)
    others: list[dict[str, Any]] = [{"variation": "basic"}, {"variation_seed": 6}, {"least_deviation": 41}]
    for other in others:
        changed = make(tmp_path / "mnist", **({key: section[key] for key in spec.options} | other))
        assert digest(both(changed)) != digest(both(expected)), other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "variation: missing; this key is required"),
        ({"variation": "turned"}, "variation: expected 'basic', 'rotated', 'random_background', 'image_background' or"),
        ({"variation": "rotated", "variation_seed": -1}, "variation_seed: expected greater than or equal to 0"),
        ({"variation": "rotated", "variation_seed": 2**64}, "variation_seed: expected less than 18446744073709551616"),
        ({"variation": "rotated", "train_count": 0}, "train_count: expected greater than 0, found 0"),
        ({"variation": "rotated", "test_count": 0.5}, "test_count: expected"),
        ({"variation": "rotated", "least_deviation": 128}, "least_deviation: expected less than or equal to 127"),
        ({"variation": "rotated", "angle": 3}, "unknown key 'angle'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with refused("params.yaml: datasets.default", message):
        parse_study({"dataset": {"source": "mnist_variations", **options}})


def test_more_digits_than_there_are_are_refused(tmp_path: Path) -> None:
    message = "train_count and test_count: expected 64 digits at most together, found 50 + 15 = 65; ask for fewer"
    with refused(message):
        make(tmp_path / "mnist", variation="basic", train_count=50, test_count=15)
    assert len(both(make(tmp_path / "mnist", variation="basic", train_count=49, test_count=15))) == 64


def test_a_deviation_that_no_patch_has_is_refused(tmp_path: Path) -> None:
    with refused("least_deviation: expected a deviation that some patch of the sample photographs has, found 127"):
        make(tmp_path / "mnist", variation="image_background", least_deviation=127)
    make(tmp_path / "mnist", variation="random_background", least_deviation=127)  # nobody asks


@pytest.mark.parametrize(("folder", "looked_for"), [("mnist_variations", "mnist"), ("digits", "digits")])
def test_digits_are_looked_for_where_mnist_s_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, looked_for: str
) -> None:
    monkeypatch.setenv("TEACHERCACHE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    source = SOURCES.import_function("mnist_variations")
    with refused(f"data folder {looked_for!r}: expected its files in {tmp_path / looked_for} or data/raw"):
        source(Place(folder), variation="basic")
    write_idx(tmp_path / looked_for, digits_like())
    assert len(both(source(Place(folder), variation="basic", train_count=40, test_count=24))) == 64


def test_a_stage_that_varies_the_digits_depends_on_their_own_source_too() -> None:
    digits = SOURCES.find_module("mnist")
    assert digits in follow_imports([str(SOURCES.find_module("mnist_variations"))])


@pytest.mark.parametrize("variation", ["basic", "rotated"])
def test_real_mnist_is_split_as_the_original(variation: str) -> None:
    place = Place("mnist_variations", str(real("mnist")))
    made = prepare_dataset("mine", "mnist_variations", place, validation=First(2000), options={"variation": variation})
    assert (made.shape, made.bounds, len(made)) == ((1, 28, 28), (10_000, 12_000), 62_000)
    assert made.labels[:8].tolist() == [8, 5, 2, 8, 5, 5, 5, 3]
    assert np.bincount(made.labels).min() > 5_000
    assert abs(made.images[:].mean() - 33.3) < 0.2  # grey levels: a turn cuts off next to nothing


# ------------------------------------------------------------------ the original files


def line_of(image: Pixels, label: int, style: str = "{:.7e}") -> str:
    return "   ".join(["", *(style.format(value / 255) for value in image.ravel()), style.format(label)])


def write_amat(folder: Path, raw: RawDataset, variation: str = "rotated", **how: Any) -> tuple[Path, Path]:
    """The two files under their published names, images row after row."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / name for name in amat.NAMES[variation])
    parts = ((raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels))
    for path, (images, labels) in zip(paths, parts, strict=True):
        path.write_text("".join(line_of(*one, **how) + "\n" for one in zip(images, labels, strict=True)))
    return paths[0], paths[1]


def read_amat(folder: Path, **options: Any) -> RawDataset:
    made: RawDataset = SOURCES.import_function("amat")(Place("amat", str(folder)), **{"validation_lines": 0, **options})
    return made


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("style", ["{:.7e}", "{:.9g}", "{:.4f}"])
def test_original_files_are_read(tmp_path: Path, variation: str, style: str) -> None:
    raw = some((1, SIDE, SIDE), train=12, test=11)
    raw.train_images[0, 0].flat[:256] = np.arange(256)
    write_amat(tmp_path, raw, variation, style=style)
    made = read_amat(tmp_path, order="rows")
    np.testing.assert_array_equal(both(made), both(raw))
    assert made.train_labels.tolist() == raw.train_labels.tolist()
    assert made.test_labels.tolist() == raw.test_labels.tolist()
    assert made.train_images.dtype == np.uint8
    assert made.train_labels.dtype == np.int64
    turned_over = read_amat(tmp_path, order="columns")
    np.testing.assert_array_equal(both(turned_over), both(raw).swapaxes(1, 2))
    expected = made if variation == "basic" else turned_over
    np.testing.assert_array_equal(both(read_amat(tmp_path)), both(expected))


def test_a_pixel_is_rounded_to_the_nearest_of_255() -> None:
    values = amat._parse_line(b"0.0019 0.002 0.998 0.9981 " + b"1 " * 780 + b"3\n")
    assert values is not None
    assert np.rint(values[:4] * 255).tolist() == [0, 1, 254, 255]


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.removesuffix("\n"),
        lambda text: text.replace("   ", "\t"),
        lambda text: text.replace("\n", "   \n"),
    ],
    ids=["carriage returns", "no last line end", "tabs", "blanks at the end"],
)
def test_other_white_space_is_read_too(tmp_path: Path, rewrite: Callable[[str], str]) -> None:
    raw = some((1, SIDE, SIDE), train=4, test=3)
    for path in write_amat(tmp_path, raw):
        path.write_bytes(rewrite(path.read_text()).encode())
    np.testing.assert_array_equal(both(read_amat(tmp_path, order="rows")), both(raw))


def test_the_authors_validation_part_is_the_first_of_the_training_part(tmp_path: Path) -> None:
    raw = some((1, SIDE, SIDE), train=12, test=5, classes=3)
    write_amat(tmp_path, raw)
    place = Place("amat", str(tmp_path))
    options = {"validation_lines": 4, "order": "rows"}
    made = prepare_dataset("mine", "amat", place, validation=First(4), options=options)
    assert (made.bounds, len(made)) == ((8, 12), 17)
    np.testing.assert_array_equal(made.images[:12], raw.train_images)
    assert made.labels[:12].tolist() == raw.train_labels.tolist()
    np.testing.assert_array_equal(made.images[12:], raw.test_images)
    names = amat.NAMES["rotated"][0]
    with refused(f"validation_lines: expected fewer than the 12 lines of {names}, found 12; state fewer"):
        read_amat(tmp_path, validation_lines=12)
    with refused("validation_lines: expected fewer than the 12 lines", "found 2000"):
        SOURCES.import_function("amat")(place)


def word(place: int, text: str) -> Callable[[str], str]:
    """A line's value at a place (from 1) said otherwise."""

    def change(line: str) -> str:
        words = line.split()
        words[place - 1] = text
        return " ".join(words)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (word(17, "nan"), "expected pixels from 0 to 1, found nan (pixel 17)"),
        (word(784, "inf"), "expected pixels from 0 to 1, found inf (pixel 784)"),
        (word(1, "-inf"), "expected pixels from 0 to 1, found -inf (pixel 1)"),
        (word(3, "1.0001"), "expected pixels from 0 to 1, found 1.0001 (pixel 3)"),
        (word(3, "-0.0001"), "expected pixels from 0 to 1, found -0.0001 (pixel 3)"),
        (word(3, "1e400"), "expected pixels from 0 to 1, found 1e400 (pixel 3)"),
        (word(5, "zero"), "expected numbers, found 'zero' (number 5)"),
        (word(5, "0.1,0.2"), "expected numbers, found '0.1,0.2' (number 5)"),
        (word(5, "0_1"), "expected numbers, found '0_1' (number 5)"),
        (word(5, "0x1"), "expected numbers, found '0x1' (number 5)"),
        (word(5, "0\0"), r"expected numbers, found '0\x00' (number 5)"),
        (word(5, "\u0661"), r"expected numbers, found '\\xd9\\xa1' (number 5)"),
        (word(785, "10"), "expected a digit from 0 to 9 as the label, found 10"),
        (word(785, "-1"), "expected a digit from 0 to 9 as the label, found -1"),
        (word(785, "2.5"), "expected a digit from 0 to 9 as the label, found 2.5"),
        (word(785, "nan"), "expected a digit from 0 to 9 as the label, found nan"),
        (word(785, "x"), "expected numbers, found 'x' (number 785)"),
        (lambda line: line.rpartition(" ")[0], "expected 785 numbers (784 pixels and a label), found 784"),
        (lambda line: line + " 1", "expected 785 numbers (784 pixels and a label), found 786"),
        (lambda line: line + " x", "expected numbers, found 'x' (number 786)"),
        (lambda _: "", "expected 785 numbers (784 pixels and a label), found 0"),
        (lambda _: " ", "expected 785 numbers (784 pixels and a label), found 0"),
        (lambda _: "0 " * 50_000, "expected 785 numbers (784 pixels and a label), found 32768"),
        (lambda line: f"{line} {line}", "expected 785 numbers (784 pixels and a label), found 1570"),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_a_bad_line_is_named(tmp_path: Path, change: Callable[[str], str], message: str, number: int) -> None:
    for path in write_amat(tmp_path, some((1, SIDE, SIDE), train=3, test=3)):
        good = path.read_bytes()
        lines = path.read_text().splitlines()
        lines[number - 1] = change(lines[number - 1])
        path.write_text("".join(line + "\n" for line in lines))
        with refused(f"{path}, line {number}: {message}; unpack the published zip again"):
            read_amat(tmp_path)
        path.write_bytes(good)
    read_amat(tmp_path)


def test_a_short_line_is_not_made_up_for_by_a_long_one(tmp_path: Path) -> None:
    path, _ = write_amat(tmp_path, some((1, SIDE, SIDE), train=3, test=3))
    first, second, third = path.read_text().splitlines()
    moved = first.split()[-1]
    path.write_text("\n".join([first.rpartition(" ")[0], f"{moved} {second}", third]))
    with refused(f"{path}, line 1: expected 785 numbers (784 pixels and a label), found 784"):
        read_amat(tmp_path)


def test_where_numpy_only_warns_of_text_that_is_no_number_it_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write_amat(tmp_path, some((1, SIDE, SIDE), train=3, test=3))
    path.write_text(path.read_text().replace("\n", " x\n"))

    def older(text: bytes, sep: str) -> NDArray[np.float64]:
        warnings.warn("string or file could not be read to its end", DeprecationWarning, stacklevel=2)
        return np.array(text.split()[:785], float)

    monkeypatch.setattr(np, "fromstring", older)
    with refused(f"{path}, line 1: expected numbers, found 'x' (number 786)"):
        read_amat(tmp_path)


@pytest.mark.parametrize("part", [0, 1])
def test_an_empty_file_is_refused(tmp_path: Path, part: int) -> None:
    path = write_amat(tmp_path, some((1, SIDE, SIDE), train=3, test=3))[part]
    path.write_bytes(b"")
    with refused(f"{path}: expected a line of 784 pixels and a label for each image, found none"):
        read_amat(tmp_path)


def test_files_are_found_by_their_published_names(tmp_path: Path) -> None:
    one, other = some((1, SIDE, SIDE), seed=1), some((1, SIDE, SIDE), seed=2)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/readme.txt").write_text("x")
    with refused(f"MNIST variations in {tmp_path / 'files'}: expected the two .amat files", "found none; unpack a"):
        read_amat(tmp_path / "files")
    write_amat(tmp_path / "files", one, "rotated")
    np.testing.assert_array_equal(both(read_amat(tmp_path / "files", order="rows")), both(one))
    _, test = write_amat(tmp_path / "files", other, "image_background")
    with refused("found rotated and image_background; state `variation:`"):
        read_amat(tmp_path / "files")
    for variation, raw in (("rotated", one), ("image_background", other)):
        made = read_amat(tmp_path / "files", order="rows", variation=variation)
        np.testing.assert_array_equal(both(made), both(raw))
    test.unlink()
    with refused(f"{test.name}: expected the file in {tmp_path / 'files'}, found nothing; unpack the published zip"):
        read_amat(tmp_path / "files", variation="image_background")


def test_options_of_the_original_files_are_checked_and_reach_the_reader(tmp_path: Path) -> None:
    section = {"source": "amat", "variation": "rotated", "order": "rows", "validation_lines": 3}
    assert parse_study({"dataset": section}).datasets["default"].options == {
        key: value for key, value in section.items() if key != "source"
    }
    for options, message in (
        ({"variation": "upright"}, "variation: expected 'basic'"),
        ({"order": "diagonal"}, "order: expected 'auto', 'rows' or 'columns', found 'diagonal'"),
        ({"validation_lines": -1}, "validation_lines: expected greater than or equal to 0, found -1"),
    ):
        with refused("params.yaml: datasets.default", message):
            parse_study({"dataset": {"source": "amat", **options}})


# ------------------------------------------------------------------ notMNIST and SVHN: another data set, other widths

RECIPE: dict[str, Any] = {
    "seed": 0,
    "datasets": {"data": {"source": "mnist", "root": "files", "validation": {"first": 10}}},
    "teachers": {"big": {"model": {"name": "mlp", "widths": [1200, 1200]}, "epochs": 1, "batch_size": 30}},
    "dumps": {"big-logits": {"field": "logits", "of": "big"}},
    "students": {
        "kd": {
            "model": {"name": "mlp", "widths": [800, 800]}, "optimizer": "sgd", "epochs": 1, "batch_size": 30,
            "losses": {"ce": {}, "soft_targets": {"temperature": 4.0, "scaled": False}},
        },
    },
}  # fmt: skip


def recipe(dataset: dict[str, Any], teacher: list[int], student: list[int]) -> dict[str, Any]:
    """The MNIST recipe with these keys of its data set and these widths; nothing else is said otherwise."""
    study: dict[str, Any] = copied(RECIPE)
    study["datasets"]["data"] |= dataset
    study["teachers"]["big"]["model"]["widths"] = teacher
    study["students"]["kd"]["model"]["widths"] = student
    return study


def write_small_svhn(folder: Path, raw: RawDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = some((3, 32, 32), train=len(raw.train_labels), test=len(raw.test_labels))
    write_svhn(folder, colour, monkeypatch)


STUDIES: dict[str, tuple[dict[str, Any], Callable[..., None], int, int]] = {
    "mnist": (
        recipe({}, [1200, 1200], [800, 800]),
        lambda folder, raw, _: write_idx(folder, raw),
        2_392_800,
        1_275_200,
    ),
    "notmnist": (
        recipe({"source": "notmnist"}, [1200] * 3, [800] * 3),
        lambda folder, raw, _: write_idx(folder, raw),
        3_832_800,
        1_915_200,
    ),
    "svhn": (
        recipe({"source": "svhn", "grey": True, "size": 28}, [4096] * 2, [3072] * 2),
        write_small_svhn,
        20_029_440,
        11_876_352,
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_recipes_networks_have_as_many_weights_as_the_write_up_says(name: str) -> None:
    study, _, *expected = STUDIES[name]
    models = [study["teachers"]["big"]["model"], study["students"]["kd"]["model"]]
    for model, weights in zip(models, expected, strict=True):
        with torch.device("meta"):
            built = MODELS.import_function(model["name"])((1, 28, 28), 10, widths=tuple(model["widths"]))
        named = dict(built.named_parameters())
        assert sum(part.numel() for place, part in named.items() if place.endswith("weight")) == weights


@pytest.mark.parametrize("name", ["notmnist", "svhn"])
def test_another_data_set_and_other_widths_are_all_that_a_recipe_needs(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    study, write, teacher, student = STUDIES[name]
    write(tmp_path / "files", some((1, 28, 28), train=40, test=20), monkeypatch)
    write_study(tmp_path, study)
    for command in ("prepare data", "train-teacher big", "dump-logits big-logits", "train-student kd"):
        assert run(tmp_path, *command.split()) == 0, command
    data = load_dataset(tmp_path / "data/prepared/data")
    assert (data.shape, data.bounds, len(data), len(data.classes)) == ((1, 28, 28), (30, 40), 60, 10)
    for kind, one, weights in (("teachers", "big", teacher), ("students", "kd", student)):
        biases = sum(study[kind][one]["model"]["widths"]) + 10
        assert read_json(tmp_path / f"data/metrics/{kind}/{one}.json", "")["parameters"] == weights + biases
    assert read_json(tmp_path / "data/metrics/students/kd.json", "")["taught_by"] != []
    shutil.rmtree(tmp_path / "data")  # a hundred megabytes of weights
