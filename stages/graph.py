"""params.yaml -> dvc.yaml."""

from __future__ import annotations

from stages import cli, options


def graph(params: options.ParamsOption = options.PARAMS, check: options.CheckOption = False) -> None:
    """Compile params.yaml into dvc.yaml, the stage graph that `dvc repro` runs."""
    from pipeline import runs

    cli.show(runs.compile_graph(runs.open_study(params), check=check))


if __name__ == "__main__":
    cli.main(graph)
