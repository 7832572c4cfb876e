"""data/students/<student> -> a folder to hand on."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def export(
    student: Annotated[str, typer.Argument(help="A name under students: in params.yaml.")],
    to: options.ExportToOption,
    seed: options.SeedOption = 0,
    form: options.FormOption = "safetensors",
    params: options.ParamsOption = options.PARAMS,
) -> None:
    """Write a trained student to a folder of its own: weights, cards, and an ONNX graph if asked for."""
    from pipeline import runs

    cli.show(runs.export_student(runs.open_study(params), student, to, seed=seed, form=form))


if __name__ == "__main__":
    cli.main(export)
