"""params.yaml -> dvc.yaml."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.base.files import write_bytes
from pipeline.graph.dvc_yaml import format_dvc_yaml, read_dvc_yaml, read_params_name, refuse_stale
from pipeline.graph.git_checkout import refuse_other_code
from pipeline.graph.gitignore import add_missing_lines
from pipeline.graph.stages import compile_stages
from pipeline.runs.result import Result
from pipeline.runs.stage_work import in_study_folder
from pipeline.study.params_file import find_unavailable_models
from pipeline.study.sections import Study

LOG = logging.getLogger(__name__)
DVC_YAML = Path("dvc.yaml")


@in_study_folder
def compile_graph(study: Study, *, check: bool = False) -> Result:
    """Compile a study into dvc.yaml, the stage graph that `dvc repro` runs, and .gitignore.

    Args:
        study: whose stages they are.
        check: write nothing.

    Raises:
        InputError: `check`, and dvc.yaml is stale; or a dvc.yaml of somebody else's is there.
    """
    for key, reason in find_unavailable_models(study):  # before what may be refused
        LOG.warning("%s: %s: %s; the stages that use it will refuse it", study.file, key, reason)
    if check:
        refuse_stale(study, Path())
        return Result()
    refuse_other_code(Path())
    text, line = _write_graph(study)
    added, needed = add_missing_lines(Path())
    open_paths = f"git may take up what the stages make: see that it ignores {' '.join(needed)}"
    lines = (line, *([f".gitignore: added {' '.join(added)}"] if added else []))
    return Result({"stages": _count_stages(text)}, text=lines, warnings=(open_paths,) if needed else ())


def _write_graph(study: Study) -> tuple[str, str]:
    """Write dvc.yaml where it is another; its text, and a line on what was done."""
    text, before = format_dvc_yaml(compile_stages(study), Path(), study.file), read_dvc_yaml(DVC_YAML)
    earlier = read_params_name(before, DVC_YAML)
    if before != text:
        write_bytes(DVC_YAML, text.encode())
    state = "is current" if before == text else "written"
    instead = f"; before, it was compiled from {earlier}" if earlier not in (None, study.file) else ""
    return text, f"{DVC_YAML} {state}: {_count_stages(text)} stages{instead}"


def _count_stages(text: str) -> int:
    return text.count("    cmd: ")
