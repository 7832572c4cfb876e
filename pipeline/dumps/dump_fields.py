"""Compute fields of a network on a data set, and publish each as a cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from pipeline.base.errors import InputError
from pipeline.base.progress import track
from pipeline.base.ranks import ALONE, Ranks
from pipeline.cache import reader_limits
from pipeline.cache.block_files import BlockFiles, write_blocks
from pipeline.cache.blocks import Block
from pipeline.cache.codecs import CODECS, Format
from pipeline.cache.manifest import (
    ComputedInfo,
    DatasetInfo,
    FieldInfo,
    Manifest,
    SharingInfo,
    TeacherInfo,
    ViewsInfo,
)
from pipeline.cache.manifest_entries import to_plain_entries
from pipeline.cache.store_plan import StorePlan, plan_store, plan_whole_blocks
from pipeline.cache.writer import UnfinishedCache, open_unfinished
from pipeline.datasets.dataset import Dataset
from pipeline.dumps import FIELDS
from pipeline.dumps.field import BatchField, Field, RowField, select_decisive
from pipeline.dumps.one_pass import WantedRows, make_gather, run_one_pass
from pipeline.dumps.parts import Part, publish_part
from pipeline.dumps.shared_pass import SharedRows, run_shared, share_rows
from pipeline.teacher import Samples, TeacherLike, refuse_other_images
from pipeline.views.view import PLAIN, Views


@dataclass(frozen=True)
class DumpRequest:
    """A cache to be made.

    Attributes:
        target: its folder.
        work: unfinished work; a later run goes on from it.
        field: a name of `FIELDS`.
        options: that field's own parameters.
        store: "zarr" or "hdf5".
        chunk_kib: KiB of a decoded chunk; None: by the codec.
    """

    target: Path
    work: Path
    field: str
    options: Mapping[str, Any]
    store: Format
    chunk_kib: int | None = None


class Scope(TypedDict, total=False):
    """Of what fields are dumped, and what their manifests say of that.

    Attributes:
        batch: rows a forward pass, fixed for all time by the manifest; 512 unless given.
        samples: the training rows (unless given), or all rows of the data set.
        views: the augmentation that the teacher answers for; none unless given.
        computed: what the manifests say of how; None: nothing.
        sharing: the terms that they name; None: none.
    """

    batch: int
    samples: Literal["train", "all"]
    views: Views
    computed: ComputedInfo | None
    sharing: SharingInfo | None


def dump_fields(
    teacher: TeacherLike,
    dataset: Dataset,
    requests: Sequence[DumpRequest],
    *,
    ranks: Ranks = ALONE,
    **scope: Unpack[Scope],
) -> list[Manifest]:
    """Compute fields of a teacher in one pass over a data set, and publish each as a cache.

    A cache's bytes do not depend on the others that are made beside it.

    Args:
        teacher, dataset: of the same image shape and classes.
        requests: the caches, at least one.
        ranks: the processes, of which this is one, that share the work out; all have the same arguments.
        scope: of what.

    Raises:
        InputError: teacher and data set do not fit, or a value that cannot be stored: then
            nothing is published.
    """
    with _open_requests(teacher, dataset, requests, ranks, **scope) as (seen, caches):
        _compute_blocks(teacher, seen, caches, ranks)
        return ranks.agree(lambda: [unfinished.publish() for _, unfinished in caches])


def dump_part(
    teacher: TeacherLike,
    dataset: Dataset,
    requests: Sequence[DumpRequest],
    part: Part,
    folders: Sequence[Path],
    **scope: Unpack[Scope],
) -> list[Path]:
    """Compute one part of fields of a teacher, as folders that `parts.merge_parts` joins; others may be elsewhere.

    Args:
        part: which.
        folders: for each request, the part's.
        teacher, dataset, requests, scope: as of `dump_fields`.

    Raises:
        InputError: as there; or a field of batches, which are made of all rows.
    """
    with _open_requests(teacher, dataset, requests, ALONE, **scope) as (seen, caches):
        shared = [_share_part(field, unfinished, seen.batch) for field, unfinished in caches]
        wanted = [
            WantedRows(each.field, each.computed, [b for b in each.find_missing() if each.is_of(b, part.share())])
            for each in shared
        ]
        run_one_pass(teacher, seen, wanted, f"part {part.number} of {part.count}")
        return [
            publish_part(
                *(unfinished, its, part, folder),
                batch=seen.batch,
                chunk_kib=request.chunk_kib,
                device="cuda" if teacher.device.type == "cuda" else "cpu",
            )
            for (_, unfinished), its, folder, request in zip(caches, shared, folders, requests, strict=True)
        ]


def _share_part(field: Field, unfinished: UnfinishedCache, batch: int) -> SharedRows:
    if isinstance(field, BatchField):
        raise InputError(
            f"dump {unfinished.target.name!r}: --part",
            expected="a field with a row a sample",
            found="one of batches, which need all rows",
            fix="name the other dumps, and make this one in one process",
        )
    return share_rows(field, unfinished.blocks, batch)


@contextmanager
def _open_requests(
    teacher: TeacherLike,
    dataset: Dataset,
    requests: Sequence[DumpRequest],
    ranks: Ranks,
    *,
    batch: int = 512,
    samples: Literal["train", "all"] = "train",
    views: Views = PLAIN,
    computed: ComputedInfo | None = None,
    sharing: SharingInfo | None = None,
) -> Iterator[tuple[Samples, list[tuple[Field, UnfinishedCache]]]]:
    """What is dumped, with each request's field and its unfinished cache, while it is open."""
    seen = select_samples(dataset, batch=batch, samples=samples, views=views)
    optional = {"computed": computed, "sharing": sharing}
    refuse_other_images(teacher.card, dataset, f"dump {requests[0].target.name!r} of {teacher.card['name']!r}")
    fields = [_make_requested_field(teacher, seen, each) for each in requests]
    for each, field in zip(requests, fields, strict=True):
        _refuse_codecs(each, field)
    with ExitStack() as stack:
        unfinished = []
        for each, field in zip(requests, fields, strict=True):
            plan = plan_field_store(field, seen, each.chunk_kib)
            described = describe_cache(teacher.card, dataset, each, field, seen)
            described |= {key: value for key, value in optional.items() if value is not None}
            opened = open_unfinished(
                *(each.target, each.work, plan),
                store=each.store,
                description=described,
                device=teacher.device.type,
                ranks=ranks,
            )
            unfinished.append(stack.enter_context(opened))
        yield seen, list(zip(fields, unfinished, strict=True))


