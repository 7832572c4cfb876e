"""params.yaml -> what its dumps will cost, before anything is spent."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def plan(
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
    samples: Annotated[int | None, typer.Option(min=1, help="Plan as if there were so many training images.")] = None,
    shape: Annotated[str | None, typer.Option(help="And as if they had this shape: 3x224x224.")] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="And so many classes.")] = None,
) -> None:
    """Predict each dump's bytes, files and seconds, from how many students on it pays, and what an epoch reads."""
    from pipeline import runs

    planned = runs.plan_dumps(runs.open_study(params), device, samples=samples, shape=shape, classes=classes)
    cli.show(planned, as_json=as_json)


if __name__ == "__main__":
    cli.main(plan)
