"""A file of outputs from elsewhere -> a cache like our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.base.errors import InputError
from pipeline.base.files import hash_file, hash_json
from pipeline.cache.codecs import Codec, Format
from pipeline.datasets.dataset import load_dataset
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.dumps.foreign.teacher import read_outputs
from pipeline.dumps.logits import LogitsType, check_options
from pipeline.runs.new_folders import open_work_beside, refuse_codec, refuse_existing
from pipeline.runs.result import Result
from pipeline.runs.terms import read_terms


def create_cache(
    to: Path,
    source: Path,
    teacher: str,
    data: Path,
    *,
    field: Literal["logits"] = "logits",
    values: Literal["logits", "probabilities", "log-probabilities"] | None = None,
    floor: float | None = None,
    classes: Path | None = None,
    sha256: str | None = None,
    store: Format = "zarr",
    dtype: LogitsType = "float16",
    codec: Codec = "none",
    top_k: int | None = None,
    temperature: float | None = None,
    batch: int = 512,
    terms: Mapping[str, str | None] | None = None,
) -> Result:
    """Seal a foreign teacher's outputs (another framework, an API) in a cache, checked as our own.

    Args:
        to: a new folder.
        source: a .npy file of floats (samples, classes), rows in the order of the data set's images.npy.
        teacher: its name.
        data: the prepared data set that the rows belong to.
        field: what the numbers are.
        values, floor, classes: see `foreign.teacher.read_outputs`.
        sha256: of the teacher's weights; None takes the file's own digest.
        store, dtype, codec: of the cache.
        top_k, temperature: see `logits.logits`.
        batch: rows at a time, as the study's dump states it.
        terms: `licence`, `citation` and `contact`, as far as they are known.

    Raises:
        InputError: outputs that are not of these data, a place that is taken, or options that contradict each other.
    """
    refuse_existing(to)
    _refuse_odd_names(teacher, sha256)
    refuse_codec(codec, store)
    _check_top_k(top_k, temperature)
    sharing = read_terms(terms)
    options = {"dtype": dtype, "codec": codec, "top_k": top_k, "temperature": temperature}
    dataset = load_dataset(data, resident=False)
    foreign, samples = read_outputs(source, dataset, teacher, sha256, values=values, floor=floor, classes=classes)
    with open_work_beside(to) as work:
        # Blocks of another file's outputs, or of its columns in another order, are never taken up.
        identity = hash_json([hash_file(source), foreign.columns])
        wanted = DumpRequest(to, work / identity[:16], field, options, store)
        (made,) = dump_fields(foreign, dataset, [wanted], batch=batch, samples=samples, sharing=sharing)
    weights = made.teacher.weights_sha256
    summary = f"{to}: {made.rows} samples of {teacher}, weights {weights}, root {made.root[:12]}"
    return Result(
        {"root": made.root, "samples": made.rows, "weights_sha256": weights},
        text=(*foreign.notes, summary),
        warnings=tuple(foreign.warnings),
    )


def _refuse_odd_names(teacher: str, sha256: str | None) -> None:
    if sha256 is not None and (len(sha256) != 64 or set(sha256) - set("0123456789abcdef")):
        raise InputError("--teacher-sha256", expected="64 hexadecimal digits in lower case", found=sha256)
    if not teacher.strip():
        raise InputError("--teacher", expected="the teacher's name", found=repr(teacher))


def _check_top_k(top_k: int | None, temperature: float | None) -> None:
    try:
        check_options(top_k=top_k, temperature=temperature)
    except ValueError as error:
        raise InputError(f"--{error}") from None