def refuse_unreadable_request(
    card: Mapping[str, Any], dataset: Dataset, request: DumpRequest, field: Field, seen: Samples
) -> int:
    """Raise InputError where no reader would take the cache, known before anything is computed; at most so many bytes
    its manifest will have.
    """
    described = to_plain_entries(describe_cache(card, dataset, request, field, seen))
    plan = plan_field_store(field, seen, request.chunk_kib)
    return reader_limits.refuse_unreadable(request.target, plan, request.store, described)


def _make_requested_field(teacher: TeacherLike, seen: Samples, request: DumpRequest) -> Field:
    """A field, refused in the name of the dump that asks for it."""
    try:
        return make_field(teacher, seen, request.field, request.options)
    except InputError as error:
        raise InputError(f"dump {request.target.name!r} of {teacher.card['name']!r}: {error}") from None


def _refuse_codecs(request: DumpRequest, field: Field) -> None:
    unknown = {array.codec for array in field.arrays.values()} - set(CODECS[request.store])
    if unknown:
        known = ", ".join(CODECS[request.store])
        raise InputError(f"dump {request.target.name!r}: codec", expected=f"one of {known}", found=min(unknown))


def _compute_blocks(
    teacher: TeacherLike, seen: Samples, caches: Sequence[tuple[Field, UnfinishedCache]], ranks: Ranks
) -> None:
    """Every block that is not there yet: rows in one pass, then the batches that are made from them."""
    rows: list[tuple[RowField, BlockFiles]] = []
    batches: list[tuple[BatchField, UnfinishedCache, list[Block], BlockFiles]] = []
    for field, unfinished in caches:
        if isinstance(field, RowField):
            rows.append((field, unfinished.blocks))
        elif pending := ranks.agree(unfinished.pending_blocks):
            row_files = unfinished.open_row_files(plan_row_store(field, seen))
            rows.append((field.source, row_files))
            batches.append((field, unfinished, pending, row_files))
    title = "dump " + ", ".join(unfinished.target.name for _, unfinished in caches)
    if ranks.are_several:
        shared = [share_rows(field, blocks, seen.batch) for field, blocks in rows]
        run_shared(shared, ranks, lambda wanted: run_one_pass(teacher, seen, wanted, title))
    else:
        run_one_pass(teacher, seen, [WantedRows(*each, each[1].missing_blocks()) for each in rows], title)
    for field, unfinished, pending, row_files in batches:
        compute, mine = field.prepare(make_gather(row_files)), ranks.take_share(pending)
        write_blocks(unfinished.blocks, track(mine, f"dump {unfinished.target.name}", len(mine)), compute)
    ranks.wait()


