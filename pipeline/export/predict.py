"""Image files through a network: found, converted as data sets are, and answered in batches."""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.base.errors import InputError
from pipeline.base.progress import progress_bar
from pipeline.datasets.file_trees import LEAVE_OUT, File, walk_folder
from pipeline.datasets.image_files import Decoder, describe_left_out, separate_images
from pipeline.datasets.raw import Pixels, fit_image
from pipeline.models.network import Network

MOST_IMAGES = 256  # a batch
BATCH_BYTES = 4 << 20  # of pixels, which a network's activations exceed by far


def find_images(given: Sequence[str], start: Path) -> tuple[list[File], list[str]]:
    """The files named, and the images below the folders named in the order of their paths; and what there is to say.

    Args:
        given: paths as the user has written them.
        start: where relative ones begin.

    Raises:
        InputError: nothing is there, no regular file, a folder without images, or one that cannot be read through
            (see `file_trees.walk_folder`).
    """
    found: list[File] = []
    others: list[File] = []
    for name in given:
        path = start / name
        if _is_folder(name, path):
            below = sorted(walk_folder(path, name).files, key=lambda file: file.path)
            images, none = separate_images(below)
            if not images:
                seen = f", but {describe_left_out(none)}" if none else ""
                raise InputError(name, expected="images", found=f"none in this folder{seen}")
            found += images
            others += none
        else:
            found.append(File.from_path(path, PurePosixPath(path.name), name))
    return found, [f"left out: {describe_left_out(others)}"] if others else []


def _is_folder(name: str, path: Path) -> bool:
    """Whether a path is a folder; raises InputError unless it is that or a regular file."""
    if not name:  # joined to a folder it names that folder
        fix = "name one (a variable of the shell may be unset)"
        raise InputError("images", expected="an image file, or a folder of them", found="an empty name", fix=fix)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        found = "nothing there" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", str(error))
        raise InputError(name, expected="an image file, or a folder of them", found=found, fix=LEAVE_OUT) from None
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):  # a pipe or a device would be read for ever
        raise InputError(name, expected="an image file, or a folder of them", found="no regular file", fix=LEAVE_OUT)
    return stat.S_ISDIR(mode)


def read_image(file: File, shape: tuple[int, int, int], decoder: Decoder) -> Pixels:
    """An image file as the network's data set would hold it, (C, H, W) uint8 (see `datasets.raw.fit_image`).

    Raises:
        InputError: Pillow cannot read it, it has more than 8 bits a channel, or too many pixels.
    """
    return decoder.read(file, lambda image: fit_to_shape(image, shape))


def fit_to_shape(image: Image.Image, shape: tuple[int, int, int]) -> Pixels:
    """An image of any size as (C, H, W) uint8: what `fit_image` makes for a `size`, and its like where H is not W."""
    channels, height, width = shape
    grey = channels == 1
    pixels = fit_image(image, height if height == width else None, grey=grey)
    if pixels.shape == shape:
        return pixels
    whole = Image.fromarray(pixels[0] if grey else np.moveaxis(pixels, 0, -1))
    return fit_image(ImageOps.fit(whole, (width, height), Image.Resampling.BILINEAR), None, grey=grey)


@torch.no_grad()
def predict_logits(
    network: Network,
    files: Sequence[File],
    shape: tuple[int, int, int],
    device: torch.device,
    decoder: Decoder | None = None,
) -> NDArray[np.float32]:
    """The logits (n, classes) of n image files; only one batch of images is held at a time.

    Args:
        network: in evaluation mode on `device`.
        files: what `find_images` gives.
        shape: (C, H, W) of the images that it was trained on.
        device: where it computes.
        decoder: reads the images, and then has something to say of huge ones.

    Raises:
        InputError: an image that cannot be read, logits that are no numbers, or images that are neither grey nor
            RGB.
    """
    if shape[0] not in (1, 3):
        raise InputError("the student", expected="images of 1 or 3 channels (grey or RGB)", found=f"{shape[0]}")
    size = max(1, min(MOST_IMAGES, BATCH_BYTES // math.prod(shape)))
    answers: list[NDArray[np.float32]] = []
    decoder = decoder or Decoder()
    with decoder.threads() as threads, progress_bar("images", len(files)) as bar:
        for start in range(0, len(files), size):
            batch = files[start : start + size]
            # Colour images come channel by channel within a pixel, and `stack` keeps that; a network that is given
            # such rows sums in another order than where its accuracy was measured.
            images = np.ascontiguousarray(
                np.stack(list(threads.map(lambda file: read_image(file, shape, decoder), batch)))
            )
            logits = network(torch.from_numpy(images).to(device)).float().cpu()
            finite = logits.isfinite().all(1)
            if not finite.all():
                name = batch[int(finite.logical_not().int().argmax())].where
                raise InputError(name, expected="finite logits", found="NaN or inf", fix="train the student again")
            answers.append(logits.numpy())
            bar(start + len(batch))
    return np.concatenate(answers)


def compute_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The softmax of one row of logits (classes,), in float64."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    made: NDArray[np.float64] = shifted / shifted.sum()
    return made


def format_answer(name: str, logits: NDArray[np.float32], classes: Sequence[str], top: int) -> dict[str, Any]:
    """One image's answer as JSON: `file`, `class`, its `probability`, and `probabilities`, the likeliest first.

    Args:
        name: of the file.
        logits: (classes,).
        classes: their names, which differ.
        top: how many probabilities to give.
    """
    each = compute_probabilities(logits)
    best = np.argsort(-logits, kind="stable")[:top]  # of equals the first, as for accuracies
    return {
        "file": name,
        "class": classes[best[0]],
        "probability": float(each[best[0]]),
        "probabilities": {classes[label]: float(each[label]) for label in best},
    }
