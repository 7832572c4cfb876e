"""From a configured data set to its images."""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.prepare import prepare as make
from pipeline.datasets.raw import Place
from pipeline.datasets.record import Dataset, load
from pipeline.study.layout import Layout
from pipeline.study.sections import Study


def read(study: Study, name: str) -> Dataset:
    """A configured data set, from its source's files."""
    spec = study.datasets[name]
    return make(
        name,
        spec.source,
        Place(spec.folder or spec.source, spec.root, spec.download),
        size=spec.size,
        grey=spec.grey,
        train=spec.train,
        validation=spec.validation,
        folds=spec.split_folds(),
        seed=spec.seed,
        duplicates=spec.duplicates,
        options=spec.options,
    )


def prepared(study: Study, name: str) -> Dataset:
    """A configured data set as it was prepared, or else from its source, with nothing written."""
    folder = Layout(Path()).prepared(name)
    return load(folder, resident=False) if (folder / "dataset.json").exists() else read(study, name)
