"""What every stage needs: the study's folder, a folder of unfinished work, a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import psutil

from pipeline.base.errors import InputError
from pipeline.base.files import hash_json, hold_lock, publish_output, recover_output, remove_path, work_in, write_json
from pipeline.base.provenance import hash_code
from pipeline.base.ranks import ALONE, Ranks, find_ranks
from pipeline.base.registry import describe_unknown
from pipeline.runs.own_modules import find_own_modules_in
from pipeline.study.layout import Layout
from pipeline.study.sections import Study

KINDS = ("cpu", "cuda")  # of devices: what one has begun the other cannot go on with to the same bits

P = ParamSpec("P")
T = TypeVar("T")


def in_study_folder(run: Callable[Concatenate[Study, P], T]) -> Callable[Concatenate[Study, P], T]:
    """A function of a study that runs in the study's folder: paths in params.yaml start there."""

    @wraps(run)
    def run_there(study: Study, /, *args: P.args, **kwargs: P.kwargs) -> T:
        find_own_modules_in(study.folder.absolute())
        with work_in(study.folder):
            return run(study, *args, **kwargs)

    return run_there


def find_entry(entries: Mapping[str, T], section: str, name: str, file: str) -> T:
    """The entry of a section of the study's parameters.

    Args:
        entries: of the section, or of several.
        section: their names, for the message.
        name: of the entry.
        file: the parameters' name, for the message.

    Raises:
        InputError: there is none of this name.
    """
    if name not in entries:
        raise InputError(f"{file}: {section}: " + describe_unknown("name", name, entries))
    return entries[name]


@dataclass(frozen=True)
class StageWork:
    """A stage's folder of unfinished work.

    Attributes:
        folder: checkpoints live here; another fingerprint's are never taken up.
        out: becomes the output when the stage is done.
    """

    folder: Path
    out: Path

    def checkpoint(self, number: int = 0, ranks: Ranks = ALONE) -> Path:
        """Where run `number` of the stage keeps its unfinished training; of several processes, each what it has."""
        share = f"-share-{ranks.number}-of-{ranks.count}" if ranks.are_several else ""
        return self.folder / f"checkpoint-{number}{share}.pt"


@contextmanager
def open_stage_work(
    layout: Layout, stage: str, target: Path, *inputs: Any, device: str = "cpu", shared: bool = False
) -> Iterator[StageWork]:
    """Hold the stage's lock, hand out its work folder, publish `out` as `target` at the end.

    Of several processes the first holds and publishes; the others find its folders, and go on when it has published.

    Args:
        layout: of the study.
        stage: its name.
        target: the output.
        inputs: JSON values that decide the result: unfinished work of others is thrown away.
        device: the kind that computes; what another kind has begun is neither taken up nor thrown away.
        shared: whether several processes know how to work on it.

    Raises:
        InputError: several do it that do not; or another command works on it.
    """
    work = layout.work(stage)
    folder = work / f"{device}-{hash_json([hash_code(), *inputs])[:16]}"
    ranks = find_ranks()
    if ranks.are_several and not shared:
        raise InputError(
            stage, expected="one process", found=f"{ranks.count} of torchrun", fix="run it without torchrun"
        )
    if not ranks.is_first:
        ranks.wait()
        yield StageWork(folder, work / "out")
        ranks.wait()  # nothing more is written to it
        ranks.wait()  # it is published
        return
    with hold_lock(layout.work(f"{stage}.lock")):
        recover_output(work / "out", target)
        for stale in work.glob("*"):
            if stale != folder and not _is_of_other_device(stale.name, device):
                remove_path(stale)
        (work / "out").mkdir(parents=True)
        ranks.wait()
        yield StageWork(folder, work / "out")
        ranks.wait()
        publish_output(work / "out", target)
        remove_path(work)
    ranks.wait()


def _is_of_other_device(name: str, device: str) -> bool:
    kind, dash, _ = name.partition("-")
    return bool(dash) and kind != device and kind in KINDS


@contextmanager
def record_seconds(stage: str, device: str | None = None) -> Iterator[None]:
    """Note a stage's wall-clock seconds beside the outputs, not in them; and those that its process had taken before.

    Of a command the latter are its start-up: Python, what it imports, and the check of the study.

    Args:
        stage: its name.
        device: that computes (see `describe_device`), where the stage may choose one.
    """
    startup = max(0.0, time.time() - psutil.Process().create_time())
    start = time.perf_counter()
    yield
    if not find_ranks().is_first:
        return
    taken = {"seconds": round(time.perf_counter() - start, 2), "startup": round(startup, 2)}
    where = {} if device is None else {"device": device}
    write_json(Layout(Path()).timings(stage), {"stage": stage, **where, **taken})
