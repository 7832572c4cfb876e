"""params.yaml -> the study that all runs take."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipeline.base.files import work_in
from pipeline.study.params_file import load_study
from pipeline.study.sections import Study


def open_study(params: Path | str = "params.yaml") -> Study:
    """Validate a study; its paths and its own modules are found in its folder.

    Raises:
        InputError: with the key of the first mistake, what was expected and what was found.
    """
    path = Path(params)
    folder, name = path.resolve().parent, path.name
    if not folder.is_dir():
        return load_study(path)
    if str(folder) not in sys.path:
        # Last: a statistics.py or a pipeline/ of the user's must not stand in for Python's or ours.
        sys.path.append(str(folder))
    with work_in(folder):
        study = load_study(Path(name))
        if "DVC_STAGE" in os.environ:
            # DVC may start with any stage whose inputs are there, so each one refuses a stale graph.
            from pipeline.graph.dvc_yaml import refuse_stale

            refuse_stale(study, Path())
    return study
