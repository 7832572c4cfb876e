"""People's image files: links, suffixes, texts between them, odd zips, parts and classes where nobody expects them."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image, features

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json
from pipeline.cache.manifest import MAX_MANIFEST_BYTES
from pipeline.datasets import file_trees, image_files
from pipeline.datasets import prepare as prepared_by
from pipeline.datasets.dataset import Dataset, load_dataset, save_dataset
from pipeline.datasets.file_trees import File
from pipeline.datasets.image_files import Decoder, is_image
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place, RawDataset, fit_image
from pipeline.datasets.split import Folds
from pipeline.export.predict import find_images
from pipeline.study.params_file import parse_study
from tests.conftest import Capture, Run, write_study
from tests.conftest import refused as command_refused
from tests.data_files import assert_holds, picture_raw, png, refused, some, tree, write_idx, write_tree, write_zip

RAW = picture_raw()  # 12 + 11 images (3, 6, 5) of the classes c00, c01, c02
FILES = tree(RAW)
Files = Mapping[str, bytes]


def read(root: Path, **options: Any) -> Dataset:
    return prepare_dataset("mine", "imagefolder", Place("mine", str(root)), options=options)


def encoded(form: str, seed: int = 0) -> bytes:
    """A picture in a format, of the size of `RAW`'s."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(file, form)
    return file.getvalue()


def in_folder(place: Path, files: Files) -> Path:
    for name in files:
        if name.endswith("/"):
            (place / name).mkdir(parents=True, exist_ok=True)
    return write_tree(place, {name: data for name, data in files.items() if not name.endswith("/")})


def in_zip(place: Path, files: Files) -> Path:
    return write_zip(place / "all.zip", files)


def linked_zip(path: Path, files: Files, links: Mapping[str, str]) -> Path:
    """A zip that holds links, as `zip -y` makes them."""
    write_zip(path, files)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, target in links.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return path


BOTH = pytest.mark.parametrize("lay_out", [in_folder, in_zip])
LayOut = Callable[[Path, Files], Path]


# ------------------------------------------------------------------ links


@pytest.mark.parametrize("linked", ["class folders", "parts", "files", "the root", "a link to a link"])
def test_links_are_followed(tmp_path: Path, linked: str) -> None:
    write_tree(tmp_path / "all", FILES)
    photos = tmp_path / "photos"
    if linked == "class folders":
        write_tree(photos, {name: data for name, data in FILES.items() if "c01" not in name})
        for part in ("train", "test"):
            (photos / part / "c01").symlink_to(tmp_path / "all" / part / "c01")
    elif linked == "parts":
        photos.mkdir()
        for part in ("train", "test"):
            (photos / part).symlink_to(Path("../all") / part)
    elif linked == "files":
        for name in FILES:
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            (photos / name).symlink_to(tmp_path / "all" / name)
    else:
        (tmp_path / "between").symlink_to("all")
        photos.symlink_to("all" if linked == "the root" else "between")
    dataset = read(photos)
    assert_holds(dataset, RAW)
    assert (dataset.classes, dataset.notices) == (RAW.classes, ())
    found, said = find_images(["photos/test"], tmp_path)
    assert len(found) == len(RAW.test_labels)
    assert said == []


def test_links_in_a_zip_are_followed_inside_of_it(tmp_path: Path) -> None:
    moved = {name.replace("train/c01/", "store/t/x/") if "train/c01/" in name else name: FILES[name] for name in FILES}
    one = "test/c02/" + min(name for name in FILES if name.startswith("test/c02/")).rpartition("/")[2]
    files = {name: data for name, data in moved.items() if name != one} | {"one.png": FILES[one]}
    dataset = read(linked_zip(tmp_path / "a.zip", files, {"train/c01": "../store/t/x", one: "./../../one.png"}))
    assert_holds(dataset, RAW)
    assert dataset.classes == RAW.classes


@pytest.mark.parametrize(
    ("links", "parts"),
    [
        ({"train/c00/l.png": "../../../../etc/passwd"}, ["a.zip:train/c00/l.png: expected a link to files of the zip"]),
        ({"train/c00/l.png": "/etc/passwd"}, ["a.zip:train/c00/l.png", "found one to /etc/passwd"]),
        ({"train/c00/l": ".."}, ["a.zip:train/c00/l", "around the link"]),
        ({"train/c00/l": "l"}, ["a.zip:train/c00/l"]),
        ({"train/c00/l": "m", "train/c00/m": "l"}, ["a.zip:train/c00/l"]),
        ({"train/c03": "../other", "other/c": "../test"}, ["a.zip:train/c03", "zip the files themselves"]),
        ({"train/c00/l": "nowhere.png"}, ["a.zip:train/c00/l", "found one to train/c00/nowhere.png"]),
        ({"train/c00/l": "x" * 5000}, ["a.zip:train/c00/l", "found one to a name of 5,000 bytes"]),
    ],
)
def test_links_in_a_zip_that_cannot_be_followed_are_refused(
    tmp_path: Path, links: dict[str, str], parts: list[str]
) -> None:
    path = linked_zip(tmp_path / "a.zip", {**FILES, "other/1.png": FILES["train/c00/000.png"]}, links)
    with refused(*parts):
        read(path)


@pytest.mark.parametrize(
    ("link", "target", "found"),
    [
        ("train/c00/again", "..", "a link that leads to itself or to a folder around it"),
        ("train/c00/again", "../../../photos", "a link that leads to itself or to a folder around it"),
        ("up", "..", "a link that leads to itself or to a folder around it"),
        ("train/up", "../../../", "a link that leads to itself or to a folder around it"),
        ("train/c00/root", "/", "a link that leads to itself or to a folder around it"),
        ("train/me", "me", "a link that leads to itself or to a folder around it"),
        ("train/c00/gone.png", "/nowhere/gone.png", "a link that leads nowhere; mend the link or remove it"),
        ("gone", "nowhere", "a link that leads nowhere; mend the link or remove it"),
    ],
)
def test_links_that_lead_nowhere_or_around_are_refused(tmp_path: Path, link: str, target: str, found: str) -> None:
    write_tree(tmp_path / "photos", FILES)
    (tmp_path / "photos" / link).symlink_to(target)
    with refused(f"photos/{link}: expected a file or folder that can be read, found {found}"):
        read(tmp_path / "photos")
    with refused(f"photos/{link}: expected a file or folder that can be read, found {found}"):
        find_images(["photos"], tmp_path)


