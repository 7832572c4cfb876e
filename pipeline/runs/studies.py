"""params.yaml -> the study that all runs take."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.base.files import work_in
from pipeline.runs.own_modules import find_own_modules_in
from pipeline.study.params_file import load_study
from pipeline.study.sections import Study


def open_study(params: Path | str = "params.yaml") -> Study:
    """Validate a study; its paths and its own modules are found in its folder.

    Raises:
        InputError: with the key of the first mistake, what was expected and what was found.
    """
    path = Path(params)
    folder, name = path.parent.resolve(), path.name  # of a link: where it lies, not where it leads
    if not folder.is_dir():
        return load_study(path)
    find_own_modules_in(folder)
    with work_in(folder):
        study = load_study(Path(name))
        if "DVC_STAGE" in os.environ:
            # DVC may start with any stage whose inputs are there, so each one refuses a stale graph.
            from pipeline.graph.dvc_yaml import refuse_stale

            refuse_stale(study, Path())
    return study
