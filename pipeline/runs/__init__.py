"""What each stage does, callable from Python: a study in, files out, and what its command prints as a value.

from pipeline import runs

study = runs.open_study("params.yaml")
print(runs.train_student(study, "kd", device="auto"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.runs.datasets import prepare_dataset as prepare_dataset
    from pipeline.runs.dumps import make_dump as make_dump
    from pipeline.runs.dumps import make_dumps as make_dumps
    from pipeline.runs.opening import open_study as open_study
    from pipeline.runs.report import write_report as write_report
    from pipeline.runs.result import Result as Result
    from pipeline.runs.result import Table as Table
    from pipeline.runs.students import train_student as train_student
    from pipeline.runs.teachers import train_teacher as train_teacher

# Each is imported when it is first asked for: a stage loads no more than it runs.
MODULES = {
    "Result": "result",
    "Table": "result",
    "make_dump": "dumps",
    "make_dumps": "dumps",
    "open_study": "opening",
    "prepare_dataset": "datasets",
    "train_student": "students",
    "train_teacher": "teachers",
    "write_report": "report",
}

__all__ = list(MODULES)


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
