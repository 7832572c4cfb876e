"""What all benchmarks share: timing side by side, the machine, results as JSON, and tables made from those.

A benchmark yields rows; `record` prints each, and writes them all to `results/NAME.json` (`NAME-cuda.json` on a
GPU). `readme.py` makes the tables of README.md from these files.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands do; benchmarks import this module before torch

RESULTS = Path(__file__).parent / "results"
UNMEASURED = "not yet measured"


# --- what a result says ----------------------------------------------------------------------------


class Value(BaseModel):
    """Frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(Value):
    """What n repeats gave."""

    median: float
    least: float
    greatest: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        ordered = sorted(values)
        median, least, greatest = (_round(each) for each in (statistics.median(ordered), ordered[0], ordered[-1]))
        return cls(median=median, least=least, greatest=greatest, n=len(ordered))

    def __str__(self) -> str:
        ends = f"{format_number(self.least)} to {format_number(self.greatest)}"
        return f"{format_number(self.median)} ({ends}, n = {self.n})"


class Goal(Value):
    """What a row's first value should be."""

    at_least: float | None = None
    at_most: float | None = None

    def verdict(self, value: Spread | float | None) -> str:
        """The goal in words, and whether a value (a median) reaches it."""
        goal = f"at most {self.at_most:g}" if self.at_least is None else f"at least {self.at_least:g}"
        if value is None:
            return goal
        found = value.median if isinstance(value, Spread) else value
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return f"{goal}: reached" if low <= found <= high else f"{goal}: **not reached**"


class Row(Value):
    """One line of a table.

    Attributes:
        labels: by column, what was measured.
        values: by column, the numbers; None where nobody has measured yet.
    """

    labels: Mapping[str, str]
    values: Mapping[str, Spread | float | None]
    goal: Goal | None = None

    def cells(self) -> dict[str, str]:
        """By column, the text."""
        values = {column: UNMEASURED if value is None else _text(value) for column, value in self.values.items()}
        goal = {} if self.goal is None else {"goal": self.goal.verdict(next(iter(self.values.values())))}
        return {**self.labels, **values, **goal}

    def unmeasured(self) -> Self:
        """The same line of a GPU that nobody has tried."""
        return self.model_copy(
            update={"labels": {**self.labels, "device": "GPU"}, "values": dict.fromkeys(self.values)}
        )


class Machine(Value):
    """What the numbers were taken on; no host name, no path."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    threads: dict[str, int]
    gpu: str | None

    def __str__(self) -> str:
        threads = ", ".join(f"{name} {count}" for name, count in self.threads.items())
        gpu = f"{self.gpu}, " if self.gpu else ""
        return f"{gpu}{self.processor}, {self.cores} cores, {self.memory_gib:g} GiB, {self.system}; threads: {threads}"


class Result(Value):
    """One run of one benchmark.

    Attributes:
        options: of the command, that decide what was measured.
        versions: of Python, this project and what it was compared with.
        left_out: peers that were not installed.
        load: the machine's load average of one minute, before and after: other work shows here.
        tables: the rows, by the name of their table.
    """

    benchmark: str
    options: dict[str, int | str | list[int]]
    machine: Machine
    versions: dict[str, str]
    left_out: list[str]
    load: tuple[float, float]
    tables: dict[str, list[Row]]

    def conditions(self) -> str:
        """A sentence or two: machine, versions, options, load."""
        versions = ", ".join(f"{name} {found}" for name, found in self.versions.items())
        options = ", ".join(f"{name} {_text(value)}" for name, value in self.options.items())
        load = f"load {self.load[0]:.1f} before, {self.load[1]:.1f} after"
        left_out = f" Not installed, left out: {', '.join(self.left_out)}." if self.left_out else ""
        return f"{self.machine}. {versions}. Options: {options}; {load}.{left_out}"

    def to_json(self) -> str:
        """As a file has it: a row is a line, so that two runs can be compared line by line."""
        head = self.model_dump_json(indent=1, exclude={"tables"}).removesuffix("\n}")
        rows = {
            name: ",\n".join(f"   {row.model_dump_json(exclude_defaults=True)}" for row in rows)
            for name, rows in self.tables.items()
        }
        tables = ",\n".join(f'  "{name}": [\n{lines}\n  ]' for name, lines in rows.items())
        return f'{head},\n "tables": {{\n{tables}\n }}\n}}\n'


# --- timing ----------------------------------------------------------------------------------------


def seconds(action: Callable[[], object], calls: int = 1) -> float:
    """Wall-clock seconds of a call, the median of some: short ones suffer from whatever else runs."""
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def interleave(
    sides: Mapping[str, Callable[[], float]], repeats: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """What each side returns (seconds) in each repeat, one side behind the other, the order turned each time.

    Args:
        sides: by name.
        repeats: those that count.
        warm_up: whether one more repeat goes before, and is thrown away.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + warm_up):
        for name in reversed(list(sides)) if number % 2 else sides:
            found[name].append(sides[name]())
    return {name: each[warm_up:] for name, each in found.items()}


