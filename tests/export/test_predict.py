from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.datasets import image_files
from pipeline.datasets.dataset import load_dataset
from pipeline.datasets.file_trees import File
from pipeline.datasets.image_files import Decoder
from pipeline.datasets.raw import fit_image
from pipeline.export import predict as room
from pipeline.export.predict import (
    compute_probabilities,
    find_images,
    fit_to_shape,
    format_answer,
    predict_logits,
    read_image,
)
from tests.conftest import Capture, Run, refused, write_study
from tests.students import CLASSES, network_of, pixels, untrained

SMALL = {"model": {"name": "mlp", "widths": [6]}}
CPU = torch.device("cpu")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study with one untrained student, and in `in` three images as the student sees them."""
    folder = untrained(tmp_path / "study", {"small": SMALL})
    save_images(folder / "in", pixels(np.random.default_rng(1), 3, (8, 8)))
    return folder


def save_images(folder: Path, images: Any) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(folder / f"{number}.png") for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(name)
    return names


def parsed(capsys: Capture) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_what_it_says_is_the_networks_softmax(run: Run, capsys: Capture, small: Path) -> None:
    assert run(small, "predict", "small", "in", "--json") == 0
    found = parsed(capsys)
    images = torch.from_numpy(pixels(np.random.default_rng(1), 3, (8, 8)))[:, None]
    with torch.no_grad():
        expected = network_of(small, "small")(images).double().softmax(1)
    assert [each["file"] for each in found] == ["in/0.png", "in/1.png", "in/2.png"]
    for each, row in zip(found, expected, strict=True):
        assert each["class"] == CLASSES[int(row.argmax())]
        assert each["probability"] == max(each["probabilities"].values()) == pytest.approx(float(row.max()), abs=1e-12)
        assert [each["probabilities"][name] for name in CLASSES] == pytest.approx(row.tolist(), abs=1e-12)
        assert list(each["probabilities"].values()) == sorted(each["probabilities"].values(), reverse=True)
    assert run(small, "predict", "small", "in/2.png", "--json", "--top", "2") == 0
    (one,) = parsed(capsys)
    assert list(one["probabilities"]) == list(found[2]["probabilities"])[:2]


def test_a_table_for_people(run: Run, capsys: Capture, small: Path) -> None:
    assert run(small, "predict", "small", "in", "--json") == 0
    expected = parsed(capsys)
    for arguments, runners in (((), 1), (("--top", "1"), 0), (("--top", "3"), 2)):
        assert run(small, "predict", "small", "in", *arguments) == 0
        shown = capsys.readouterr().out
        assert ("runner" in shown) == (runners > 0)
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
        assert [row[:2] for row in rows] == [[each["file"], each["class"]] for each in expected]
        for row, each in zip(rows, expected, strict=True):
            percents = [f"{100 * p:.2f} %" for p in each["probabilities"].values()]
            assert row[2] == percents[0]
            assert runners == 0 or [part.split(" ", 1)[1] for part in row[3].split(", ")] == percents[1 : 1 + runners]
    assert "--top: expected at most 3, the student's classes, found 4" in refused(
        run, capsys, small, "predict", "small", "in", "--top", "4"
    )


def test_an_exported_folder_says_the_same_bit_for_bit_without_the_study(
    run: Run, capsys: Capture, made: Path, tmp_path: Path
) -> None:
    names = save_images(tmp_path / "in", pixels(np.random.default_rng(1), 30, (8, 8)))
    assert run(made, "predict", "kd", *names, "--json", "--seed", "1") == 0
    expected = capsys.readouterr().out
    assert len(json.loads(expected)) == 30
    assert run(made, "export", "kd", "--seed", "1", "--to", str(tmp_path / "out")) == 0
    capsys.readouterr()
    for folder, student in ((made, str(tmp_path / "out")), (tmp_path, "out"), (tmp_path / "out", ".")):
        assert run(folder, "predict", student, *names, "--json") == 0
        assert capsys.readouterr().out == expected
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "out").rename(alone / "moved")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "stages.main", "predict", "moved", *names, "--json"],
        cwd=alone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (expected, "")
    assert run(made, "predict", "kd", *names, "--json", "--seed", "0") == 0
    assert capsys.readouterr().out != expected, "the seeds say the same"


def test_test_images_as_files_give_the_accuracy_of_the_card(
    run: Run, capsys: Capture, made: Path, tmp_path: Path
) -> None:
    digits = load_dataset(made / "data/prepared/digits")
    rows = digits.rows("test")
    save_images(tmp_path / "in", digits.images[rows][:, 0])
    assert run(made, "predict", "kd", str(tmp_path / "in"), "--json") == 0
    said = {int(Path(each["file"]).stem): int(each["class"]) for each in parsed(capsys)}
    right = [said[number] == label for number, label in enumerate(digits.labels[rows])]
    card = json.loads((made / "data/students/kd/seed-0/card.json").read_text())
    assert np.mean(right) == card["test_accuracy"]


def test_which_student_is_meant(run: Run, capsys: Capture, small: Path, tmp_path: Path) -> None:
    image = str(small / "in/0.png")
    assert run(small, "export", "small", "--to", str(small / "out")) == 0
    assert run(small, "predict", "out", image) == 0  # beside params.yaml, too

    def message(folder: Path, *arguments: str) -> str:
        return refused(run, capsys, folder, "predict", *arguments)

    assert "students: unknown name 'nobody'" in message(small, "nobody", image)
    assert "neither such a folder nor that file" in message(tmp_path, "nobody", image)
    assert "found no card.json in it" in message(tmp_path, "./nobody", image)
    assert "found no card.json in it" in message(small, "in", image)
    assert "a card of something else; name a student, or export it first" in message(
        small, "data/students/small/seed-0", image
    )
    (small / "out").rename(small / "small")
    both = "found a student of params.yaml and an exported folder; write ./small for the folder"
    assert both in message(small, "small", image)
    assert run(small, "predict", "./small", image) == 0
    assert "--seed: expected 0, the exported one, found 1" in message(small, "./small", image, "--seed", "1")
    assert run(small, "predict", "./small", image, "--seed", "0") == 0
    assert run(tmp_path, "predict", "study/small", "study/in/0.png") == 0  # paths start where the user stands
    shutil.rmtree(small / "small")
    assert "--seed: expected 0 to 0, the seeds of small, found 1" in message(small, "small", image, "--seed", "1")
    assert run(tmp_path, "predict", "small", "study/in/0.png", "--params", str(small / "params.yaml")) == 0


# What a folder of photographs may hold: mode, height, width, and how it is saved.
PHOTOS: dict[str, Callable[[Path, Image.Image], None]] = {
    "colour.png": lambda path, image: image.save(path),
    "wide.jpg": lambda path, image: image.resize((40, 17)).save(path),
    "tall.bmp": lambda path, image: image.resize((9, 31)).save(path),
    "grey.png": lambda path, image: image.convert("L").save(path),
    "clear.png": lambda path, image: Image.merge("RGBA", [*image.split(), image.convert("L")]).save(path),
    "palette.gif": lambda path, image: image.quantize(8).save(path, transparency=2),
    "bits.png": lambda path, image: image.convert("1").save(path),
    "turned.jpg": lambda path, image: image.save(path, exif=turned()),
    "print.tif": lambda path, image: image.convert("CMYK").save(path),
}


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    return exif


@pytest.mark.parametrize("grey", [True, False])
def test_images_are_converted_as_the_data_set_was(run: Run, tmp_path: Path, grey: bool) -> None:
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("any", "other"):
            (tmp_path / "photos" / part / label).mkdir(parents=True)
        for name, save in PHOTOS.items():
            for label in ("any", "other"):
                save(tmp_path / "photos" / part / label / name, Image.fromarray(pixels(generator, 1, (20, 26, 3))[0]))
    write_study(
        tmp_path, {"datasets": {"photos": {"source": "imagefolder", "root": "photos", "size": 12, "grey": grey}}}
    )
    assert run(tmp_path, "prepare", "photos") == 0
    dataset = load_dataset(tmp_path / "data/prepared/photos")
    shape = (1 if grey else 3, 12, 12)
    assert dataset.shape == shape
    files, _ = find_images(["photos/train", "photos/test"], tmp_path)
    assert len(files) == 4 * len(PHOTOS)
    for row, file in enumerate(files):
        assert np.array_equal(read_image(file, shape, Decoder()), dataset.images[row]), file.where
    assert len(np.unique(dataset.images[:], axis=0)) == len(dataset)


def test_images_that_are_not_square(run: Run, capsys: Capture, tmp_path: Path) -> None:
    image = Image.fromarray(pixels(np.random.default_rng(0), 1, (30, 50, 3))[0])
    for shape in ((3, 9, 14), (1, 9, 14), (3, 14, 9)):
        made = fit_to_shape(image, shape)
        assert made.shape == shape
        assert np.array_equal(fit_to_shape(Image.fromarray(np.moveaxis(made, 0, -1).squeeze()), shape), made)
    square = fit_to_shape(image, (3, 10, 10))
    assert np.array_equal(square, fit_image(image, 10, grey=False))
    half = Image.fromarray(np.repeat(np.repeat(np.moveaxis(square, 0, -1), 2, 0), 4, 1))  # 20 high, 40 wide
    assert fit_to_shape(half, (3, 10, 20)).shape == (3, 10, 20)
    folder = untrained(tmp_path / "study", {"net": {"model": {"name": "cnn", "widths": [2, 3]}}}, (3, 9, 14))
    image.save(tmp_path / "photo.jpg")
    assert run(folder, "predict", "net", str(tmp_path / "photo.jpg"), "--json") == 0
    with torch.no_grad():
        with Image.open(tmp_path / "photo.jpg") as opened:
            seen = torch.from_numpy(np.ascontiguousarray(fit_to_shape(opened, (3, 9, 14))))[None]
        expected = network_of(folder, "net")(seen).double().softmax(1)[0]
    assert parsed(capsys)[0]["probability"] == pytest.approx(float(expected.max()), abs=1e-12)


def spoiled(kind: str, path: Path) -> None:
    image = Image.fromarray(pixels(np.random.default_rng(0), 1, (8, 8))[0])
    image.save(path)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "no image":
        path.write_text("no image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "a pipe":
        path.unlink()
        os.mkfifo(path)
    elif kind == "a folder without images":
        path.unlink()
        path.mkdir()
        (path / "notes.txt").write_text("")
    elif kind == "16 bits":
        Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(path)
    elif kind == "a bomb":
        Image.new("1", (16_400, 16_400)).save(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut short", "expected an image, found"),
        ("no image", "expected an image, found no format that Pillow knows"),
        ("empty", "expected an image, found no format that Pillow knows"),
        ("missing", "expected an image file, or a folder of them, found nothing there"),
        ("a pipe", "expected an image file, or a folder of them, found no regular file"),
        ("a folder without images", "found none in this folder"),
        ("16 bits", "more than 8 bits"),
        ("a bomb", "expected an image of at most 268 megapixels, found a larger one; make it smaller or leave it out"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_one_bad_image_among_good_ones_is_named_and_nothing_is_printed(
    run: Run, capsys: Capture, small: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str, as_json: bool
) -> None:
    monkeypatch.setattr(room, "MOST_IMAGES", 2)
    spoiled(kind, small / "bad.png")
    good = [f"in/{number}.png" for number in range(3)]
    capsys.readouterr()
    assert run(small, "predict", "small", *good, "bad.png", "in", *(["--json"] if as_json else [])) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: bad.png: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_folders_give_their_images_in_order_and_nothing_hidden(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.jpeg", "a.tif", ".hidden.png", ".git/x.png", "b/.y.png", "notes.txt", "b/z.npy"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    (tmp_path / "in/folder.png").mkdir()
    found, notices = find_images(["in", "./in/b", "in/notes.txt"], tmp_path)
    assert [file.where for file in found] == [
        "in/a.tif", "in/b/10.jpeg", "in/b/2.PNG", "in/b/10.jpeg", "in/b/2.PNG", "in/notes.txt"
    ]  # fmt: skip
    assert notices == ["left out: 3 files that are no images (in/b/z.npy, in/b/z.npy, in/notes.txt)"]
    for file in found:
        with file.open() as opened:
            assert opened.read() == b""


def test_what_is_left_out_or_huge_is_said_beside_the_answers(
    run: Run, capsys: Capture, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(small, "predict", "small", "in", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    (small / "in/notes.txt").write_text("")
    Image.fromarray(pixels(np.random.default_rng(3), 1, (9, 8))[0]).save(small / "in/without a suffix", "JPEG")
    monkeypatch.setattr(image_files, "HUGE_PIXELS", 64)
    for arguments in (["--json"], []):
        assert run(small, "predict", "small", "in", *arguments) == 0
        said = capsys.readouterr()
        assert said.err.splitlines() == [
            "note: left out: a file that is no image (in/notes.txt)",
            "note: 1 image has more than 0 megapixels and takes long to read: in/without a suffix",
        ]
        assert "in/without a suffix" in said.out
    assert run(small, "predict", "small", "in", "--json") == 0
    assert [each["file"] for each in parsed(capsys)][:3] == [each["file"] for each in json.loads(printed.out)]


def test_names_too_long_and_folders_that_cannot_be_walked_are_refused(run: Run, capsys: Capture, small: Path) -> None:
    for name in ("x" * 300, "x/" * 2500, "a\0b"):
        assert "expected an image file, or a folder of them, found" in refused(
            run, capsys, small, "predict", "small", name
        )
    (small / "in/around").symlink_to("..")
    assert "in/around: expected a file or folder that can be read, found a link that leads" in refused(
        run, capsys, small, "predict", "small", "in"
    )


@pytest.mark.parametrize("given", [[""], ["in", ""], ["", "in"]])
def test_an_empty_name_is_refused(run: Run, capsys: Capture, small: Path, given: list[str]) -> None:
    line = refused(run, capsys, small, "predict", "small", *given)
    assert "images: expected an image file, or a folder of them, found an empty name; name one" in line


@pytest.mark.parametrize("name", ["a.zip", "a.ZIP", "a.tar.gz", "a.7z"])
def test_an_archive_is_to_be_unpacked(run: Run, capsys: Capture, small: Path, name: str) -> None:
    (small / name).write_bytes(b"PK\3\4")
    line = refused(run, capsys, small, "predict", "small", "in", name)
    assert f"{name}: expected an image, found an archive; unpack it" in line


def test_batches_are_bounded_in_images_and_in_bytes(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network, sizes = network_of(small, "small"), []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    names = save_images(tmp_path / "many", pixels(np.random.default_rng(2), 11, (8, 8)))
    files, _ = find_images(names, tmp_path)
    whole = predict_logits(network, files, (1, 8, 8), CPU)
    monkeypatch.setattr(room, "MOST_IMAGES", 4)
    by_four = predict_logits(network, files, (1, 8, 8), CPU)
    monkeypatch.setattr(room, "BATCH_BYTES", 3 * 64)
    by_three = predict_logits(network, files, (1, 8, 8), CPU)
    monkeypatch.setattr(room, "BATCH_BYTES", 1)
    predict_logits(network, files[:2], (1, 8, 8), CPU)
    assert sizes == [11, 4, 4, 3, 3, 3, 3, 2, 1, 1]
    np.testing.assert_allclose(by_four, whole, atol=1e-5)
    np.testing.assert_allclose(by_three, whole, atol=1e-5)
    assert len(np.unique(whole, axis=0)) == 11


def test_images_are_read_batch_by_batch(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So many images as one batch has are in memory, however many are asked for."""
    network, read, seen = network_of(small, "small"), [0], [0]
    (name,) = save_images(tmp_path / "one", pixels(np.random.default_rng(2), 1, (8, 8)))
    whole = room.read_image

    def counted(file: File, shape: tuple[int, int, int], decoder: Decoder) -> Any:
        read[0] += 1
        assert read[0] <= seen[0] + 5, "read ahead of the network"
        return whole(file, shape, decoder)

    monkeypatch.setattr(room, "read_image", counted)
    monkeypatch.setattr(room, "MOST_IMAGES", 5)
    network.register_forward_hook(lambda _, inputs, __: seen.__setitem__(0, seen[0] + len(inputs[0])))
    predict_logits(network, find_images([name] * 52, tmp_path)[0], (1, 8, 8), CPU)
    assert read == seen == [52]


