"""data/students/<student> -> a folder to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stages import cli

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.models.network import Network


def export(
    student: Annotated[str, typer.Argument(help="A name under students: in params.yaml.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which of the student's seeds.")] = 0,
    form: Annotated[
        Literal["safetensors", "onnx"],
        typer.Option("--format", help="onnx: a graph beside the weights, compared with PyTorch (teachercache[onnx])."),
    ] = "safetensors",
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
) -> None:
    """Write a trained student to a folder of its own: weights, cards, and an ONNX graph if asked for."""
    target = Path.cwd() / to
    study = cli.open_study(params)
    import torch

    from pipeline.export.card import WEIGHTS, build_card
    from pipeline.export.folder import refuse_occupied, write_exported
    from pipeline.export.onnx_graph import require_packages
    from pipeline.runs.lookup import find_seed, load_seed

    if form == "onnx":
        require_packages()
    weights = find_seed(study, student, seed) / WEIGHTS
    refuse_occupied(target)
    network, own = load_seed(study, student, seed, torch.device("cpu"))
    graph, checked = _onnx(network, own) if form == "onnx" else (None, None)
    card = build_card(own, network.parameter_count(), checked)
    write_exported(target, weights, card, graph)
    typer.echo(f"{cli.printable(str(to))}: student {student}, seed {seed}, weights {card['weights_sha256'][:12]}")
    if checked:
        most = f"at most {checked['largest_difference_at_most']:g} from PyTorch's logits"
        typer.echo(cli.printable(f"student.onnx: {most}, on {checked['images']}"))


def _onnx(network: Network, card: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The graph, and how it was compared: on test images where the prepared data are here."""
    from pipeline.datasets.dataset import load_dataset
    from pipeline.export.onnx_graph import choose_check_images, compare_graph, export_onnx
    from pipeline.study.layout import Layout

    prepared = Layout(Path()).prepared(card["dataset"]["name"])
    dataset = load_dataset(prepared, resident=False) if (prepared / "dataset.json").exists() else None
    images, what = choose_check_images(dataset, card["dataset"]["fingerprint"], tuple(card["shape"]))
    graph = export_onnx(network, card["shape"])
    return graph, compare_graph(graph, network, images, what)


if __name__ == "__main__":
    cli.main(export)
