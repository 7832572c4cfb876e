"""Trained students -> what each takes, and the smallest one that is right often enough."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def cost(
    students: Annotated[
        list[str] | None, typer.Argument(help="Names under students: in params.yaml, grids too; else all.")
    ] = None,
    accuracy: options.AccuracyOption = None,
    repeats: options.RepeatsOption = 30,
    threads: options.ThreadsOption = None,
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Measure what trained students take, and find the smallest one that reaches an accuracy."""
    from pipeline import runs

    study, names = runs.open_study(params), students or ()
    found = runs.measure_costs(study, names, device, accuracy=accuracy, repeats=repeats, threads=threads)
    cli.show(found, as_json=as_json)


if __name__ == "__main__":
    cli.main(cost)
