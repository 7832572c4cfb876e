"""The metrics files of teachers and students, which git keeps and people edit, read as what they have to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.base.errors import InputError
from pipeline.base.files import read_json
from pipeline.base.statistics import Summary

Digests = Annotated[list[str], Field(min_length=1)]
SHARED: Mapping[str, Any] = {"parameters": int, "bytes": int, "bits": int, "dataset": str}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "teacher": {**SHARED, "test_accuracy": float, "weights_sha256": str},
    "student": {
        **SHARED,
        "test_accuracy": Summary,
        "weights_sha256": Digests,
        "test_accuracy_per_seed": Annotated[list[float], Field(min_length=1)],
        "test_accuracy_per_peer": list[list[float]] | None,
        "losses": dict[str, dict[str, Any]],
        "pretrain": list[dict[str, dict[str, Any]]],
        "phase_epochs": list[int],
        "init": dict[str, Any] | None,
        "restores": list[int],
        "consumed": dict[str, str],
        "taught_by": list[str],
        "rule": str,
    },
}


def read_metrics(path: Path, kind: Literal["teacher", "student"], fix: str, keys: Iterable[str]) -> dict[str, Any]:
    """The metrics of a network.

    Args:
        path: of the file.
        kind: of the network.
        fix: how to make it.
        keys: that it must have.

    Raises:
        InputError: it is missing, damaged, lacks a key, or has something else in its place.
    """
    metrics: dict[str, Any] = read_json(path, fix, keys)
    for key in SHAPES[kind]:
        if key in metrics:
            try:
                _adapt(kind, key).validate_python(metrics[key])
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, (key, *first["loc"])))
                raise InputError(f"{path}: {place}", expected=first["msg"], found=str(metrics[key]), fix=fix) from None
    return metrics


@cache
def _adapt(kind: str, key: str) -> TypeAdapter[Any]:
    return TypeAdapter(SHAPES[kind][key])
