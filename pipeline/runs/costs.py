"""Trained students -> what each takes, how right it is, and the smallest one that is right often enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError, join_names
from pipeline.base.expected_values import differences
from pipeline.base.statistics import Summary
from pipeline.base.table import Table
from pipeline.models.cost import ImageCost, measure_image_cost
from pipeline.models.latency import Latency, measure_latencies
from pipeline.models.network import Network
from pipeline.models.size import count_bits
from pipeline.runs.metrics_files import read_metrics
from pipeline.runs.networks import find_network, load_student, recorded_weights
from pipeline.runs.result import Result
from pipeline.runs.stage_work import find_entry, in_study_folder
from pipeline.study.layout import Layout
from pipeline.study.sections import Study

BATCHES = (1, 128)  # images a pass: one that somebody waits for, and many at once
COLUMNS = ("student", "test accuracy", "std", "n", "parameters", "bits", "multiply-adds", "activation bytes")


@dataclass(frozen=True)
class _Student:
    """A trained student: the accuracy of all its seeds; what the network of the first one takes."""

    network: Network
    shape: tuple[int, int, int]
    dataset: str
    accuracy: Summary
    parameters: int
    bits: int
    cost: ImageCost

    def describe(self, latencies: Mapping[int, Latency]) -> dict[str, Any]:
        """Its numbers, as JSON; latencies by batch."""
        return {
            "dataset": self.dataset,
            "test_accuracy": asdict(self.accuracy),
            "parameters": self.parameters,
            "bits": self.bits,
            **asdict(self.cost),
            "latency": {str(batch): asdict(latency) for batch, latency in latencies.items()},
        }

    def format_row(self, latencies: Mapping[int, Latency]) -> list[str]:
        """The cells of the table, without its name."""
        accuracy, std = self.accuracy.mean, self.accuracy.std
        sizes = self.parameters, self.bits, self.cost.multiply_adds, self.cost.activation_bytes
        return [
            f"{accuracy:.4f}",
            "" if std is None else f"{std:.4f}",
            str(self.accuracy.n),
            *(f"{size:,}" for size in sizes),
            *(_format_milliseconds(latency) for latency in latencies.values()),
        ]


@in_study_folder
def measure_costs(
    study: Study,
    students: Sequence[str] = (),
    device: str = "auto",
    *,
    accuracy: float | None = None,
    repeats: int = 30,
    threads: int | None = None,
) -> Result:
    """Say what trained students take, how long their passes take here, and which is the smallest of those right enough.

    Args:
        study: with the students.
        students: their names, or those of grids, for all members; all that are trained unless given.
        device: where the passes are timed.
        accuracy: mean test accuracy in [0, 1] that the smallest one is to reach; None: none is looked for.
        repeats: of each pass.
        threads: of torch on the CPU; None: as many as it takes by itself.

    Raises:
        InputError: no such student, one that is named and not trained, or none that is.
    """
    where = resolve_device(device)
    trained, notes = _find_trained(study, students)
    found = {name: _load(study, name, where) for name in trained}
    with _use_threads(threads):
        machine = {"device": str(where), "threads": torch.get_num_threads(), "repeats": repeats}
        latencies = _measure_latencies(found, where, repeats)
    chosen = None if accuracy is None else _choose_smallest(found, accuracy)
    return Result(
        {
            "machine": machine,
            "students": {name: student.describe(latencies[name]) for name, student in found.items()},
            **({} if chosen is None else {"smallest": chosen}),
        },
        text=(
            _make_table(found, latencies),
            "latency: median of {repeats} passes (quartiles), {device}, {threads} threads".format(**machine),
            *([] if chosen is None or accuracy is None else _tell_smallest(found, chosen, accuracy)),
        ),
        notes=notes,
    )


def _find_trained(study: Study, named: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The students to measure, in the order given or else the study's, and what is said of those left out.

    Raises:
        InputError: see `measure_costs`.
    """
    for name in named:
        find_entry({**study.students, **study.grids}, "students", name, study.file)
    if named:
        return [member for name in named for member in study.list_trained_with(name)], ()
    trained = [name for name in study.students if _is_trained(name)]
    if not trained:
        raise InputError(f"{study.file}: students", expected="at least one that is trained", found="none")
    others = [name for name in study.students if name not in trained]
    return trained, (f"not trained, and left out: {join_names(others)}",) if others else ()


