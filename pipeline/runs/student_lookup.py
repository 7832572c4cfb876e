"""A trained student wherever it lies: one of the study's, or an exported folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from pipeline.base.device import resolve_device
from pipeline.base.errors import InputError
from pipeline.export.folder import load_exported
from pipeline.models.network import Network
from pipeline.runs.networks import load_student
from pipeline.runs.stage_work import find_entry, in_study_folder
from pipeline.runs.studies import open_study
from pipeline.study.layout import Layout
from pipeline.study.sections import Study


def find_seed(study: Study, student: str, seed: int) -> Path:
    """Where a student of the study, of one seed, lies in the study's folder.

    Raises:
        InputError: params.yaml has no such student, or not so many seeds.
    """
    spec = find_entry(study.students, "students", student, study.file)
    if not 0 <= seed < spec.seeds:
        raise InputError("--seed", expected=f"0 to {spec.seeds - 1}, the seeds of {student}", found=str(seed))
    return Layout(Path()).network(student, seed)


@in_study_folder
def load_seed(study: Study, student: str, seed: int, device: torch.device) -> tuple[Network, dict[str, Any]]:
    """A student of the study, of one seed, and its card; see `find_seed` and `networks.load_student`."""
    find_seed(study, student, seed)
    return load_student(study, student, seed, device)


def load_anywhere(
    student: str, seed: int | None, params: Path, device: str, *, own_code: bool
) -> tuple[Network, dict[str, Any], torch.device]:
    """A student by the name of an exported folder, or by its name in params.yaml; its card, and the device.

    Raises:
        InputError: neither, both, or not the one that it should be.
    """
    folder, where = Path(student).absolute(), resolve_device(device)
    is_path = os.sep in student or student in (".", "..")
    if not is_path and params.exists():
        study = open_study(params)
        if student in study.students and (folder / "card.json").exists():
            raise InputError(
                student,
                expected="one student",
                found=f"a student of {study.file} and an exported folder",
                fix=f"write ./{student} for the folder, or move it to have the student",
            )
        if student in study.students or not folder.is_dir():
            return *load_seed(study, student, seed or 0, where), where
    elif not is_path and not folder.is_dir():
        raise InputError(
            student,
            expected=f"an exported folder, or a student of {params}",
            found="neither such a folder nor that file",
            fix="correct the path, run in the study's folder, or pass --params FILE",
        )
    network, card = load_exported(folder, where, own_code=own_code)
    if seed not in (None, card.get("seed_number")):
        raise InputError("--seed", expected=f"{card.get('seed_number')}, the exported one", found=str(seed))
    return network, card, where
