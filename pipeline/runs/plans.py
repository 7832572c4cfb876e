"""A study -> what its dumps will cost, before anything is spent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError
from pipeline.base.table import Table
from pipeline.cache import Format
from pipeline.datasets.dataset import Dataset
from pipeline.dumps.cost import DiskSpeed, DumpCost, measure_disk_speed, predict_cost
from pipeline.dumps.dump_fields import refuse_unreadable_request
from pipeline.losses.hooks import prepared_factory
from pipeline.models.build import build_network
from pipeline.runs.datasets import load_or_read
from pipeline.runs.dumps import plan_dump, wanted_cache
from pipeline.runs.networks import describe_network
from pipeline.runs.result import Result
from pipeline.runs.stage_work import in_study_folder
from pipeline.runs.training import training_options
from pipeline.study.sections import PhaseParams, Study, describe_model
from pipeline.teacher import Ensemble, Teacher

LOG = logging.getLogger(__name__)

COLUMNS = (
    *("dump", "field", "bytes of rows", "files"),
    *("dump (s)", "live teacher (s a student)", "pays from", "students here"),
)
ABOUT = (
    "measured with a few batches; a student is one seed's run; "
    "`pays from`: students until dumping once is cheaper than asking a live teacher"
)


@dataclass(frozen=True)
class _Cost:
    """What a dump will cost, and how many students of the study read it."""

    prediction: DumpCost
    students: int


@in_study_folder
def plan_dumps(study: Study, device: str = "auto") -> Result:
    """Predict each dump's bytes, files and seconds, and from how many students on it pays."""
    disk, where = measure_disk_speed(Path()), resolve_device(device)
    datasets: dict[str, Dataset] = {}
    costs: dict[str, _Cost] = {}
    for name, spec in study.dumps.items():
        if spec.of in study.students or study.teachers[spec.of].external is None:
            if spec.dataset not in datasets:
                datasets[str(spec.dataset)] = load_or_read(study, str(spec.dataset))
            costs[name] = _predict(study, name, datasets[str(spec.dataset)], disk, where)
    values = {
        name: {**asdict(cost.prediction), "pays_from": cost.prediction.pays_from, "students": cost.students}
        for name, cost in costs.items()
    }
    nothing = f"nothing to plan: {study.file} has no dump of a teacher or student that is run here"
    return Result(values, text=(_table(study, costs), ABOUT) if costs else (nothing,))


def _table(study: Study, costs: Mapping[str, _Cost]) -> Table:
    return Table("predicted", COLUMNS, [_cells(name, study.dumps[name].field, cost) for name, cost in costs.items()])


def _cells(name: str, field: str, cost: _Cost) -> tuple[object, ...]:
    made = cost.prediction
    pays = "never" if made.pays_from is None else made.pays_from
    return (
        *(name, field, f"{made.bytes:,}", f"{made.files:,}"),
        *(f"{made.dump_seconds:.2g}", f"{made.live_seconds:.2g}", pays, cost.students),
    )


def _predict(study: Study, name: str, dataset: Dataset, disk: DiskSpeed, device: torch.device) -> _Cost:
    spec = study.dumps[name]
    teacher = _build_untrained(study, spec.of, dataset, device)
    field, seen = plan_dump(spec, study, teacher, dataset)
    try:
        refuse_unreadable_request(teacher.card, dataset, wanted_cache(study, name), field, seen)
    except InputError as error:
        LOG.warning("dump %r would be refused: %s", name, error)
    epochs = _reading_epochs(study, name, dataset)
    mean = round(sum(epochs) / len(epochs)) if epochs else study.views.count
    store = cast("Format", spec.format)
    made = predict_cost(teacher, field, seen, store=store, chunk_kib=spec.chunk_kib, epochs=mean, disk=disk)
    return _Cost(made, len(epochs))


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
    networks = [build_network(model, dataset.shape, len(dataset.classes), files=False).to(device) for model in models]
    some = 1 / 3
    measured: dict[str, Any] = {"test_accuracy": some, "test_accuracy_per_class": [some] * len(dataset.classes)}
    entries = {**describe_network(name, source, dataset), **measured, "weights_sha256": "f" * 64}
    return Teacher(Ensemble(networks), entries, device)
