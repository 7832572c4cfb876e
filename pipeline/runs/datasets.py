"""Source -> data/prepared/<dataset>."""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.dataset import SPLITS, Dataset, load_dataset, save_dataset
from pipeline.datasets.prepare import prepare_dataset as prepare_source
from pipeline.datasets.raw import Place
from pipeline.runs.result import Result
from pipeline.runs.stage_work import find_entry, in_study_folder, open_stage_work, record_seconds
from pipeline.study.layout import Layout
from pipeline.study.sections import Study


@in_study_folder
def prepare_dataset(study: Study, name: str) -> Result:
    """Read a data set's files, split them, and write the arrays that all later stages read."""
    find_entry(study.datasets, "datasets", name, study.file)
    layout, stage = Layout(Path()), f"prepare-{name}"
    with record_seconds(stage), open_stage_work(layout, stage, layout.prepared(name)) as work:
        made = read_source(study, name, work.out)
        save_dataset(made, work.out)
    counts = {split: len(made.labels[made.rows(split)]) for split in SPLITS}
    sizes = ", ".join(f"{count} {split}" for split, count in counts.items())
    return Result(
        {"samples": counts, "shape": made.shape, "classes": made.classes, "fingerprint": made.fingerprint},
        text=(f"{name}: {sizes} images of {made.shape}, {len(made.classes)} classes",),
        notes=tuple(f"{name}: {line}" for line in made.notices),
    )


def read_source(study: Study, name: str, folder: Path | None = None) -> Dataset:
    """A configured data set, from its source's files; its images in a file of that folder, else in memory."""
    spec = study.datasets[name]
    return prepare_source(
        name,
        spec.source,
        Place(spec.folder or spec.source, spec.root, spec.download),
        size=spec.size,
        grey=spec.grey,
        train=spec.train,
        validation=spec.validation,
        test=spec.test,
        folds=spec.split_folds(),
        seed=spec.seed,
        duplicates=spec.duplicates,
        options=spec.options,
        folder=folder,
    )


def load_or_read(study: Study, name: str) -> Dataset:
    """A configured data set as it was prepared, or else from its source, with nothing written."""
    folder = Layout(Path()).prepared(name)
    return load_dataset(folder, resident=False) if (folder / "dataset.json").exists() else read_source(study, name)