def test_of_links_that_lead_out_and_back_the_last_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", FILES)
    (tmp_path / "other/deep").mkdir(parents=True)
    (tmp_path / "photos/train/out").symlink_to(tmp_path / "other/deep")
    for target in (tmp_path / "photos", tmp_path / "photos/train", tmp_path / "other", tmp_path):
        (tmp_path / "other/deep/back").symlink_to(target)
        for search in (lambda: read(tmp_path / "photos"), lambda: find_images(["photos"], tmp_path)):
            with refused("photos/train/out/back: expected a file", "found a link that leads to itself or to a folder"):
                search()
        (tmp_path / "other/deep/back").unlink()


def chain(place: Path, length: int) -> None:
    """Folders each of which holds two links to the next."""
    for number in range(length):
        (place / f"s{number}").mkdir(parents=True)
        for name in ("a", "b"):
            (place / f"s{number}/{name}").symlink_to(f"../s{number + 1}")
    write_tree(place, {f"s{length}/1.png": FILES["train/c00/000.png"]})


@pytest.mark.parametrize("length", [12, 60])
def test_links_that_make_many_files_of_few_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(file_trees, "MOST_REPEATED", 1000)
    chain(tmp_path / "store", length)
    write_tree(tmp_path / "photos", FILES)
    (tmp_path / "photos/train/c03").symlink_to("../../store/s0")
    for search in (lambda: read(tmp_path / "photos"), lambda: find_images(["photos"], tmp_path)):
        with refused(
            "photos: expected links that lead to at most 1,000 files and folders a second time, found more, the last of "
            "them in ",
            "photos/train/c03/",
            "; remove links that lead to the same folders",
        ):
            search()


def test_a_long_chain_of_links_is_followed(tmp_path: Path) -> None:
    chain(tmp_path / "store", 60)
    for number in range(60):
        (tmp_path / f"store/s{number}/b").unlink()
    found, _ = find_images(["store/s0"], tmp_path)
    assert [file.where for file in found] == ["store/s0/" + "a/" * 60 + "1.png"]
    with found[0].open() as opened:
        assert opened.read() == FILES["train/c00/000.png"]


def test_as_many_links_as_there_are_files_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_trees, "MOST_REPEATED", 0)
    write_tree(tmp_path / "all", {f"{n}/{name}": data for n, (name, data) in enumerate(FILES.items())})
    for n in range(len(FILES)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / f"photos/{n}").symlink_to(f"../all/{n}")
    assert len(find_images(["photos"], tmp_path)[0]) == len(FILES)
    (tmp_path / "photos/again").symlink_to("../all/3")
    with refused("photos: expected links that lead to at most 0 files and folders a second time"):
        find_images(["photos"], tmp_path)


def test_links_in_a_zip_that_make_many_files_of_few_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_trees, "MOST_REPEATED", 100)
    store = {f"store/{n:03}.png": b"" for n in range(200)}
    with refused(
        "a.zip: expected links that lead to at most 100 files", "a.zip:train/l1; remove links that lead to the"
    ):
        read(linked_zip(tmp_path / "a.zip", {**FILES, **store}, {f"train/l{n}": "../store" for n in range(9)}))
    moved = {name.replace("train/", "store/"): data for name, data in FILES.items()}
    links = {f"train/c{n:02}": f"../store/c{n:02}" for n in range(3)}
    monkeypatch.setattr(file_trees, "MOST_REPEATED", 0)
    assert_holds(read(linked_zip(tmp_path / "b.zip", moved, links)), RAW)


@pytest.mark.parametrize(
    ("more", "links", "named"),
    [
        ({}, {"train/c00/000.png": "../c01/004.png"}, "train/c00/000.png"),
        ({}, {"train/c01": "c00"}, "train/c01"),
        ({"train/c03/": b""}, {"train/c03": "c00"}, "train/c03"),
        ({"c/1.png": b""}, {"c": "train/c00", "test/l.png": "../c/1.png"}, "c"),
    ],
)
def test_a_link_in_a_zip_of_a_name_that_is_there_is_refused(
    tmp_path: Path, more: Files, links: dict[str, str], named: str
) -> None:
    assert {"train/c00/000.png", "train/c01/004.png"} <= set(FILES)
    path = linked_zip(tmp_path / "a.zip", {**FILES, **more}, links)
    with refused(f"{path}:{named}: expected each name once, found it twice; zip the files again"):
        read(path)


def test_a_zip_with_a_link_twice_is_refused(tmp_path: Path) -> None:
    path = linked_zip(tmp_path / "a.zip", FILES, {"train/c03": "c00"})
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(archive.getinfo("train/c03"), "c00")
    with refused(f"{path}:train/c03: expected each name once, found it twice"):
        read(path)


def test_two_links_that_lead_to_each_other_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, FILES)
    (tmp_path / "train/c00/x").symlink_to("../c01")
    (tmp_path / "train/c01/y").symlink_to("../c00")
    with refused("a link that leads to itself or to a folder around it; remove the link"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("number", "found"), [(errno.EACCES, "no permission to read it"), (errno.EIO, os.strerror(errno.EIO))]
)
def test_a_folder_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, found: str
) -> None:
    write_tree(tmp_path / "photos", FILES)
    scan = os.scandir

    def closed(path: Any) -> Any:
        if Path(path).name == "c01":
            raise OSError(number, "", str(path))
        return scan(path)

    monkeypatch.setattr("pipeline.datasets.file_trees.os.scandir", closed)
    for search in (lambda: read(tmp_path / "photos"), lambda: find_images(["photos"], tmp_path)):
        with refused("/c01: expected a file or folder that can be read", f"found {found}"):
            search()


def test_a_file_that_may_not_be_read_is_refused() -> None:
    def denied() -> io.BytesIO:
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    for name in ("x.png", "x.unknown"):
        with refused(f"{name}: expected an image, found no permission to read it; change its owner or mode"):
            Decoder().read(File(PurePosixPath(name), name, denied), np.asarray)
    with refused("x: expected an image, found no permission to read it"):
        is_image(File(PurePosixPath("x"), "x", denied))


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    write_tree(tmp_path, FILES)
    os.mkfifo(tmp_path / "train/c00/pipe")
    dataset = read(tmp_path)
    assert_holds(dataset, RAW)
    assert dataset.notices == (f"left out: a file that is no image ({tmp_path}/train/c00/pipe)",)


