"""A network as an ONNX graph, compared with PyTorch before anybody is given it (extra `teachercache[onnx]`)."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset
from pipeline.models.network import Network

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 20
TOLERANCE = 1e-4  # of 1 + the largest logit: two ways to sum in float32
NOISE = 1e-6  # differences that are not told apart
CHECKED = 64  # images
TRACES = ("metadata_props", "doc_string")  # of a graph's parts: source lines and paths of the machine that wrote it


def require_packages() -> None:
    """Raise InputError unless the packages of the extra are here."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            "--format onnx",
            expected=f"the packages {', '.join(PACKAGES)}",
            found=f"no {', '.join(missing)}",
            fix="pip install 'teachercache[onnx]'",
        )


def export_onnx(network: Network, shape: Sequence[int]) -> bytes:
    """The graph `images` uint8 (batch, C, H, W) -> `logits` float32 (batch, classes), as a file's bytes.

    The scaling of the pixels and the sums of a head's channels are part of it; the batch is of any size. The same
    network gives the same bytes.

    Args:
        network: on the CPU, in evaluation mode.
        shape: (C, H, W).

    Raises:
        InputError: the network has something that torch.onnx cannot write.
    """
    example = torch.zeros((2, *shape), dtype=torch.uint8)
    try:
        with _silence_torch():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
            _strip(model)
            return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # noqa: BLE001 - the architecture may be anybody's code
        cause = error.__cause__ or error  # torch's own error says in which step, and its cause says why
        found = f"{type(cause).__name__}: {cause}".partition("\n")[0]
        raise InputError(
            "--format onnx", expected="a network that torch.onnx can write", found=found, fix="export it without"
        ) from None


@contextmanager
def _silence_torch() -> Iterator[None]:
    """Without torch's words to those who write exporters: its warnings, its logs and what it prints."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _strip(part: Any) -> None:
    """Take from a protobuf message and all its parts what tells of the machine and not of the network."""
    for field, value in part.ListFields():
        if field.name in TRACES:
            part.ClearField(field.name)
        elif field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                _strip(each)


def choose_check_images(
    dataset: Dataset | None, fingerprint: str, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], str]:
    """Images (n, C, H, W) to compare on, and what they are.

    Args:
        dataset: the prepared data, where they are here.
        fingerprint: of the data set that the student was trained on.
        shape: (C, H, W).

    Returns:
        The first test images; random ones, the same each time, where there are none.
    """
    why = "the prepared data set is not here"
    if dataset is not None:
        test, why = dataset.rows("test"), "the data set has no test part"
        if dataset.fingerprint != fingerprint:
            why = "the prepared data set is another one"
        elif test.stop > test.start:
            images = dataset.images[test.start : min(test.stop, test.start + CHECKED)]
            return np.ascontiguousarray(images), f"the first {len(images)} test images of {dataset.name}"
    random = np.random.default_rng(0).integers(0, 256, (CHECKED, *shape), dtype=np.uint8)
    return random, f"{CHECKED} random images ({why})"


@torch.no_grad()
def compare_graph(graph: bytes, network: Network, images: NDArray[np.uint8], what: str) -> dict[str, Any]:
    """How the graph was compared with the network, as the card says it.

    Args:
        graph: what `export_onnx` has made.
        network: on the CPU, in evaluation mode.
        images: (n, C, H, W): the first alone, the next two together, then the others.
        what: the images are.

    Raises:
        InputError: onnxruntime cannot run the graph, or its logits are others.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3  # the same sums each time; errors only
    batches = [part for part in np.split(images, [1, 3]) if len(part)]
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        found = [session.run(["logits"], {"images": batch})[0] for batch in batches]
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no other common class
        raise InputError("--format onnx", expected="a graph that onnxruntime can run", found=str(error)) from None
    return {
        "opset": OPSET,
        "onnxruntime": onnxruntime.__version__,
        "images": what,
        "batches": [len(batch) for batch in batches],
        "tolerance": TOLERANCE,
        "largest_difference_at_most": _round_up(
            max(
                _measure_difference(theirs, network(torch.from_numpy(batch)))
                for theirs, batch in zip(found, batches, strict=True)
            )
        ),
    }


def _measure_difference(theirs: NDArray[np.float32], ours: Tensor) -> float:
    """The largest difference of two batches of logits (B, classes).

    Raises:
        InputError: it is too large.
    """
    expected = ours.numpy()
    if theirs.shape != expected.shape or theirs.dtype != expected.dtype:
        found = f"{theirs.dtype} {theirs.shape}"
        raise InputError("--format onnx", expected=f"logits {expected.dtype} {expected.shape}", found=found)
    difference, allowed = float(np.abs(theirs - expected).max()), TOLERANCE * float(1 + np.abs(expected).max())
    if not difference <= allowed:  # nor NaN
        raise InputError(
            "--format onnx",
            expected=f"PyTorch's logits within {allowed:.1e}",
            found=f"a difference of {difference:.1e}",
            fix="export it without",
        )
    return difference


def _round_up(difference: float) -> float:
    """The next power of ten, at least NOISE: what lies below is the processor's, and cards of equal students are
    to be equal.
    """
    return float(f"1e{math.ceil(math.log10(max(difference, NOISE)))}")
