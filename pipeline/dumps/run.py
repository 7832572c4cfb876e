"""Compute one field of a teacher on a data set, and publish it as a cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.cache.blocks import plan_store
from pipeline.cache.codecs import Format
from pipeline.cache.manifest import DatasetInfo, FieldInfo, Manifest, TeacherInfo, ViewsInfo
from pipeline.cache.writer import write_cache
from pipeline.datasets.record import Dataset
from pipeline.dumps import FIELDS
from pipeline.dumps.field import Field, decisive
from pipeline.teacher import Answers, Samples, refuse_other_images
from pipeline.views.view import PLAIN, Views


def dump(
    teacher: Answers,
    dataset: Dataset,
    target: Path,
    work: Path,
    *,
    field: str,
    options: Mapping[str, Any],
    store: Format,
    batch: int = 512,
    samples: Literal["train", "all"] = "train",
    views: Views = PLAIN,
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
        views: the augmentation that the teacher answers for.

    Raises:
        InputError: teacher and data set do not fit, or a value that cannot be stored.
    """
    planned = plan_field(
        teacher, dataset, target.name, field=field, options=options, batch=batch, samples=samples, views=views
    )
    plan = plan_store(planned.arrays, views=views.count, rows=planned.rows, batch=batch)
    device = teacher.device.type
    described = describe(teacher.card, dataset, field, options, batch=batch, views=views)
    return write_cache(target, work, plan, planned.compute, store=store, description=described, device=device)


def plan_field(
    teacher: Answers,
    dataset: Dataset,
    name: str,
    *,
    field: str,
    options: Mapping[str, Any],
    batch: int,
    samples: Literal["train", "all"],
    views: Views,
) -> Field:
    """A field that is ready to be computed; arguments as for `dump`."""
    refuse_other_images(teacher.card, dataset, f"dump {name!r} of {teacher.card['name']!r}")
    rows = dataset.bounds[0] if samples == "train" else len(dataset)
    made: Field = FIELDS.function(field)(teacher, Samples(dataset.images, rows, batch, views), **options)
    return made


def describe(
    card: Mapping[str, Any], dataset: Dataset, field: str, options: Mapping[str, Any], *, batch: int, views: Views
) -> dict[str, Any]:
    """The manifest's entries that say what a cache is, of whom and of which data."""
    return {
        "field": FieldInfo(name=field, parameters=decisive(options)),
        "teacher": TeacherInfo(
            name=card["name"],
            architecture=dict(card["model"]),
            weights_sha256=card["weights_sha256"],
            seed=card.get("seed_number"),
            test_accuracy=card["test_accuracy"],
            test_accuracy_per_class=card["test_accuracy_per_class"],
        ),
        "dataset": DatasetInfo.model_validate({key: dataset.card()[key] for key in DatasetInfo.model_fields}),
        "views": ViewsInfo.model_validate(views.parameters),
        "batch": batch,
    }
