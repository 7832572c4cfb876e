"""Compute one field of a teacher on a data set, and publish it as a cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.cache.blocks import plan_store
from pipeline.cache.manifest import DatasetInfo, FieldInfo, Format, Manifest, TeacherInfo, ViewsInfo
from pipeline.cache.writer import write_cache
from pipeline.datasets.record import Dataset
from pipeline.dumps import FIELDS
from pipeline.teacher import Teacher, refuse_other_images


def dump(
    teacher: Teacher,
    dataset: Dataset,
    target: Path,
    work: Path,
    *,
    field: str,
    options: Mapping[str, Any],
    store: Format,
    batch: int = 512,
    samples: Literal["train", "all"] = "train",
) -> Manifest:
    """Compute one field of a teacher on a data set and publish it as a cache.

    Args:
        teacher, dataset: of the same image shape and classes.
        target: the cache's folder.
        work: unfinished work; a later run goes on from it.
        field: a name of `FIELDS`.
        options: that field's own parameters.
        store: "zarr" or "hdf5".
        batch: rows a forward pass, fixed for all time by the manifest.
        samples: the training rows, or all rows of the data set.

    Raises:
        InputError: teacher and data set do not fit, or a value that cannot be stored.
    """
    refuse_other_images(teacher.card, dataset, f"dump {target.name!r} of {teacher.card['name']!r}")
    rows = dataset.rows("train") if samples == "train" else slice(0, len(dataset))
    planned = FIELDS.function(field)(teacher, dataset.images[rows], batch, **options)
    description = {
        "field": FieldInfo(name=field, parameters=dict(planned.parameters)),
        "teacher": TeacherInfo(
            name=teacher.card["name"],
            architecture=dict(teacher.card["model"]),
            weights_sha256=teacher.card["weights_sha256"],
            seed=teacher.card.get("seed_number"),
            test_accuracy=teacher.card["test_accuracy"],
            test_accuracy_per_class=teacher.card["test_accuracy_per_class"],
        ),
        "dataset": DatasetInfo.model_validate({key: dataset.card()[key] for key in DatasetInfo.model_fields}),
        "views": ViewsInfo(policy="none", count=1),
        "batch": batch,
    }
    plan = plan_store(planned.arrays, views=1, rows=planned.rows, batch=batch)
    device = teacher.device.type
    return write_cache(target, work, plan, planned.compute, store=store, description=description, device=device)
