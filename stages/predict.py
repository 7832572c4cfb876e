"""A student and image files -> what they show, on the terminal or as JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import cli, options


def predict(
    student: Annotated[str, typer.Argument(help="A student of params.yaml, or a folder made by `export`.")],
    images: options.ImagesArgument,
    seed: options.OneSeedOption = None,
    top: options.TopOption = None,
    own_code: options.OwnCodeOption = False,
    as_json: options.JsonOption = False,
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
) -> None:
    """Say which class a student sees in each image, and how probable it holds it."""
    from pipeline import runs

    found = runs.predict_images(student, images, seed=seed, top=top, own_code=own_code, params=params, device=device)
    for line in found.notes:
        cli.notice(line)
    if as_json:
        cli.echo_json(found.answers(top))
    else:
        cli.print_table(found.table(top))


if __name__ == "__main__":
    cli.main(predict)