# ------------------------------------------------------------------ which files are images

NAMED = {
    "a.jfif": "JPEG", "b.JPG": "JPEG", "c.Png": "PNG", "no suffix": "PNG", "e.png": "JPEG", "f.dat": "TIFF",
    "g.2024": "WEBP", "h.tga": "TGA", "i.jpe": "JPEG", "j.ico": "BMP", "k.dib": "DIB", "l.ppm": "PPM", "m.heic": "PNG",
}  # fmt: skip
if ".avif" in Image.registered_extensions():
    NAMED |= {"n.avif": "AVIF", "o": "AVIF"}


@BOTH
@pytest.mark.parametrize("name", NAMED)
def test_whatever_pillow_identifies_is_taken(tmp_path: Path, lay_out: LayOut, name: str) -> None:
    data = encoded(NAMED[name])
    dataset = read(lay_out(tmp_path / "photos", {**FILES, f"train/c01/{name}": data}))
    assert (len(dataset), dataset.notices) == (24, ())
    expected = fit_image(Image.open(io.BytesIO(data)), None, grey=False)
    row = sorted([*(each for each in FILES if each.startswith("train")), f"train/c01/{name}"]).index(
        f"train/c01/{name}"
    )
    np.testing.assert_array_equal(dataset.images[row], expected)
    assert dataset.labels[row] == 1


NO_IMAGES = {
    "a.txt": b"P5 is what he wrote", "b.xml": b"<annotation/>", "c.json": b"{}", "empty": b"", "d": b"SIMPLE, isn't it?",
    "e.h": b"#define e_width 3", "f.npy": b"\x93NUMPY\1\0", "g.bin": b"\x28\0\0\0" + bytes(60), "h": b"\0\0\1\0\1\0",
    "i.csv": b"GIF89a,b", "j": b"BM and more", "k.pdf": b"%PDF-1.4", "l.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "m.h5": b"\x89HDF\r\n\x1a\n" + bytes(99), "n.zip": b"PK\5\6" + bytes(18), "o": b"\n\5\1", "p.svg": b"<svg/>",
    "q.mpg": b"\0\0\1\xb3" + bytes(20), "s": encoded("DIB"), "r": b"\xff\xd8\xff",
}  # fmt: skip


@BOTH
def test_what_is_no_image_is_left_out_and_said(tmp_path: Path, lay_out: LayOut) -> None:
    for count in (1, 3, len(NO_IMAGES)):
        some_of_them = dict(list(NO_IMAGES.items())[:count])
        root = lay_out(
            tmp_path / str(count), {**FILES, **{f"test/c02/{name}": data for name, data in some_of_them.items()}}
        )
        dataset = read(root)
        assert_holds(dataset, RAW)
        where = f"{root}{':' if root.is_file() else '/'}test/c02/"
        counted = f"{count} files that are no images" if count > 1 else "a file that is no image"
        names = ", ".join(f"{where}{name}" for name in sorted(some_of_them)[:3])
        more = f" and {count - 3} more" if count > 3 else ""
        assert dataset.notices == (f"left out: {counted} ({names}{more})",)
    if lay_out is in_folder:
        found, said = find_images([f"{count}/test"], tmp_path)
        assert len(found) == len(RAW.test_labels)
        assert said[0].startswith(f"left out: {count} files that are no images ({count}/test/c02/a.txt, ")


@BOTH
def test_files_outside_of_the_class_folders_are_left_out_and_said(tmp_path: Path, lay_out: LayOut) -> None:
    more = {"README": b"", "valid/c00/1.png": b"not looked at", "train/loose.png": b"", "archive/inner.zip": b"PK"}
    root = lay_out(tmp_path / "photos", {**FILES, **more, "train/c00/a.txt": b""})
    dataset = read(root)
    assert_holds(dataset, RAW)
    (line,) = dataset.notices
    between = ":" if root.is_file() else "/"
    assert line == (
        f"left out: a file that is no image ({root}{between}train/c00/a.txt), 4 files outside of train/<class>/ and "
        f"test/<class>/ ({root}{between}README, {root}{between}archive/inner.zip, {root}{between}train/loose.png and "
        "1 more)"
    )


HIDDEN = (
    ".DS_Store", "._a.png", "Thumbs.db", "thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini", ".ipynb_checkpoints/a.png",
    "__MACOSX/a.png", "@eaDir/a.png", ".git/objects/x",
)  # fmt: skip


@BOTH
def test_hidden_files_and_those_of_operating_systems_are_passed_over(tmp_path: Path, lay_out: LayOut) -> None:
    places = ("", "train/", "train/c00/")
    more = {f"{place}{name}": b"x" for place in places for name in HIDDEN}
    more["._all.zip"] = more[".hidden/train/c00/x.png"] = b"x"
    dataset = read(lay_out(tmp_path / "photos", {**FILES, **more}))
    assert_holds(dataset, RAW)
    assert dataset.notices == ()
    if lay_out is in_folder:
        (tmp_path / "photos/train/.gone").symlink_to("nowhere")
        found, said = find_images(["photos"], tmp_path)
        assert (len(found), said) == (23, [])


@BOTH
@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("x.png", b"no image", "found no format that Pillow knows; leave it out or replace it"),
        ("x.JFIF", b"<html>", "found no format that Pillow knows"),
        ("x.webp", b"", "found no format that Pillow knows"),
        ("x.tga", b"text", "expected an image, found"),
        (
            "x.heic",
            b"\0\0\0\x18ftypheic",
            "found no format that this Pillow reads; convert it to JPEG or PNG, or leave",
        ),
        ("x.jxl", b"\xff\x0a", "found no format that this Pillow reads; convert it to JPEG or PNG, or leave it out"),
        ("x", encoded("PNG")[:80], "expected an image, found"),
        ("x.dat", encoded("TIFF")[:-30], "expected an image, found"),
    ],
    ids=["text", "page", "empty", "other text", "heic", "jxl", "half a PNG", "cut TIFF"],
)
def test_what_bears_an_images_suffix_and_is_none_is_refused(
    tmp_path: Path, lay_out: LayOut, name: str, data: bytes, found: str
) -> None:
    root = lay_out(tmp_path / "photos", {**FILES, f"train/c01/{name}": data})
    with refused(f"train/c01/{name}: expected an image", found):
        read(root)


