"""Parts of a dump, computed where no disk is shared, and joined to the cache that one process would have made.

A part is a folder with the pieces (or blocks) of every n-th segment, as several processes share them out, and a
`part.json`, which says of what they are and holds their digests.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from pipeline.base.errors import InputError, join_names
from pipeline.base.files import (
    hash_file,
    publish_output,
    read_json,
    refuse_irregular_file,
    remove_path,
    write_json,
)
from pipeline.base.progress import track
from pipeline.base.ranks import Ranks
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.codecs import Codec, Format
from pipeline.cache.dtypes import DType
from pipeline.cache.manifest import (
    ArrayName,
    DatasetInfo,
    Digest,
    FieldInfo,
    Manifest,
    TeacherInfo,
    ViewsInfo,
)
from pipeline.cache.manifest_entries import to_plain_entries
from pipeline.cache.store_plan import StorePlan, plan_store
from pipeline.cache.writer import UnfinishedCache, open_unfinished
from pipeline.dumps.field import RowField
from pipeline.dumps.shared_pass import SharedRows, share_rows

PART_FILE = "part.json"
MOST_PARTS = 9999
AGAIN = "copy the part again, or dump it again with `--part`"
DESCRIBED: Mapping[str, type[BaseModel]] = {
    "field": FieldInfo,
    "teacher": TeacherInfo,
    "dataset": DatasetInfo,
    "views": ViewsInfo,
}


class _ArrayEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    row_shape: tuple[PositiveInt, ...]
    dtype: DType
    codec: Codec


class PartInfo(BaseModel):
    """What a part is of: two of one dump differ in `number` and `files` alone.

    Attributes:
        number, count: which of how many, from 1.
        plan: digest of all that decides a block's bytes, the code included.
        device: the kind that computed.
        store, batch, chunk_kib, arrays, views, rows: of the cache to be.
        description: the entries of its manifest.
        files: SHA-256 of each piece or block, by its path in the part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["teachercache part"] = "teachercache part"
    version: Literal[1] = 1
    number: Annotated[int, Field(ge=1, le=MOST_PARTS)]
    count: Annotated[int, Field(ge=1, le=MOST_PARTS)]
    plan: str
    device: Literal["cpu", "cuda"]
    store: Format
    batch: PositiveInt
    chunk_kib: PositiveInt | None
    arrays: Annotated[dict[ArrayName, _ArrayEntry], Field(min_length=1, max_length=1000)]
    views: PositiveInt
    rows: PositiveInt
    description: dict[str, Any]
    files: dict[str, Digest]

    @field_validator("description")
    @classmethod
    def _check_description(cls, described: dict[str, Any]) -> dict[str, Any]:
        """As a manifest has these entries."""
        for key, kind in DESCRIBED.items():
            kind.model_validate(described.get(key))
        return described

    def of_all(self) -> dict[str, Any]:
        """What all parts of a dump say alike."""
        return self.model_dump(exclude={"number", "files"})

    def plan_store(self) -> StorePlan:
        """How the cache's arrays are cut."""
        arrays = {name: ArrayPlan(**entry.model_dump()) for name, entry in self.arrays.items()}
        size = self.chunk_kib and self.chunk_kib << 10
        return plan_store(arrays, views=self.views, rows=self.rows, batch=self.batch, chunk_bytes=size)


@dataclass(frozen=True)
class Part:
    """Which part of a dump: `number` of `count`, from 1."""

    number: int
    count: int

    def share(self) -> Ranks:
        """The process that it stands for."""
        return Ranks(self.number - 1, self.count)

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


def publish_part(
    unfinished: UnfinishedCache,
    shared: SharedRows,
    part: Part,
    target: Path,
    *,
    batch: int,
    chunk_kib: int | None,
    device: Literal["cpu", "cuda"],
) -> Path:
    """Put the segments of a part, all computed, in a folder of their own, with what they are.

    Args:
        unfinished: the dump's work, which is gone then.
        shared: its rows.
        part: which of their segments.
        target: the folder.
        batch, chunk_kib, device: as of the dump.
    """
    made = unfinished.work / "part"
    remove_path(made)
    files = {}
    for path in shared.list_files(part.share()):
        place = path.relative_to(unfinished.blocks.folder)
        (made / place).parent.mkdir(parents=True, exist_ok=True)
        path.replace(made / place)
        files[place.as_posix()] = hash_file(made / place)
    plan = unfinished.blocks.plan
    info = PartInfo(
        number=part.number,
        count=part.count,
        plan=unfinished.blocks.folder.name,
        device=device,
        store=unfinished.blocks.store,
        batch=batch,
        chunk_kib=chunk_kib,
        arrays={name: _ArrayEntry(**vars(array)) for name, array in plan.arrays.items()},
        views=plan.views,
        rows=plan.rows,
        description=to_plain_entries(unfinished.description),
        files=files,
    )
    made.mkdir(parents=True, exist_ok=True)
    write_json(made / PART_FILE, info.model_dump(mode="json"))
    publish_output(made, target)
    remove_path(unfinished.work)
    return target


