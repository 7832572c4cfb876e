"""A trained network -> data/cache/<dump>, field logits."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli


def dump_logits(
    dump: Annotated[str, typer.Argument(help="A name under dumps: in params.yaml, of field logits.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Compute a teacher's logits for every sample, once, and seal them in a cache."""
    study = cli.open_study(params)
    from stages.dumping import run_dump

    with cli.timed(f"dump-logits-{dump}"):
        typer.echo(run_dump(study, dump, "logits", device))


if __name__ == "__main__":
    cli.main(dump_logits)
