"""What each stage does, callable from Python: a study in, files out, and what its command prints as a value.

from pipeline import runs

study = runs.open_study("params.yaml")
print(runs.train_student(study, "kd", device="auto"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.base.environment import set_library_defaults

if TYPE_CHECKING:
    from pipeline.runs.comparisons import diff_caches as diff_caches
    from pipeline.runs.conversions import convert_cache as convert_cache
    from pipeline.runs.costs import measure_costs as measure_costs
    from pipeline.runs.datasets import prepare_dataset as prepare_dataset
    from pipeline.runs.dumps import make_dump as make_dump
    from pipeline.runs.dumps import make_dumps as make_dumps
    from pipeline.runs.exports import export_student as export_student
    from pipeline.runs.fidelity import compare_encodings as compare_encodings
    from pipeline.runs.foreign_caches import create_cache as create_cache
    from pipeline.runs.inspections import inspect_cache as inspect_cache
    from pipeline.runs.parts import merge_parts as merge_parts
    from pipeline.runs.parts import read_part as read_part
    from pipeline.runs.plans import plan_dumps as plan_dumps
    from pipeline.runs.predictions import Predictions as Predictions
    from pipeline.runs.predictions import predict_images as predict_images
    from pipeline.runs.repair import repair_cache as repair_cache
    from pipeline.runs.report import write_report as write_report
    from pipeline.runs.result import Result as Result
    from pipeline.runs.result import Table as Table
    from pipeline.runs.signatures import sign_cache as sign_cache
    from pipeline.runs.stage_graph import compile_graph as compile_graph
    from pipeline.runs.students import train_student as train_student
    from pipeline.runs.studies import open_study as open_study
    from pipeline.runs.teachers import train_teacher as train_teacher
    from pipeline.runs.transfers import pull_cache as pull_cache
    from pipeline.runs.transfers import push_cache as push_cache
    from pipeline.runs.tunings import time_choices as time_choices
    from pipeline.runs.verification import CheckedCache as CheckedCache
    from pipeline.runs.verification import verify_cache as verify_cache

# Each is imported when it is first asked for: a stage loads no more than it runs.
MODULES = {
    "Predictions": "predictions",
    "Result": "result",
    "Table": "result",
    "CheckedCache": "verification",
    "compare_encodings": "fidelity",
    "compile_graph": "stage_graph",
    "convert_cache": "conversions",
    "create_cache": "foreign_caches",
    "diff_caches": "comparisons",
    "export_student": "exports",
    "inspect_cache": "inspections",
    "make_dump": "dumps",
    "make_dumps": "dumps",
    "measure_costs": "costs",
    "merge_parts": "parts",
    "open_study": "studies",
    "plan_dumps": "plans",
    "predict_images": "predictions",
    "prepare_dataset": "datasets",
    "pull_cache": "transfers",
    "push_cache": "transfers",
    "read_part": "parts",
    "repair_cache": "repair",
    "sign_cache": "signatures",
    "time_choices": "tunings",
    "train_student": "students",
    "train_teacher": "teachers",
    "verify_cache": "verification",
    "write_report": "report",
}

__all__ = list(MODULES)

set_library_defaults()


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