def test_damaged_images_of_any_format_are_told_in_one_line() -> None:
    generator = np.random.default_rng(0)
    told = 0
    for form in (
        "PNG",
        "GIF",
        "TIFF",
        "BMP",
        "ICNS",
        "ICO",
        "TGA",
        "PPM",
        "WEBP",
        "JPEG2000",
        "DDS",
        "SGI",
        "PCX",
        "JPEG",
    ):
        if form == "JPEG2000" and not features.check("jpg_2000"):
            continue
        whole = np.frombuffer(encoded(form), np.uint8)
        for _ in range(30):
            data = whole.copy()
            data[generator.integers(0, min(len(data), 64), 2)] = generator.integers(0, 256, 2)
            data = data[: generator.integers(len(data) // 2, len(data) + 1)]
            file = File(PurePosixPath(f"x.{form.lower()}"), "x", lambda data=data: io.BytesIO(data.tobytes()))  # type: ignore[misc]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    is_image(file)
                    Decoder().read(file, lambda image: fit_image(image, 4, grey=False))
                except InputError:  # all else is a bug
                    told += 1
    assert told > 100


def test_huge_images_are_read_and_said_and_the_largest_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "HUGE_PIXELS", 29)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow would warn of 30 pixels, and refuse them
    write_tree(tmp_path, {name: FILES[name] for name in FILES if "c02" not in name})
    write_tree(
        tmp_path,
        {f"{part}/c02/{n}": png(np.full((3, 5, 5), n, np.uint8)) for part in ("train", "test") for n in (1, 2)},
    )
    dataset = prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path)), size=5)
    huge = sorted(str(tmp_path / name) for name in FILES if "c02" not in name)
    (line,) = dataset.notices[:1]
    assert line == (
        f"{len(huge)} images have more than 0 megapixels and take long to read: {', '.join(huge[:3])} and "
        f"{len(huge) - 3} more"
    )
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(image_files, "MOST_PIXELS", 28)
    with refused("expected an image of at most 0 megapixels, found a larger one; make it smaller or leave it out"):
        prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path)), size=5)
    assert image_files.is_image(File(PurePosixPath("x"), "x", lambda: io.BytesIO(FILES["train/c00/000.png"])))


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MOST_BYTES", 1000)
    path = write_zip(tmp_path / "a.zip", {**FILES, "train/c00/x.png": bytes(50_000)}, zipfile.ZIP_DEFLATED)
    with refused(f"{path}:train/c00/x.png: expected an image, found a file of more than 1,000 bytes"):
        read(path)


# ------------------------------------------------------------------ zips


@pytest.mark.parametrize(
    ("member", "found"),
    [("../train/c00/x.png", "one that leads out"), ("/train/c00/x.png", "one that leads out")],
)
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path: Path, member: str, found: str) -> None:
    path = write_zip(tmp_path / "a.zip", {**FILES, member: b"x"})
    with refused(f"{path}:{member}: expected a name inside the zip, found {found}; zip the files again"):
        read(path)


def test_a_zip_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("train/c00/000.png", FILES["train/c00/000.png"])
    with refused(f"{path}:train/c00/000.png: expected each name once, found it twice"):
        read(path)


def test_zips_of_windows_and_with_capital_suffixes(tmp_path: Path) -> None:
    write_zip(tmp_path / "one/A.ZIP", {name.replace("/", "\\"): data for name, data in FILES.items()})
    assert_holds(read(tmp_path / "one"), RAW)
    (tmp_path / "images.tar.gz").write_bytes(b"\x1f\x8b")
    with refused("images.tar.gz: expected a whole zip file", "unpack it, or zip the images"):
        read(tmp_path / "images.tar.gz")
    damaged = bytearray((tmp_path / "one/A.ZIP").read_bytes())
    flag = damaged.rindex(b"PK\1\2") + 9  # of the name: it is UTF-8
    damaged[flag] |= 8
    name = damaged.rindex(b"PK\1\2") + 46
    damaged[name : name + 2] = b"\xff\xfe"
    (tmp_path / "one/A.ZIP").write_bytes(damaged)
    with refused("A.ZIP: expected a whole zip file, found", "fetch it again"):
        read(tmp_path / "one")


def test_the_same_part_in_two_zips_may_hold_other_images_but_not_the_same(tmp_path: Path) -> None:
    half = {name: data for number, (name, data) in enumerate(sorted(FILES.items())) if number % 2}
    write_zip(tmp_path / "a.zip", half)
    write_zip(tmp_path / "b.zip", {f"top/{name}": data for name, data in FILES.items() if name not in half})
    assert sorted(row.tobytes() for row in read(tmp_path).images[:12]) == sorted(
        row.tobytes() for row in RAW.train_images
    )
    again = min(half)
    write_zip(
        tmp_path / "b.zip", {f"top/{name}": data for name, data in FILES.items() if name not in half or name == again}
    )
    with refused(f"expected each image once, found {tmp_path}/a.zip:{again} and {tmp_path}/b.zip:top/{again}"):
        read(tmp_path)


# ------------------------------------------------------------------ parts and classes


def moved(train: str, test: str) -> dict[str, bytes]:
    places = {"train": train, "test": test}
    return {f"{places[name.partition('/')[0]]}/{name.partition('/')[2]}": data for name, data in FILES.items()}


@BOTH
@pytest.mark.parametrize(
    ("files", "options"),
    [
        (moved("seg_train/seg_train", "seg_test/seg_test"), {"train_folder": "seg_train", "test_folder": "seg_test"}),
        (moved("a/seg/seg/seg", "a/test"), {"train_folder": "seg"}),
        (moved("images/train", "images/val"), {"train_folder": "images/train", "test_folder": "images/val"}),
        (moved("x/images/train", "val"), {"train_folder": "./images/train/", "test_folder": "val"}),
        (moved("images/train", "images/val"), {"train_folder": "train", "test_folder": "val"}),
        (moved("images", "images/test"), {"train_folder": "images", "test_folder": "images/test"}),
        (moved(".", "test"), {"train_folder": "."}),
        (moved("photos/train", "other/test"), {}),
    ],
)  # fmt: skip
def test_parts_are_found_where_they_lie(tmp_path: Path, lay_out: LayOut, files: Files, options: dict[str, str]) -> None:
    dataset = read(lay_out(tmp_path / "photos", files), **options)
    assert_holds(dataset, RAW)
    assert (dataset.classes, dataset.notices) == (RAW.classes, ())


