"""data/students/<student> -> a folder to hand on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.datasets.dataset import load_dataset
from pipeline.export import onnx_graph
from pipeline.export.card import WEIGHTS, build_card
from pipeline.export.folder import refuse_occupied, write_exported
from pipeline.models.cost import measure_image_cost
from pipeline.models.network import Network
from pipeline.runs.result import Result
from pipeline.runs.stage_work import in_study_folder
from pipeline.runs.student_lookup import find_seed, load_seed
from pipeline.study.layout import Layout
from pipeline.study.sections import Study


def export_student(
    study: Study, student: str, to: Path | str, *, seed: int = 0, form: Literal["safetensors", "onnx"] = "safetensors"
) -> Result:
    """Write a trained student to a folder of its own: weights, cards, and an ONNX graph if asked for.

    Args:
        study: with the student.
        student: its name.
        to: a new folder, or an empty one; a relative path starts at the working directory.
        seed: which of the student's seeds.
        form: "onnx" puts a graph beside the weights, compared with PyTorch.

    Raises:
        InputError: no such student, one that is not trained, a place that is taken, or packages that are missing.
    """
    if form == "onnx":
        onnx_graph.require_packages()
    card = _export(study, student, Path(to).absolute(), seed, form)
    lines = [f"{to}: student {student}, seed {seed}, weights {card['weights_sha256'][:12]}"]
    if "onnx" in card:
        most = f"at most {card['onnx']['largest_difference_at_most']:g} from PyTorch's logits"
        lines.append(f"student.onnx: {most}, on {card['onnx']['images']}")
    return Result(card, text=tuple(lines))


@in_study_folder
def _export(study: Study, student: str, target: Path, seed: int, form: str) -> dict[str, Any]:
    """Write the folder; its card."""
    weights = find_seed(study, student, seed) / WEIGHTS
    refuse_occupied(target)
    network, own = load_seed(study, student, seed, torch.device("cpu"))
    graph, checked = _make_graph(network, own) if form == "onnx" else (None, None)
    card = build_card(own, network.parameter_count(), measure_image_cost(network, own["shape"]), checked)
    write_exported(target, weights, card, graph)
    return card


def _make_graph(network: Network, card: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The ONNX graph, and how it was compared: on test images where the prepared data are here."""
    prepared = Layout(Path()).prepared(card["dataset"]["name"])
    dataset = load_dataset(prepared, resident=False) if (prepared / "dataset.json").exists() else None
    images, what = onnx_graph.choose_check_images(dataset, card["dataset"]["fingerprint"], tuple(card["shape"]))
    graph = onnx_graph.export_onnx(network, card["shape"])
    return graph, onnx_graph.compare_graph(graph, network, images, what)
