"""A student and its teacher -> what each compact form of the logits costs."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def fidelity(
    student: Annotated[str, typer.Argument(help="A student whose loss is soft_targets, alone or with others.")],
    top_k: options.SomeClassesOption = None,
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    memory: options.MemoryOption = None,
) -> None:
    """Train a student from float32, float16, bfloat16 and top-k logits, and compare bytes, KL and accuracy."""
    from pipeline import runs

    cli.show(runs.compare_encodings(runs.open_study(params), student, top_k or (), device, memory=memory))


if __name__ == "__main__":
    cli.main(fidelity)