def select_samples(dataset: Dataset, *, batch: int, samples: Literal["train", "all"], views: Views) -> Samples:
    """What a teacher answers for; arguments as for `dump_fields`."""
    return Samples(dataset.images, dataset.bounds[0] if samples == "train" else len(dataset), batch, views)


def make_field(teacher: TeacherLike, seen: Samples, field: str, options: Mapping[str, Any]) -> Field:
    """A field that is ready to be computed."""
    made: Field = FIELDS.import_function(field)(teacher, seen, **options)
    return made


def plan_field_store(field: Field, seen: Samples, chunk_kib: int | None) -> StorePlan:
    """How a field's arrays are cut into chunks and blocks; see `DumpRequest`."""
    size = chunk_kib and chunk_kib << 10
    if isinstance(field, BatchField):
        return plan_store(field.arrays, views=field.plans, rows=field.batches, batch=1, chunk_bytes=size)
    return plan_store(field.arrays, views=seen.views.count, rows=seen.rows, batch=seen.batch, chunk_bytes=size)


def plan_row_store(field: BatchField, seen: Samples) -> StorePlan:
    """How the rows that batches are made from are cut while they are kept."""
    return plan_whole_blocks(field.source.arrays, views=1, rows=seen.rows, batch=seen.batch)


def describe_cache(
    card: Mapping[str, Any], dataset: Dataset, request: DumpRequest, field: Field, seen: Samples
) -> dict[str, Any]:
    """The manifest's entries that say what a cache is, of whom and of which data."""
    return {
        "axes": field.axes,
        "field": FieldInfo(name=request.field, parameters=_collect_parameters(request, field)),
        "teacher": TeacherInfo(
            name=card["name"],
            architecture=dict(card["model"]),
            weights_sha256=card["weights_sha256"],
            seed=card.get("seed_number"),
            test_accuracy=card["test_accuracy"],
            test_accuracy_per_class=card["test_accuracy_per_class"],
        ),
        "dataset": DatasetInfo.model_validate({key: dataset.card()[key] for key in DatasetInfo.model_fields}),
        "views": ViewsInfo.model_validate(seen.views.parameters),
        "batch": seen.batch,
    }


def _collect_parameters(request: DumpRequest, field: Field) -> dict[str, Any]:
    """All that decides the values: what the caller leaves out is as the field's function has it."""
    options = inspect.signature(FIELDS.import_function(request.field)).parameters.values()
    defaults = {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}
    return {**select_decisive({**defaults, **request.options}), **field.parameters}
