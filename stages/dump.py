"""A trained network -> all its caches, in one pass over the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.study.sections import Study


def dump(
    network: Annotated[str, typer.Argument(metavar="TEACHER", help="A name under teachers: (or students:).")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Compute all configured dumps of a network in a single forward pass, the same bytes as one by one."""
    study = cli.open_study(params)
    from pipeline.study.layout import Layout
    from stages.dumping import run_dumps, stage_of

    done: list[str] = []
    try:
        with cli.timed(f"dump-{network}"):
            for names in _passes(study, network):
                for line in run_dumps(study, names, device):
                    typer.echo(line)
                done += names
    finally:
        if done and Layout(Path()).under_dvc:
            typer.echo("DVC takes these for its own once you run:")
            typer.echo("dvc commit -f " + " ".join(stage_of(study, name) for name in done))


def _passes(study: Study, network: str) -> list[list[str]]:
    """The network's dumps, those together that see the same samples in the same batches.

    Raises:
        InputError: no such network, or none of its dumps is configured.
    """
    from pipeline.base.errors import InputError

    cli.named({**study.teachers, **study.students}, "teachers and students", network, study.file)
    passes: dict[tuple[object, ...], list[str]] = {}
    for name, spec in study.dumps.items():
        if spec.of == network:
            passes.setdefault((spec.of_seed, spec.dataset, spec.samples, spec.batch), []).append(name)
    if not passes:
        raise InputError(
            f"{study.file}: dumps: of {network!r}",
            expected="at least one",
            found="none",
            fix=f"add one, such as {network}-logits: {{field: logits, of: {network}}}",
        )
    return list(passes.values())


if __name__ == "__main__":
    cli.main(dump)
