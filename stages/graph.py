"""params.yaml -> dvc.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import cli


def graph(
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if dvc.yaml is stale.")] = False,
) -> None:
    """Compile params.yaml into dvc.yaml, the stage graph that `dvc repro` runs."""
    study = cli.open_study(params)
    from pipeline.base.files import write_bytes
    from pipeline.graph.checkout import refuse_other_code
    from pipeline.graph.dvc_yaml import compiled_from, refuse_stale, text_of, to_yaml
    from pipeline.graph.gitignore import add_lines
    from pipeline.graph.stages import stages
    from pipeline.study.params_file import find_unavailable_models, read_params

    for key, reason in find_unavailable_models(study):
        cli.warn(f"{study.file}: {key}: {reason}; the stages that use it will refuse it")
    raw, target = read_params(Path(study.file)), Path("dvc.yaml")
    if check:
        refuse_stale(study, raw, Path())
        return
    refuse_other_code(Path())
    text, before = to_yaml(stages(study, raw), Path(), study.file), text_of(target)
    earlier = compiled_from(before, target)
    if before != text:
        write_bytes(target, text.encode())
    state = "is current" if before == text else "written"
    instead = f"; before, it was compiled from {earlier}" if earlier not in (None, study.file) else ""
    typer.echo(f"dvc.yaml {state}: {text.count('    cmd: ')} stages{instead}")
    added, needed = add_lines(Path())
    if added:
        typer.echo(f".gitignore: added {' '.join(added)}")
    if needed:
        cli.warn(f"git may take up what the stages make: see that it ignores {' '.join(needed)}")


if __name__ == "__main__":
    cli.main(graph)
