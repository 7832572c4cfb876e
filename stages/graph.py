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
    from pipeline.errors import InputError
    from pipeline.files import write_bytes
    from pipeline.graph import stages, to_yaml
    from pipeline.params import read_raw

    text = to_yaml(stages(study, read_raw(Path(params.name))), Path())
    target = Path("dvc.yaml")
    current = target.read_text(encoding="utf-8") if target.exists() else None
    if check and current != text:
        raise InputError(
            "dvc.yaml",
            expected=f"the stages that {params.name} compiles to",
            found="an older or edited file" if current else "no file",
            fix="run `teachercache graph`, then `dvc repro`",
        )
    if current != text:
        write_bytes(target, text.encode())
    if not check:
        typer.echo(f"dvc.yaml {'is current' if current == text else 'written'}: {text.count('    cmd: ')} stages")


if __name__ == "__main__":
    cli.main(graph)
