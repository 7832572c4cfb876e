"""A trained student: one of the study's, or an exported folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import cli

if TYPE_CHECKING:
    import torch

    from pipeline.models.network import Network
    from pipeline.study.sections import Study


def folder_of(study: Study, student: str, seed: int) -> Path:
    """Where a student of the study lies, in the study's folder.

    Raises:
        InputError: params.yaml has no such student, or not so many seeds.
    """
    from pipeline.base.errors import InputError
    from pipeline.study.layout import Layout

    spec = cli.named(study.students, "students", student, study.file)
    if not 0 <= seed < spec.seeds:
        raise InputError("--seed", expected=f"0 to {spec.seeds - 1}, the seeds of {student}", found=str(seed))
    return Layout(Path()).student(student) / f"seed-{seed}"


def of_study(study: Study, student: str, seed: int, device: torch.device) -> tuple[Network, dict[str, Any]]:
    """A student of the study, and its card.

    Raises:
        InputError: it is not there, damaged, or of another architecture than params.yaml says.
    """
    from pipeline.base.errors import InputError
    from pipeline.base.expectations import differences
    from pipeline.models.saved import load_network
    from pipeline.study.layout import Layout
    from stages.run import architecture

    folder = folder_of(study, student, seed)
    fix = Layout(Path()).how_to_make(f"train-student-{student}", f"train-student {student}")
    network, card = load_network(folder, device, fix)
    differing = list(differences(architecture(study.students[student]), card["model"], "model"))
    if differing:
        key, wanted, found = differing[0]
        raise InputError(
            f"{folder} is another student than {study.file} says: {key}",
            expected=str(wanted),
            found=str(found),
            fix=fix,
        )
    return network, card


def anywhere(
    student: str, seed: int | None, params: Path, device: str, *, own_code: bool
) -> tuple[Network, dict[str, Any], torch.device]:
    """A student by the name of an exported folder, or by its name in params.yaml; its card, and the device.

    Raises:
        InputError: neither, both, or not the one that it should be.
    """
    from pipeline.base.device import resolve_device
    from pipeline.base.errors import InputError
    from pipeline.export.folder import load_exported

    folder, where = Path(student).absolute(), resolve_device(device)
    is_path = os.sep in student or student in (".", "..")
    if not is_path and params.exists():
        study = cli.open_study(params)
        if student in study.students and (folder / "card.json").exists():
            raise InputError(
                student,
                expected="one student",
                found=f"a student of {study.file} and an exported folder",
                fix=f"write ./{student} for the folder, or move it to have the student",
            )
        if student in study.students or not folder.is_dir():
            return *of_study(study, student, seed or 0, where), where
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