@BOTH
@pytest.mark.parametrize("named", ["c01", "seq1"])
def test_a_part_with_texts_alone_is_no_second_place(tmp_path: Path, lay_out: LayOut, named: str) -> None:
    labels = {f"labels/{name[:-4]}.txt".replace("c01", named): b"0 0.5 0.5 1 1" for name in FILES}
    dataset = read(lay_out(tmp_path / "photos", {**moved("images/train", "images/test"), **labels}))
    assert_holds(dataset, RAW)
    assert dataset.notices[0].startswith("left out: 23 files that are no images (")


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("zipped", ["all.zip", "train.zip and test.zip"])
@pytest.mark.parametrize("inside", ["", ".DS_Store", "notes.txt"])
def test_an_empty_class_folder_beside_a_zip_is_refused(tmp_path: Path, part: str, zipped: str, inside: str) -> None:
    if zipped == "all.zip":
        write_zip(tmp_path / "photos/all.zip", FILES)
    else:
        for each in ("train", "test"):
            classes = {name[len(each) + 1 :]: data for name, data in FILES.items() if name.startswith(each)}
            write_zip(tmp_path / f"photos/{each}.zip", classes)
    (tmp_path / f"photos/{part}/c00").mkdir(parents=True)
    assert_holds(read(tmp_path / "photos"), RAW)  # the class has its images in the zip
    (tmp_path / f"photos/{part}/fish").mkdir()
    if inside:
        (tmp_path / f"photos/{part}/fish/{inside}").write_text("")
    with refused(
        f"photos/{part}/fish: expected at least one image in each class folder, found none; remove the folder"
    ):
        read(tmp_path / "photos")


def test_labels_beside_a_zip_are_left_out_and_said(tmp_path: Path) -> None:
    write_zip(tmp_path / "photos.zip", FILES)
    labels = {f"labels/{name[:-4]}.txt": b"0 0.5 0.5 1 1" for name in FILES}
    write_tree(tmp_path, {**labels, **{f"marks/{name}": data for name, data in labels.items()}})
    dataset = read(tmp_path)
    assert_holds(dataset, RAW)
    assert dataset.notices[0].startswith("left out: 46 files that are no images (")


@BOTH
@pytest.mark.parametrize("other", ["photos/", "a/b/", "copy/of/"])
def test_a_part_at_two_places_is_refused(tmp_path: Path, lay_out: LayOut, other: str) -> None:
    root = lay_out(tmp_path / "x", {**FILES, **{f"{other}{name}": data for name, data in FILES.items()}})
    within = f"{root}{':' if root.is_file() else '/'}"
    with refused(
        "expected one folder train, found ", f"{within}train (12", f"{within}{other}train (12", "remove the copy"
    ):
        read(root)


@BOTH
def test_a_class_that_bears_a_parts_name_is_none(tmp_path: Path, lay_out: LayOut) -> None:
    for deeper in ("", "more/"):
        names = {"c00": f"test/{deeper}", "c01": f"train/{deeper}", "c02": f"val/{deeper}"}
        files = {"/".join((part, names[label] + image)): data for (part, label, image), data in
                 ((name.split("/"), data) for name, data in FILES.items())}  # fmt: skip
        dataset = read(lay_out(tmp_path / f"photos{len(deeper)}", files))
        assert_holds(dataset, RAW)
        assert dataset.classes == ("test", "train", "val")


@BOTH
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"train/c03/": b"", "test/c03/": b""},
            ["train/c03: expected at least one image in each class folder", "found none"],
        ),
        (
            {"train/c03/": b""},
            ["train/c03: expected at least one image in each class folder", "remove the folder, or put"],
        ),
        ({"test/c03/a.txt": b"", "train/c03/a.png": b"x"}, ["test/c03: expected at least one image"]),
        ({"train/c03/deeper/": b"", "train/c04/": b""}, ["train/c03", "train/c04: expected at least one image"]),
        ({"train/c03/._a.png": b"x"}, ["expected"] * 0),
        ({"train/c03/a.png": b"x"}, ["found only in train: c03; put images into test/c03, or take train/c03 away"]),
        ({"test/c03/a.png": b"x"}, ["found only in test: c03; put images into train/c03, or take test/c03 away"]),
        (
            {f"test/c{n}/a.png": b"x" for n in range(3, 8)},
            ["found only in test: c3, c4, c5 and 2 more; put images into train/c3"],
        ),
        (
            {"train/C9/a.png": b"x", "test/c9/a.png": b"x"},
            ["only in train: C9; only in test: c9; rename one of 'C9' and 'c9'"],
        ),
        (
            {"train/k\xe4tz/a.png": b"x", "test/ka\u0308tz/a.png": b"x"},
            [r"rename one of 'k\xe4tz' and 'ka\u0308tz'", "accents"],
        ),
        (
            {"train/c00/c00/0.png": b"x"},
            ["the images of a class at one depth", "train/c00/000.png and ", "c00/c00/0.png"],
        ),
        ({"test/c01/deep/er/0.png": b"x"}, ["the images of a class at one depth", "remove the copies, or move them"]),
    ],
)
def test_class_folders_that_do_not_fit_are_refused(
    tmp_path: Path, lay_out: LayOut, change: dict[str, bytes], parts: list[str]
) -> None:
    root = lay_out(tmp_path / "photos", {**FILES, **change})
    if not parts:  # a folder with hidden files alone is empty: in a zip it is not even there
        parts = ["train/c03: expected at least one image"] if lay_out is in_folder else []
    if parts:
        with refused(*parts):
            read(root)
    else:
        assert_holds(read(root), RAW)


@BOTH
def test_where_images_were_seen_is_said(tmp_path: Path, lay_out: LayOut) -> None:
    root = lay_out(tmp_path / "photos", {**moved("seg/seg_train", "seg/test"), "seg/notes.txt": b""})
    with refused(
        f"image folder {root}: expected images in train/<class>/, found none; what there is lies in seg, "
        "seg/seg_train/c00, seg/seg_train/c01 and 1 more; lay them out so"
    ):
        read(root)


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", {name: data for name, data in FILES.items() if "c01" in name})
    with refused("classes: expected images of at least two, found those of c01 alone; add another class"):
        read(tmp_path / "photos")
    raw = some((1, 4, 4))
    write_idx(
        tmp_path / "mnist", RawDataset(raw.train_images, raw.train_labels * 0, raw.test_images, raw.test_labels * 0, ())
    )
    with refused("classes: expected images of at least two, found those of 0 alone"):
        prepare_dataset("mine", "mnist", Place("mnist", str(tmp_path / "mnist")))


