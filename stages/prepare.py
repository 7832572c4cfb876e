"""Source -> data/prepared/<dataset>."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import cli


def prepare(
    dataset: Annotated[str, typer.Argument(help="A name under datasets: in params.yaml.")],
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
) -> None:
    """Read a data set's files, split them, and write the arrays that all later stages read."""
    study = cli.open_study(params)
    from pipeline.datasets.record import SPLITS, save
    from pipeline.study.layout import Layout
    from stages.data import read
    from stages.run import workshop

    cli.named(study.datasets, "datasets", dataset, study.file)
    layout, stage = Layout(Path()), f"prepare-{dataset}"
    with cli.timed(stage), workshop(layout, stage, layout.prepared(dataset)) as work:
        made = read(study, dataset)
        save(made, work.out)
    for line in made.notices:
        cli.notice(f"{dataset}: {line}")
    sizes = ", ".join(f"{len(made.labels[made.rows(split)])} {split}" for split in SPLITS)
    typer.echo(f"{dataset}: {sizes} images of {made.shape}, {len(made.classes)} classes")


if __name__ == "__main__":
    cli.main(prepare)
