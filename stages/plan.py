"""params.yaml -> what its dumps will cost, before anything is spent."""

from __future__ import annotations

from stages import cli, options


def plan(
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Predict each dump's bytes, files and seconds, and from how many students on it pays."""
    from pipeline import runs

    cli.show(runs.plan_dumps(runs.open_study(params), device), as_json=as_json)


if __name__ == "__main__":
    cli.main(plan)