# ------------------------------------------------------------------ names


@BOTH
@pytest.mark.parametrize(
    "name",
    [
        "d\no\tg",
        "\x1b[2J",
        "$\\frac$",
        "a|b`c<d>",
        "\u202egnp",
        " ",
        "k\xe4tzchen",
        "\U0001f408",
        "x" * 255,
        "-",
        "~",
        "#1",
    ],
)
def test_class_names_may_be_any_text(tmp_path: Path, lay_out: LayOut, name: str) -> None:
    files = {each.replace("c01", name): data for each, data in FILES.items()}
    dataset = read(lay_out(tmp_path / "photos", files))
    assert set(dataset.classes) == {"c00", name, "c02"}
    save_dataset(dataset, tmp_path / "made")
    assert load_dataset(tmp_path / "made").classes == dataset.classes
    with refused("train/"):
        read(lay_out(tmp_path / "photos", {**files, f"train/{name}/bad.png": b""}))


def test_a_class_name_that_is_no_utf8_is_refused(run: Run, capsys: Capture, tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", FILES)
    for part in ("train", "test"):
        (tmp_path / "photos" / part / "c01").rename(tmp_path / "photos" / part / os.fsdecode(b"ch\xe9vre"))
    write_study(tmp_path, {"datasets": {"photos": {"source": "imagefolder", "root": "photos"}}})
    error = command_refused(run, capsys, tmp_path, "prepare", "photos")
    assert "class 'ch\\udce9vre': expected a name in UTF-8, found other bytes; rename its folder" in error
    assert not (tmp_path / "data/prepared/photos").exists()


def test_names_that_a_reader_of_caches_has_no_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = {name.replace("c01", "\u00e9" * 4096): data for name, data in FILES.items()}
    classes = read(write_zip(tmp_path / "a.zip", longest)).classes
    assert max(map(len, classes)) == 4096
    assert len(encode_json(list(classes))) > 6 * 4096
    assert 2 * prepared_by.MOST_CLASS_BYTES <= MAX_MANIFEST_BYTES
    monkeypatch.setattr(prepared_by, "MOST_CLASS_BYTES", 6 * 4096)
    with refused("the names of 3 classes: expected at most 24,576 bytes of JSON", "found 24,594; shorten the names"):
        read(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("root", "found"),
    [("x" * 4096, "File name too long"), ("x/" * 2100, "File name too long"), ("~nobody-here/x", "home directory")],
)
def test_roots_that_no_file_system_has_are_refused(root: str, found: str) -> None:
    with refused("expected a folder, found ", found):
        read(Path(root))


# ------------------------------------------------------------------ the same picture twice


def with_copies() -> dict[str, bytes]:
    """One training image thrice, one test image among the training images."""
    twice = {f"train/c00/{name}": FILES["train/c00/000.png"] for name in ("again.png", "more.png")}
    test = min(name for name in FILES if name.startswith("test/c02"))
    return {**FILES, **twice, "train/c02/leak.png": FILES[test]}


def test_copies_are_counted_said_and_kept_in_the_record(run: Run, capsys: Capture, tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", with_copies())
    write_study(tmp_path, {"datasets": {"photos": {"source": "imagefolder", "root": "photos"}}})
    (tmp_path / "photos/train/c00/notes.txt").write_text("")
    assert run(tmp_path, "prepare", "photos") == 0
    printed = capsys.readouterr()
    assert printed.out == "photos: 15 train, 0 validation, 11 test images of (3, 6, 5), 3 classes\n"
    test = min(name for name in FILES if name.startswith("test/c02"))
    pair = f"photos/train/c02/leak.png and photos/{test}"
    counts = "3 of 26 images are exact copies of others, and 1 picture stands in more than one split"
    assert printed.err.splitlines() == [
        "note: photos: left out: a file that is no image (photos/train/c00/notes.txt)",
        f"note: photos: {counts}, such as {pair}",
    ]
    card = json.loads((tmp_path / "data/prepared/photos/dataset.json").read_text())
    assert card["duplicates"] == {"copies": 3, "across_splits": 1}
    back = load_dataset(tmp_path / "data/prepared/photos")
    assert (back.duplicates, back.notices) == (card["duplicates"], ())
    save_dataset(back, tmp_path / "again")
    assert json.loads((tmp_path / "again/dataset.json").read_text()) == card


def test_without_copies_the_record_says_nothing_of_them(tmp_path: Path) -> None:
    save_dataset(read(write_tree(tmp_path / "photos", FILES)), tmp_path / "made")
    assert "duplicates" not in json.loads((tmp_path / "made/dataset.json").read_text())
    assert load_dataset(tmp_path / "made").duplicates is None


def test_copies_are_dropped_from_the_training_images_first(tmp_path: Path) -> None:
    place = Place("mine", str(write_tree(tmp_path, with_copies())))
    dataset = prepare_dataset("mine", "imagefolder", place, duplicates="drop")
    np.testing.assert_array_equal(dataset.images, np.concatenate([RAW.train_images, RAW.test_images]))
    assert dataset.duplicates == {"dropped": 3}
    example = f"{tmp_path}/train/c00/again.png, a copy of {tmp_path}/train/c00/000.png"
    assert dataset.notices == (f"3 images dropped: exact copies of others, such as {example}",)
    kept = prepare_dataset("mine", "imagefolder", place)
    np.testing.assert_array_equal(dataset.images, kept.images[dataset.origin])  # rows of the source as it is
    whole = prepare_dataset("mine", "imagefolder", place, duplicates="drop", validation=5)
    assert whole.bounds == (7, 12), "amounts are of what is left"
    assert len({image.tobytes() for image in whole.images[:]}) == len(whole) == 23


def test_copies_under_another_class_are_said(tmp_path: Path) -> None:
    wrong = {"train/c01/wrong.png": FILES["train/c00/000.png"], "train/c02/too.png": FILES["train/c00/001.png"]}
    right = {"train/c00/again.png": FILES["train/c00/000.png"]}
    place = Place("mine", str(write_tree(tmp_path, {**FILES, **wrong, **right})))
    kept = prepare_dataset("mine", "imagefolder", place)
    assert kept.duplicates == {"copies": 3, "across_splits": 0, "other_class": 2}
    first, again = f"{tmp_path}/train/c00/000.png", f"{tmp_path}/train/c01/wrong.png"
    counts = "3 of 26 images are exact copies of others (2 of them under another class), and 0 pictures stand in more"
    assert kept.notices == (f"{counts} than one split, such as {first} and {again}",)
    less = prepare_dataset("mine", "imagefolder", place, duplicates="drop")
    assert_holds(Dataset(less.images, less.labels, less.bounds, less.classes, np.arange(23), "mine"), RAW)
    assert less.duplicates == {"dropped": 3, "other_class": 2}
    counts = "3 images dropped: exact copies of others (2 of them under another class)"
    assert less.notices == (f"{counts}, such as {again}, a copy of {first}",)
    for name in ("train/c02/too.png", "train/c00/again.png"):
        (tmp_path / name).unlink()
    one = prepare_dataset("mine", "imagefolder", place).notices[0]
    assert one.startswith("1 of 24 images is an exact copy of another under another class, and 0 pictures")
    one = prepare_dataset("mine", "imagefolder", place, duplicates="drop").notices[0]
    assert one.startswith("1 image dropped: exact copy of another under another class, such as ")
    with refused("found 1 of 24 images is an exact copy of another under another class"):
        prepare_dataset("mine", "imagefolder", place, duplicates="refuse")


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
def test_a_line_on_copies_has_room_for_names_of_any_length(tmp_path: Path, duplicates: Any) -> None:
    long = "train/c00/" + "x" * 60_000
    path = write_zip(tmp_path / "a.zip", {**FILES, f"{long}1.png": encoded("PNG"), f"{long}2.png": encoded("PNG")})
    (line,) = prepare_dataset("mine", "imagefolder", Place("mine", str(path)), duplicates=duplicates).notices
    assert len(line) < 600
    assert line.endswith(("1.png", "2.png"))
    assert line.count(" ... ") == 2


def test_copies_are_refused_by_name(tmp_path: Path) -> None:
    place = Place("mine", str(write_tree(tmp_path, with_copies())))
    with refused(
        "data set 'mine': expected each picture once (`duplicates: refuse`), found 3 of 26 images are exact copies",
        f"{tmp_path}/train/c02/leak.png and {tmp_path}/test/c02/",
        "remove the copies, or state `duplicates: drop` or `keep`",
    ):
        prepare_dataset("mine", "imagefolder", place, duplicates="refuse")
    write_tree(tmp_path / "clean", FILES)
    assert_holds(
        prepare_dataset("mine", "imagefolder", Place("mine", str(tmp_path / "clean")), duplicates="refuse"), RAW
    )


def test_copies_are_those_of_the_prepared_pixels_in_any_source(tmp_path: Path) -> None:
    raw = some((1, 4, 4), train=30, test=20)
    raw.train_images[7] = raw.test_images[3]
    raw.train_images[9, 0] = raw.train_images[8, 0].T  # alike once there is one pixel left of them
    write_idx(tmp_path, raw)
    place = Place("mnist", str(tmp_path))
    dataset = prepare_dataset("mine", "mnist", place)
    assert raw.train_labels[7] != raw.test_labels[3]
    assert dataset.duplicates == {"copies": 1, "across_splits": 1, "other_class": 1}
    assert dataset.notices[0].startswith(
        "1 of 50 images is an exact copy of another under another class, and 1 picture"
    )
    assert dataset.notices[0].endswith("such as training image 7 and test image 3")
    small = prepare_dataset("mine", "mnist", place, size=1)
    seen = [int(pixel) for pixel in small.images[:].ravel()]
    assert small.duplicates is not None
    assert small.duplicates["copies"] == len(seen) - len(set(seen)) > 1
    assert small.duplicates["across_splits"] == len(set(seen[:30]) & set(seen[30:]))
    selected = prepare_dataset("mine", "mnist", place, train=15, validation=5)
    both = {int(row) for row in selected.origin} >= {7, 33}
    assert (selected.duplicates is not None) == both, "only images that are used count"


def test_the_option_is_one_of_three() -> None:
    for value in ("refuse", "keep", "drop"):
        assert (
            parse_study({"dataset": {"source": "digits", "duplicates": value}}).datasets["default"].duplicates == value
        )
    assert parse_study({"dataset": {"source": "digits"}}).datasets["default"].duplicates == "keep"
    with refused("duplicates: expected 'refuse', 'keep' or 'drop', found 'merge'"):
        parse_study({"dataset": {"source": "digits", "duplicates": "merge"}})


def test_the_option_reaches_the_images(run: Run, capsys: Capture, tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", with_copies())
    for value, code, count in (("keep", 0, 26), ("drop", 0, 23), ("refuse", 2, 23)):
        write_study(
            tmp_path, {"datasets": {"photos": {"source": "imagefolder", "root": "photos", "duplicates": value}}}
        )
        assert run(tmp_path, "prepare", "photos") == code
        assert len(load_dataset(tmp_path / "data/prepared/photos")) == count


# ------------------------------------------------------------------ what a first look does not show


@pytest.mark.parametrize(
    ("train", "test"), [("train", "train"), ("train", "./train"), ("train/", "train"), (".", "./"), ("a/../b", "b")]
)
def test_one_folder_for_both_parts_is_refused(tmp_path: Path, train: str, test: str) -> None:
    with refused(
        f"test_folder: expected another folder than `train_folder:`, found {os.path.normpath(test)} for both",
        "name the folder of the test images, or state `test_folder: null` and `folds:`",
    ):
        read(write_tree(tmp_path, FILES), train_folder=train, test_folder=test)


@BOTH
@pytest.mark.parametrize(("train", "test"), [("x", "x/test"), (".", "test"), ("./x/", "x/../x/test")])
def test_a_part_inside_the_other_takes_its_images_alone(tmp_path: Path, lay_out: LayOut, train: str, test: str) -> None:
    top = "" if train == "." else "x/"
    files = {name.replace("train/", top) if "train/" in name else f"{top}{name}": FILES[name] for name in FILES}
    dataset = read(lay_out(tmp_path / "photos", files), train_folder=train, test_folder=test)
    assert_holds(dataset, RAW)


@pytest.mark.parametrize("target", [None, "/dev/zero", "/dev/null"])
def test_a_zip_that_is_no_regular_file_is_left_out_and_said(tmp_path: Path, target: str | None) -> None:
    root = write_tree(tmp_path / "photos", FILES)
    if target:
        (root / "p.ZIP").symlink_to(target)
    else:
        os.mkfifo(root / "p.ZIP")
    dataset = read(root)
    assert_holds(dataset, RAW)
    assert dataset.notices == (f"left out: a file outside of train/<class>/ and test/<class>/ ({root}/p.ZIP)",)


@pytest.mark.parametrize("source", ["imagefolder", "mnist"])
@pytest.mark.parametrize("name", ["pipe", "pipe.zip", "/dev/null"])
def test_a_root_that_is_a_pipe_or_a_device_is_refused(tmp_path: Path, name: str, source: str) -> None:
    root = tmp_path / name
    if not root.exists():
        os.mkfifo(root)
    with refused(f"{root}: expected a folder or a file, found neither a folder nor a regular file; correct `root:`"):
        prepare_dataset("mine", source, Place("mine", str(root)))


def exif_damaged() -> bytes:
    """A JPEG of which Pillow warns that its Exif block is corrupt."""
    whole, exif = encoded("JPEG"), b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12"
    return whole[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + whole[2:]


def test_pillows_warnings_do_not_reach_the_terminal(tmp_path: Path) -> None:
    jpeg, no_image = exif_damaged(), b"MM\0*" + bytes((0, 0, 0, 8, 0, 9, 1, 18))
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(io.BytesIO(jpeg)).getexif()
    with pytest.warns(UserWarning, match="Corrupt EXIF"), pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(no_image))
    files = {f"train/c0{n % 3}/x{n}.jpg": jpeg for n in range(12)}
    root = write_tree(tmp_path, {**FILES, **files, "train/c00/none": no_image})
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        dataset = read(root)
        found, _ = find_images([str(root)], tmp_path)
        assert warnings.filters == filters
    assert [str(each.message) for each in shown] == []
    assert (len(dataset), len(found)) == (35, 35)
    assert dataset.notices[0] == f"left out: a file that is no image ({root}/train/c00/none)"


def test_classes_that_only_copies_fill_are_said(tmp_path: Path) -> None:
    first = min(name for name in FILES if name.startswith("train/c01"))
    files = {name: FILES[first] if "c00" in name else data for name, data in FILES.items()}
    place = Place("mine", str(write_tree(tmp_path / "photos", files)))
    train, test = (min(name for name in FILES if f"{part}/c00" in name) for part in ("train", "test"))
    with refused(
        "duplicates: drop: expected a training image of each class to be left, found none of c00: all are copies of "
        f"others, such as {tmp_path}/photos/{train} of {tmp_path}/photos/{test}; take the copies away, or state "
        "`duplicates: keep`"
    ):
        prepare_dataset("mine", "imagefolder", place, duplicates="drop")
    assert len(prepare_dataset("mine", "imagefolder", place, duplicates="keep")) == len(FILES)


def test_with_folds_a_class_is_emptied_only_where_both_parts_are(tmp_path: Path) -> None:
    train = [name for name in FILES if name.startswith("train/c01/")]
    test = [name for name in FILES if name.startswith("test/c01/")]
    copied = dict.fromkeys(train, FILES[test[0]])
    place = Place("mine", str(write_tree(tmp_path / "photos", {**FILES, **copied})))
    with refused("found none of c01: all are copies of others"):
        prepare_dataset("mine", "imagefolder", place, duplicates="drop")
    assert prepare_dataset("mine", "imagefolder", place, duplicates="drop", folds=Folds(2, 0)).classes == RAW.classes
    leaked = min(name for name in FILES if name.startswith("test/c00/"))
    write_tree(tmp_path / "photos", dict.fromkeys((*train, *test), FILES[leaked]))
    with refused(f"found none of c01: all are copies of others, such as {tmp_path}/photos/{min(train)} of ", leaked):
        prepare_dataset("mine", "imagefolder", place, duplicates="drop", folds=Folds(2, 0))


@BOTH
@pytest.mark.parametrize("other", ["C00", "c00 ", "k\xe4tz", "\uff430\uff10"])
def test_classes_that_are_spelled_alike_are_said(tmp_path: Path, lay_out: LayOut, other: str) -> None:
    first = "ka\u0308tz" if other.startswith("k") else "c00"
    files = {name.replace("c00", first).replace("c01", other): data for name, data in FILES.items()}
    dataset = read(lay_out(tmp_path / "photos", files))
    one, two = sorted((first, other))
    how = "differ in case, blanks or how accents are written; rename the folders if they are one"
    assert dataset.notices == (f"{one!a} and {two!a} are two classes, though they {how}",)
    assert len(dataset.classes) == 3


@pytest.mark.parametrize("source", ["imagefolder", "mnist"])
def test_sizes_of_images_that_are_too_large_are_refused(tmp_path: Path, source: str) -> None:
    for size, found in ((100_000, "100,000"), (16_385, "16,385")):
        with refused(
            f"size: expected at most 16,384, which is 268 megapixels an image, found {found}; state a smaller `size:`"
        ):
            prepare_dataset("mine", source, Place("mine", str(tmp_path)), size=size)


def test_images_that_exceed_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1103))
    root = write_tree(tmp_path / "photos", FILES)
    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "read", None)  # nothing is decoded
        with refused(
            "23 images of 4x4 pixels and 3 channels: expected at most the 1,103 bytes of free memory, found 1,104 bytes; "
            "state a smaller `size:`, or take fewer images"
        ):
            prepare_dataset("mine", "imagefolder", Place("mine", str(root)), size=4)
    with refused("23 images of 5x6 pixels and 3 channels", "found 2,070 bytes"):
        read(root)
    assert len(prepare_dataset("mine", "imagefolder", Place("mine", str(root)), size=4, grey=True)) == 23
    write_idx(tmp_path / "mnist", some((1, 4, 4)))
    with refused("23 images of 20x20 pixels and 1 channels", "found 9,200 bytes"):
        prepare_dataset("mine", "mnist", Place("mnist", str(tmp_path / "mnist")), size=20)


@pytest.mark.parametrize("method", [1, 6, 9, 97])
def test_a_zip_of_a_method_that_python_does_not_read(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    data, name = bytearray(path.read_bytes()), b"train/c01/"
    for signature, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        for start in [at for at in range(len(data)) if data.startswith(signature, at)]:
            if name in data[start : start + 60]:
                data[start + offset : start + offset + 2] = method.to_bytes(2, "little")
    path.write_bytes(data)
    with refused(
        f"{path}:train/c01/", "expected a zip that Python reads, found That compression", "; zip the images again"
    ):
        read(path)