def ratios(numerators: Iterable[float], denominators: Iterable[float]) -> Spread:
    """Of two sides, each ratio within one repeat."""
    return Spread.of(one / other for one, other in zip(numerators, denominators, strict=True))


# --- recording -------------------------------------------------------------------------------------


def parser(text: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--results", type=Path, default=RESULTS, help="the folder of the JSON files")
    return made


def record(
    benchmark: str,
    measured: Iterable[tuple[str, Row]],
    options: argparse.Namespace,
    libraries: Sequence[str],
    **settings: str | list[int] | int,
) -> None:
    """Measure: print each row when it is there, then write the result.

    Args:
        benchmark: its name.
        measured: (table, row), measured while they are drawn.
        options: of the command.
        libraries: whose versions matter.
        settings: further options that decide what is measured. No paths.
    """
    before = load_average()
    tables: dict[str, list[Row]] = {}
    for table, row in measured:
        print(" | ".join(row.cells().values()), flush=True)
        tables.setdefault(table, []).append(row)
    versions, left_out = find_versions(libraries)
    result = Result(
        benchmark=benchmark, options={"repeats": options.repeats, **settings}, machine=describe_machine(options.device),
        versions=versions, left_out=left_out, load=(before, load_average()), tables=tables,
    )  # fmt: skip
    name = f"{benchmark}-cuda" if options.device.startswith("cuda") else benchmark
    options.results.mkdir(exist_ok=True)
    (options.results / f"{name}.json").write_text(result.to_json(), encoding="utf-8", newline="\n")
    print(result.conditions())


def open_device(name: str, *, threads: int | None = None) -> torch.device:
    """The device of that name, as users' runs open it; on the CPU with so many threads."""
    import torch

    from pipeline.base.device import resolve_device

    device = resolve_device(name)
    if threads is not None and device.type == "cpu":
        torch.set_num_threads(threads)
    return device


def name_device(device: str) -> str:
    """As the tables have it: CPU, or the name of the GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def describe_machine(device: str) -> Machine:
    """The machine that this runs on."""
    import torch
    from threadpoolctl import threadpool_info

    threads = {"torch": torch.get_num_threads()}
    threads |= {info["internal_api"]: info["num_threads"] for info in threadpool_info()}
    return Machine(
        processor=find_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=" ".join((platform.system(), platform.machine(), *platform.libc_ver())).strip(),
        threads=threads,
        gpu=name_device(device) if device.startswith("cuda") else None,
    )


def find_processor() -> str:
    """Its model's name, where the system says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def find_versions(libraries: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Versions by name, and the names of what is not installed."""
    from pipeline import __version__

    found, missing = {"Python": platform.python_version(), "teachercache": __version__}, []
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    return found, missing


def load_average() -> float:
    """Of the last minute."""
    return round(float(psutil.getloadavg()[0]), 2)


# --- tables ----------------------------------------------------------------------------------------


def make_table(rows: Iterable[Row]) -> str:
    """Rows as Markdown; a column that a row does not have stays empty in it."""
    cells = [row.cells() for row in rows]
    columns = sorted(dict.fromkeys(column for row in cells for column in row), key="goal".__eq__)  # the goal comes last
    lines = [columns, ["---"] * len(columns), *([row.get(column, "") for column in columns] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_number(value: float, digits: int = 3) -> str:
    """Some digits: 0.00310, 1.05, 16.8, 26,100; one where it is tiny: 7e-09."""
    value = _round(value, digits)
    if value and abs(value) < 1e-4:
        return f"{value:.0e}"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(each) for each in value)
    return format_number(value, 4) if isinstance(value, float) else str(value)


def _round(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