def test_names_do_nothing_to_a_terminal(run: Run, capsys: Capture, tmp_path: Path) -> None:
    classes = ("\x1b[2Jcat", "[red]dog", "e\nel")
    folder = untrained(tmp_path / "study", {"small": SMALL}, classes=classes)
    image = Image.fromarray(np.zeros((8, 8), np.uint8))
    names = ["\x1b]0;owned\x07.png", "[bold].png", os.fsdecode(b"\xff.png")]
    for name in names:
        with (tmp_path / name).open("wb") as file:
            image.save(file, "PNG")
    arguments = "predict", "small", *(str(tmp_path / name) for name in names)
    assert run(folder, *arguments, "--top", "3") == 0
    shown = capsys.readouterr().out
    assert not set("\x1b\x07") & set(shown)
    for wanted in ("\\x1b]0;owned\\x07.png", "[bold].png", "\\udcff.png", "\\x1b[2Jcat", "[red]dog", "e\\nel"):
        assert wanted in shown, wanted
    assert run(folder, *arguments, "--json") == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert [each["file"] for each in json.loads(printed)] == list(arguments[2:])
    (tmp_path / "\x1bbad.png").write_bytes(b"")
    assert "\x1b" not in refused(run, capsys, folder, "predict", "small", str(tmp_path / "\x1bbad.png"))