def merge_parts(folders: Sequence[Path], target: Path, work: Path) -> Manifest:
    """Join all parts of a dump, each checked against its digests, to its cache.

    Args:
        folders: of the parts, in any order.
        target: the cache's folder.
        work: for unfinished work, on the same file system.

    Raises:
        InputError: a part is damaged, missing, there twice, or of another dump, or was made by another version.
    """
    infos = {folder: _read_part(folder) for folder in folders}
    first = _refuse_mixture(infos)
    plan = first.plan_store()
    with open_unfinished(
        target, work, plan, store=first.store, description=first.description, device=first.device
    ) as unfinished:
        if unfinished.blocks.folder.name != first.plan:
            raise InputError(
                str(folders[0]),
                expected="parts that this version of teachercache has made",
                found="parts of another",
                fix="merge with the version that dumped, or dump again",
            )
        shared = share_rows(_without_network(plan), unfinished.blocks, first.batch)
        for folder, info in infos.items():
            _refuse_other_files(folder, info, shared)
        _copy_files(infos, unfinished)
        damaged = shared.find_missing()
        if damaged:  # as its maker left it
            raise InputError("parts", expected="whole pieces", found=f"none of {damaged[0]}", fix=AGAIN)
        for block in unfinished.pending_blocks():
            shared.join_pieces(block)
        return unfinished.publish()


def _refuse_other_files(folder: Path, info: PartInfo, shared: SharedRows) -> None:
    """Raise InputError unless a part lists just the files of its segments."""
    paths = shared.list_files(Part(info.number, info.count).share())
    expected = {path.relative_to(shared.blocks.folder).as_posix() for path in paths}
    if info.files.keys() != expected:
        other = min(info.files.keys() ^ expected)
        raise InputError(f"{folder / PART_FILE}: files", expected="those of its segments", found=other, fix=AGAIN)


def _read_part(folder: Path) -> PartInfo:
    path = folder / PART_FILE
    refuse_irregular_file(path, "a part's description")
    try:
        return PartInfo.model_validate(read_json(path, AGAIN))
    except RecursionError:
        raise InputError(str(path), expected="JSON", found="too many levels", fix=AGAIN) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {place}", expected=first["msg"], found=str(first["input"]), fix=AGAIN) from None


def _refuse_mixture(infos: Mapping[Path, PartInfo]) -> PartInfo:
    """What all parts say; refused unless they are all parts of one dump, each once."""
    (folder, first), *others = infos.items()
    for path, info in others:
        if info.of_all() != first.of_all():
            raise InputError(str(path), expected=f"a part of the dump that {folder} is of", found="one of another")
    numbers = [info.number for info in infos.values()]
    missing = sorted({*range(1, first.count + 1)} - {*numbers})
    if missing or len(numbers) > first.count:
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        told = f"no part {join_names([str(number) for number in missing])}" if missing else f"part {twice[0]} twice"
        raise InputError("parts", expected=f"each of {first.count}, once", found=told)
    return first


def _copy_files(infos: Mapping[Path, PartInfo], unfinished: UnfinishedCache) -> None:
    """Bring all pieces and blocks together."""
    listed = [(folder, place, digest) for folder, info in infos.items() for place, digest in info.files.items()]
    for folder, place, digest in track(listed, f"merge {unfinished.target.name}", len(listed)):
        copy = unfinished.blocks.folder / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        refuse_irregular_file(folder / place, "a file of the part")
        try:
            shutil.copyfile(folder / place, copy)
        except FileNotFoundError:
            raise InputError(str(folder / place), expected="a file of the part", found="nothing", fix=AGAIN) from None
        if hash_file(copy) != digest:
            copy.unlink()
            raise InputError(str(folder / place), expected=f"SHA-256 {digest[:12]}...", found="another", fix=AGAIN)


def _without_network(plan: StorePlan) -> RowField:
    """A field of which no more rows can be computed."""
    return RowField(plan.arrays, (), _refuse_rows)


def _refuse_rows(_: object) -> Mapping[str, Any]:
    raise AssertionError("a merge computes no rows")
