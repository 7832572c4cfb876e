"""A student and image files -> what they show, on the terminal or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stages import cli


def predict(
    student: Annotated[str, typer.Argument(help="A student of params.yaml, or a folder made by `export`.")],
    images: Annotated[list[str], typer.Argument(help="Image files, or folders of them.")],
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Which of the study's; 0 unless given.")] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="So many classes an image; 2, or all in JSON, unless given.")
    ] = None,
    own_code: Annotated[
        bool, typer.Option("--own-code", help="Run the architecture that an exported folder names by a module.")
    ] = False,
    as_json: cli.AsJson = False,
    params: cli.ParamsFile = cli.DEFAULT_PARAMS,
    device: cli.Device = "auto",
) -> None:
    """Say which class a student sees in each image, and how probable it holds it."""
    from pipeline.base.errors import InputError
    from pipeline.datasets.image_files import Decoder
    from pipeline.export.predict import find_images, format_answer, predict_logits
    from pipeline.runs.lookup import load_anywhere

    files, notices = find_images(images, Path.cwd())
    network, card, where = load_anywhere(student, seed, params, device, own_code=own_code)
    classes = card["classes"]
    if top is not None and top > len(classes):
        raise InputError("--top", expected=f"at most {len(classes)}, the student's classes", found=str(top))
    decoder = Decoder()
    logits = predict_logits(network, files, tuple(card["shape"]), where, decoder)
    for line in (*notices, *decoder.notices()):
        cli.notice(line)
    shown = top or (len(classes) if as_json else min(2, len(classes)))
    answers = (format_answer(file.where, row, classes, shown) for file, row in zip(files, logits, strict=True))
    if as_json:
        # Line by line: the numbers of many images take far more room as text than as an array.
        for number, each in enumerate(answers):
            typer.echo(("[" if number == 0 else ",\n ") + json.dumps(each, allow_nan=False), nl=False)
        typer.echo("]")
    else:
        columns = ("file", "class", "probability", "runner-up" if shown == 2 else "runners-up")
        cli.table("", columns[: 3 + (shown > 1)], (_cells(each)[: 3 + (shown > 1)] for each in answers))


def _cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    """One image's row of the table."""
    first, *others = found["probabilities"].items()
    return found["file"], first[0], _percent(first[1]), ", ".join(f"{name} {_percent(p)}" for name, p in others)


def _percent(probability: float) -> str:
    return f"{100 * probability:.2f} %"


if __name__ == "__main__":
    cli.main(predict)