def test_two_channels_are_neither_grey_nor_colour(run: Run, capsys: Capture, tmp_path: Path) -> None:
    folder = untrained(tmp_path / "study", {"small": SMALL}, (2, 8, 8))
    (name,) = save_images(tmp_path / "in", pixels(np.random.default_rng(1), 1, (8, 8)))
    assert "expected images of 1 or 3 channels" in refused(run, capsys, folder, "predict", "small", name)


def test_logits_that_are_no_numbers_are_refused(small: Path) -> None:
    network = network_of(small, "small")
    with torch.no_grad():
        list(network.parameters())[-1][0] = torch.inf
    with pytest.raises(InputError, match=r"in/0\.png: expected finite logits"):
        predict_logits(network, find_images(["in"], small)[0], (1, 8, 8), CPU)


def test_probabilities_of_large_logits_and_of_equals() -> None:
    assert compute_probabilities(np.array([3e38, 0, -3e38], np.float32)).tolist() == [1, 0, 0]
    assert compute_probabilities(np.array([0, np.log(3)], np.float32)) == pytest.approx([0.25, 0.75], abs=1e-7)
    found = format_answer("x", np.array([1, 2, 2], np.float32), ("a", "b", "c"), 3)
    assert found["class"] == "b"
    assert list(found["probabilities"]) == ["b", "c", "a"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_says_the_same(run: Run, capsys: Capture, small: Path) -> None:
    said = []
    for device in ("cpu", "cuda"):
        assert run(small, "predict", "small", "in", "--json", "--device", device) == 0
        said.append(parsed(capsys))
    for cpu, cuda in zip(*said, strict=True):
        assert cuda["probabilities"] == pytest.approx(cpu["probabilities"], abs=1e-5)
