"""A study -> what its dumps will cost, before anything is spent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pipeline.base.device import resolve_device
from pipeline.base.disk_speed import DiskSpeed, measure_disk_speed
from pipeline.base.errors import InputError, join_names
from pipeline.base.memory import find_budget
from pipeline.base.plain_text import format_duration
from pipeline.base.seeds import fork_seeded_rng
from pipeline.base.sizes import format_size
from pipeline.base.table import Table
from pipeline.cache import Format
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.cost import DumpCost, predict_cost
from pipeline.dumps.dump_fields import refuse_unreadable_request
from pipeline.losses.hooks import prepared_factory
from pipeline.models.build import build_network
from pipeline.runs.datasets import load_or_read
from pipeline.runs.dumps import plan_dump, wanted_cache
from pipeline.runs.networks import describe_network
from pipeline.runs.result import Result
from pipeline.runs.stage_work import in_study_folder
from pipeline.runs.training import training_options
from pipeline.study.dump_stages import list_dump_stages
from pipeline.study.sections import PhaseParams, Study, describe_model
from pipeline.teacher import Ensemble, Teacher

LOG = logging.getLogger(__name__)

ABOUT = (
    "measured with a few batches; a student is one seed's run; `pays from`: students until dumping once is cheaper "
    "than asking a live teacher; an epoch from disk: of what lies in no memory yet"
)
ABOUT_SIZE = "as if the data were as large as you say: images of noise, which compress otherwise than real ones"


@dataclass(frozen=True)
class DataSize:
    """Data as large as another: what a plan is made for where the data are not here.

    Attributes:
        samples: training images.
        shape: (C, H, W) of each.
        classes: their number.
    """

    samples: int | None = None
    shape: tuple[int, int, int] | None = None
    classes: int | None = None

    @property
    def is_whole(self) -> bool:
        """Nothing is left to be read from data."""
        return None not in (self.samples, self.shape, self.classes)


@dataclass(frozen=True)
class _Cost:
    """What a dump will cost, the bytes of its manifest, and how many students of the study read it."""

    prediction: DumpCost
    manifest_bytes: int
    students: int


def _read_size(samples: int | None, shape: str | None, classes: int | None) -> DataSize:
    """A size of data as a command line gives it, its shape as CxHxW.

    Raises:
        InputError: no such shape.
    """
    if shape is None:
        return DataSize(samples, None, classes)
    parts = shape.split("x")
    if len(parts) != len(("C", "H", "W")) or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError("--shape", expected="CxHxW, such as 3x224x224", found=ascii(shape))
    channels, height, width = map(int, parts)
    return DataSize(samples, (channels, height, width), classes)


@in_study_folder
def plan_dumps(
    study: Study,
    device: str = "auto",
    *,
    samples: int | None = None,
    shape: str | None = None,
    classes: int | None = None,
) -> Result:
    """Predict each dump's bytes, files and seconds, from how many students on it pays, and what an epoch reads of it.

    Args:
        study: with the dumps.
        device: where the teachers will run.
        samples, shape, classes: as if the data had so many training images, of this shape (CxHxW), of so many classes;
            where all three are given, no data are needed.

    Raises:
        InputError: no such shape, or no data where some are needed.
    """
    size = _read_size(samples, shape, classes)
    disk, where = measure_disk_speed(Path()), resolve_device(device)
    datasets: dict[str, Dataset] = {}
    costs: dict[str, _Cost] = {}
    for name, spec in study.dumps.items():
        if spec.of in study.students or study.teachers[spec.of].external is None:
            if spec.dataset not in datasets:
                datasets[str(spec.dataset)] = _find_data(study, str(spec.dataset), size)
            costs[name] = _predict(study, name, datasets[str(spec.dataset)], disk, where)
    values = {
        name: {
            **asdict(cost.prediction),
            "pays_from": cost.prediction.pays_from,
            "manifest_bytes": cost.manifest_bytes,
            "students": cost.students,
        }
        for name, cost in costs.items()
    }
    nothing = f"nothing to plan: {study.file} has no dump of a teacher or student that is run here"
    notes = (ABOUT,) if size == DataSize() else (ABOUT, ABOUT_SIZE)
    return Result(values, text=(_table(study, costs), *_sum_up(study, costs), *notes) if costs else (nothing,))


def _sum_up(study: Study, costs: Mapping[str, _Cost]) -> list[str]:
    """What passes `dvc repro` saves, a line for each stage of several dumps; and all dumps together."""
    made = {name: cost.prediction for name, cost in costs.items()}
    lines, saved = [], 0.0
    for stage in list_dump_stages(study):
        passes = [made[name].pass_seconds for name in stage.dumps if name in made]
        if len(passes) > 1:
            spared = sum(passes) - max(passes)
            saved += spared
            lines.append(
                f"{stage.name}: {join_names(stage.dumps)} in one pass, where {len(passes)} would take "
                f"{format_duration(spared)} more"
            )
    size, seconds = sum(each.bytes for each in made.values()), sum(each.dump_seconds for each in made.values()) - saved
    return [*lines, f"all dumps: {format_size(size)}, {format_duration(seconds)}"]


def _find_data(study: Study, name: str, size: DataSize) -> Dataset:
    """A configured data set, or noise of another size, that takes no memory: an image begins a byte after the last."""
    known = None if size.is_whole else load_or_read(study, name)
    if known is not None and size == DataSize():
        return known
    samples = size.samples or (known.bounds[0] if known else 0)
    shape = size.shape or (known.shape if known else (0, 0, 0))
    classes = tuple(f"class {number}" for number in range(size.classes)) if size.classes else known and known.classes
    zeros = np.broadcast_to(np.zeros((), np.int64), (samples,))
    empty = np.empty(shape, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, samples + empty.size, np.uint8)
    return Dataset(
        images=np.lib.stride_tricks.as_strided(noise, (samples, *shape), (1, *empty.strides), writeable=False),
        labels=zeros,
        bounds=(samples, samples),
        classes=classes or (),
        origin=zeros,
        name=name,
        known_fingerprint="f" * 64,
    )


def _table(study: Study, costs: Mapping[str, _Cost]) -> Table:
    """A column a dump: they are few, and their facts many."""
    facts = [_describe(study.dumps[name].field, cost) for name, cost in costs.items()]
    rows = [(what, *(each[what] for each in facts)) for what in facts[0]]
    return Table("predicted", ("", *costs), rows)


def _describe(field: str, cost: _Cost) -> dict[str, object]:
    """What is told of a dump, by its heading."""
    made = cost.prediction
    return {
        "field": field,
        "bytes of rows": f"{made.bytes:,}",
        "files": f"{made.files:,}",
        "manifest, at most": f"{cost.manifest_bytes:,}",
        "chunk table": f"{made.table_bytes:,}",
        "dump": format_duration(made.dump_seconds),
        "first open": format_duration(made.first_open_seconds),
        "live teacher, a student": format_duration(made.live_seconds),
        "pays from": "never" if made.pays_from is None else made.pays_from,
        "students here": cost.students,
        "an epoch from disk reads": format_size(made.epoch_bytes),
        "and takes": format_duration(made.epoch_seconds),
    }


def _predict(study: Study, name: str, dataset: Dataset, disk: DiskSpeed, device: torch.device) -> _Cost:
    spec = study.dumps[name]
    teacher = _build_untrained(study, spec.of, dataset, device)
    field, seen = plan_dump(spec, study, teacher, dataset)
    manifest_bytes = 0
    try:
        manifest_bytes = refuse_unreadable_request(teacher.card, dataset, wanted_cache(study, name), field, seen)
    except InputError as error:
        LOG.warning("dump %r would be refused: %s", name, error)
    epochs = _reading_epochs(study, name, dataset)
    mean = round(sum(epochs) / len(epochs)) if epochs else study.views.count
    store = cast("Format", spec.format)
    memory = find_budget(None, torch.device("cpu"))
    made = predict_cost(
        teacher, field, seen, store=store, chunk_kib=spec.chunk_kib, epochs=mean, disk=disk, memory=memory
    )
    if doubt := _find_slow_reading(study, name, made, memory):
        LOG.warning("dump %r would be slow to train from: %s", name, doubt)
    return _Cost(made, manifest_bytes, len(epochs))


def _find_slow_reading(study: Study, name: str, made: DumpCost, memory: int) -> str | None:
    """Why a field that no memory holds would be slow to train from, and what to do; None: it would not be."""
    if made.decoded_bytes <= memory:
        return None
    size = f"its rows take {format_size(made.decoded_bytes)} decoded, where memory has room for {format_size(memory)}"
    shuffled = sorted(
        student
        for student, params in study.students.items()
        if any(name in phase.list_dumps() and not phase.has_order for phase in params.phases)
    )
    if made.packed and shuffled:
        return f"{size}, and it is compressed: set order: blocks in {join_names(shuffled)}, or codec: none here"
    if made.epoch_seconds > made.live_epoch_seconds:
        read = f"{format_duration(made.epoch_seconds)} for an epoch's {format_size(made.epoch_bytes)}"
        return (
            f"{size}, and this disk needs {read}, the teacher itself {format_duration(made.live_epoch_seconds)}: "
            "store less a sample (float16, top_k, pool), or use a faster disk"
        )
    return None


def _reading_epochs(study: Study, dump: str, dataset: Dataset) -> list[int]:
    """How often a live teacher would be asked for a dump's answers, by each run that reads them."""
    rows = dataset.bounds[0]
    readers = [student for student in study.students.values() if dump in student.list_all_dumps()]
    return [
        sum(_count_queries(phase, dump, training_options(phase).count_epochs(rows)) for phase in each.phases)
        for each in readers
        for _ in range(each.seeds)
    ]