def _is_trained(student: str) -> bool:
    layout = Layout(Path())
    return layout.metrics("students", student).exists() and (layout.network(student, 0) / "card.json").exists()


def _load(study: Study, name: str, device: torch.device) -> _Student:
    """A student whose metrics are those of its weights.

    Raises:
        InputError: it is not trained, damaged, another than params.yaml says, or of another run than its metrics.
    """
    fix = find_network(study, name)[1]
    network, card = load_student(study, name, 0, device)
    path = Layout(Path()).metrics("students", name)
    metrics = read_metrics(path, "student", fix, keys=("test_accuracy", "weights_sha256"))
    made = card["weights_sha256"]
    if list(differences(recorded_weights(study, "student", name), made)):
        expected = f"the weights that its metrics name, {metrics['weights_sha256'][0][:12]}..."
        raise InputError(f"student {name!r}", expected=expected, found=f"{made[:12]}...", fix=fix)
    shape = tuple(card["shape"])
    return _Student(
        network,
        shape,
        str(study.students[name].dataset),
        Summary(**metrics["test_accuracy"]),
        network.parameter_count(),
        count_bits(network),
        measure_image_cost(network, shape),
    )


@contextmanager
def _use_threads(threads: int | None) -> Iterator[None]:
    """So many of torch's threads while it is open; None: as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure_latencies(
    students: Mapping[str, _Student], device: torch.device, repeats: int
) -> dict[str, dict[int, Latency]]:
    """By student and batch. The images are noise: how long a pass takes does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    passes: dict[tuple[str, int], tuple[Network, Tensor]] = {}
    for name, student in students.items():
        images = torch.randint(0, 256, (max(BATCHES), *student.shape), dtype=torch.uint8, generator=generator)
        passes |= {(name, batch): (student.network, images[:batch].to(device)) for batch in BATCHES}
    found = measure_latencies(passes, repeats)
    return {name: {batch: found[name, batch] for batch in BATCHES} for name in students}


def _make_table(students: Mapping[str, _Student], latencies: Mapping[str, Mapping[int, Latency]]) -> Table:
    columns = *COLUMNS, *(f"{batch} image{'s' * (batch > 1)} (ms)" for batch in BATCHES)
    return Table("", columns, [(name, *each.format_row(latencies[name])) for name, each in students.items()])


def _format_milliseconds(latency: Latency) -> str:
    low, median, high = (f"{1000 * seconds:.3g}" for seconds in (latency.low, latency.median, latency.high))
    return f"{median} ({low} to {high})"


def _choose_smallest(students: Mapping[str, _Student], accuracy: float) -> dict[str, str | None]:
    """By data set, the student of the fewest multiply-adds, then parameters, then the most accurate, then the first."""
    chosen: dict[str, str | None] = {}
    for dataset in dict.fromkeys(student.dataset for student in students.values()):
        enough = {
            name: (each.cost.multiply_adds, each.parameters, -each.accuracy.mean)
            for name, each in students.items()
            if each.dataset == dataset and each.accuracy.mean >= accuracy
        }
        chosen[dataset] = min(enough, key=lambda name: enough[name], default=None)
    return chosen


def _tell_smallest(
    students: Mapping[str, _Student], chosen: Mapping[str, str | None], accuracy: float
) -> Iterator[str]:
    """A line a data set: the one that is chosen, or how far the nearest is."""
    for dataset, name in chosen.items():
        where = f" on {dataset}" if len(chosen) > 1 else ""
        if name is not None:
            takes = f"{students[name].cost.multiply_adds:,} multiply-adds, {students[name].parameters:,} parameters"
            yield f"smallest that reaches {accuracy:g}{where}: {name}, {students[name].accuracy.mean:.4f}, {takes}"
            continue
        means = {each: student.accuracy.mean for each, student in students.items() if student.dataset == dataset}
        nearest = max(means, key=lambda each: means[each])
        short = f"{means[nearest]:.4f}, {accuracy - means[nearest]:.4f} short of it"
        yield f"none reaches {accuracy:g}{where}; the nearest is {nearest}, {short}"
