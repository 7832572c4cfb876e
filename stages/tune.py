"""A student or teacher -> how fast it trains here in each precision and layout, and the fastest of them."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def tune(
    name: Annotated[str, typer.Argument(help="A name under students: or teachers: in params.yaml.")],
    steps: options.StepsOption = 10,
    repeats: options.TimesOption = 5,
    compiled: Annotated[bool, typer.Option("--compile", help="Time each choice compiled, too.")] = False,
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    memory: options.MemoryOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Time a network's training steps in each precision and layout on this machine; nothing is written."""
    from pipeline import runs

    study = runs.open_study(params)
    found = runs.time_choices(study, name, device, steps=steps, repeats=repeats, memory=memory, compiled=compiled)
    cli.show(found, as_json=as_json)


if __name__ == "__main__":
    cli.main(tune)