def _count_queries(phase: PhaseParams, dump: str, epochs: int) -> int:
    """How often a phase would ask: once where the answers are only read before it."""
    queries = [1 if prepared_factory(term.loss) else epochs for term in phase.losses.values() if dump in term.dumps]
    return max(queries, default=0)


def _build_untrained(study: Study, name: str, dataset: Dataset, device: torch.device) -> Teacher:
    """A teacher of the right architecture: what it costs does not depend on its weights.

    Its card has the entries, as long as they will be, that a dump's manifest takes from it.
    """
    source = study.teachers.get(name) or study.students[name]
    names = getattr(source, "members", None) or ()
    members = [study.teachers[member] for member in names] if names else [source]
    models = [describe_model(member) for member in members if member.model is not None]
    with fork_seeded_rng(0, device):  # so that a plan says the same twice of how its rows compress
        shape, classes = dataset.shape, len(dataset.classes)
        networks = [build_network(model, shape, classes, files=False).to(device) for model in models]
    some = 1 / 3
    measured: dict[str, Any] = {"test_accuracy": some, "test_accuracy_per_class": [some] * len(dataset.classes)}
    entries = {**describe_network(name, source, dataset), **measured, "weights_sha256": "f" * 64}
    return Teacher(Ensemble(networks), entries, device)
