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
    from pipeline.datasets.prepare import prepare as make
    from pipeline.datasets.raw import Place
    from pipeline.datasets.record import SPLITS, save
    from pipeline.layout import Layout
    from stages.run import workshop

    spec = cli.named(study.datasets, "datasets", dataset)
    layout, stage = Layout(Path()), f"prepare-{dataset}"
    place = Place(spec.folder or spec.source, spec.root, spec.download)
    with cli.timed(stage), workshop(layout, stage, layout.prepared(dataset)) as work:
        prepared = make(
            dataset,
            spec.source,
            place,
            size=spec.size,
            grey=spec.grey,
            train=spec.train,
            validation=spec.validation,
            folds=spec.split_folds(),
            seed=spec.seed,
            options=spec.options,
        )
        save(prepared, work.out)
    sizes = ", ".join(f"{len(prepared.labels[prepared.rows(split)])} {split}" for split in SPLITS)
    typer.echo(f"{dataset}: {sizes} images of {prepared.shape}, {len(prepared.classes)} classes")


if __name__ == "__main__":
    cli.main(prepare)
