"""The networks of a study: what their cards say, where they lie, what their metrics tell of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.base.errors import InputError
from pipeline.base.expected_values import ANYTHING, AtLeast, differences
from pipeline.base.files import hash_file
from pipeline.datasets.dataset import Dataset
from pipeline.models.network import Network
from pipeline.models.network_files import load_network
from pipeline.runs.metrics_files import read_metrics
from pipeline.study.layout import Layout
from pipeline.study.sections import (
    StudentParams,
    Study,
    TeacherParams,
    describe_computation,
    describe_model,
    weight_files,
)


def describe_architecture(params: TeacherParams | StudentParams) -> dict[str, Any]:
    """A network's architecture as its card and its caches' manifests state it."""
    if params.model is not None:
        # Where initial weights lay says nothing about the network, and differs between machines.
        made = describe_model(params, "json", without={"weights", "new_head"})
        # Where its code is not here, nobody knows the options that params.yaml leaves out.
        return AtLeast(made) if params.model.is_unchecked else made
    assert isinstance(params, TeacherParams)
    return {"name": "ensemble", "members": list(params.members or ()), "average": params.average}


def describe_network(name: str, params: TeacherParams | StudentParams, dataset: Dataset) -> dict[str, Any]:
    """What every network's card says: enough to build it again and to know what it was trained on."""
    return {
        "name": name,
        "model": describe_architecture(params),
        **({} if params.model is None else describe_computation(params)),
        "shape": dataset.shape,
        "classes": dataset.classes,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
    }


def weight_digests(params: TeacherParams | StudentParams) -> list[str]:
    """SHA-256 of the weight files that a teacher or a model names: their bytes decide, not their names."""
    return [hash_file(path) for path in weight_files(params) if path.is_file()]


def find_network(study: Study, name: str, seed: int = 0) -> tuple[Path, str]:
    """Where a teacher or a student (of one seed) lies, and the command that makes it.

    Raises:
        InputError: an external teacher, which lies nowhere.
    """
    layout = Layout(Path())
    if name not in study.teachers:
        return layout.network(name, seed), layout.how_to_train("student", study.find_stage_name(name))
    if study.teachers[name].external is not None:
        raise InputError(
            f"teacher {name!r}",
            expected="one that can be run",
            found="an external one",
            fix="seal its outputs with `teachercache cache create`",
        )
    return layout.teacher(name), layout.how_to_train("teacher", name)


def recorded_weights(study: Study, kind: Literal["teacher", "student"], name: str, seed: int = 0) -> Any:
    """SHA-256 of a network's weights (a student's of one seed) by its metrics, which git keeps.

    ANYTHING where there are no metrics; None where they tell of no such seed.
    """
    layout = Layout(Path())
    metrics = layout.metrics(f"{kind}s", name)
    if not metrics.exists():
        return ANYTHING
    fix = layout.how_to_train(kind, study.find_stage_name(name))
    weights = read_metrics(metrics, kind, fix, keys=("weights_sha256",))["weights_sha256"]
    return weights if kind == "teacher" else dict(enumerate(weights)).get(seed)


def load_student(study: Study, student: str, seed: int, device: torch.device) -> tuple[Network, dict[str, Any]]:
    """A student of the study, of one seed, and its card.

    Raises:
        InputError: it is not there, damaged, or of another architecture than params.yaml says.
    """
    folder, fix = find_network(study, student, seed)
    network, card = load_network(folder, device, fix)
    differing = list(differences(describe_architecture(study.students[student]), card["model"], "model"))
    if differing:
        key, wanted, found = differing[0]
        raise InputError(
            f"{folder} is another student than {study.file} says: {key}",
            expected=str(wanted),
            found=str(found),
            fix=fix,
        )
    return network, card
