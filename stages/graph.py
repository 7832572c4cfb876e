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
    from pipeline.dvc_yaml import refuse_stale, to_yaml
    from pipeline.files import write_bytes
    from pipeline.graph import stages
    from pipeline.params import absent_models, read_raw

    for key, name in absent_models(study):
        cli.warn(f"params.yaml: {key}: cannot import model {name!r} here; the stages that use it will refuse it")
    raw, target = read_raw(Path(params.name)), Path("dvc.yaml")
    if check:
        refuse_stale(study, raw, Path())
        return
    text = to_yaml(stages(study, raw), Path())
    current = target.exists() and target.read_text(encoding="utf-8") == text
    if not current:
        write_bytes(target, text.encode())
    typer.echo(f"dvc.yaml {'is current' if current else 'written'}: {text.count('    cmd: ')} stages")


if __name__ == "__main__":
    cli.main(graph)
