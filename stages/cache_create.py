"""A file of outputs from elsewhere -> a cache like our own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages import cli


def create(
    to: Annotated[Path, typer.Argument(help="A new folder: data/cache/DUMP where a study is to read it.")],
    source: Annotated[
        Path,
        typer.Option("--from", help="A .npy file of floats (samples, classes): rows in the order of images.npy."),
    ],
    teacher: Annotated[str, typer.Option("--teacher", help="The foreign teacher's name.")],
    data: Annotated[Path, typer.Option("--data", help="The prepared data set that the rows belong to.")],
    field: Annotated[Literal["logits"], typer.Option("--field", help="What the numbers are.")] = "logits",
    values: Annotated[
        Literal["logits", "probabilities", "log-probabilities"] | None,
        typer.Option("--values", help="What they are; unless given, logits, and rows that look otherwise are refused."),
    ] = None,
    floor: Annotated[
        float | None, typer.Option("--floor", help="Smaller probabilities, 0 too, count as this: 1e-6, say.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            help="A text file with the name of each column's class, one a line, matched by name. Unless given, columns "
            "are in the order of `classes` in the data set's dataset.json: of folders, sorted as text (1, 10, 11, 2).",
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--teacher-sha256", help="Of its weights; the file's own digest unless given.")
    ] = None,
    store: Annotated[Literal["zarr", "hdf5"], typer.Option("--format")] = "zarr",
    dtype: Annotated[Literal["float16", "bfloat16", "float32"], typer.Option("--dtype")] = "float16",
    codec: Annotated[Literal["none", "zstd", "gzip"], typer.Option("--codec")] = "none",
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Keep this many classes a sample.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of the tail's mass (top-k).")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="As the study's dump states it.")] = 512,
) -> None:
    """Seal a foreign teacher's outputs (another framework, an API) in a cache, checked as our own.

    Row i is of sample i of the data set's images.npy, column c of class c of its dataset.json, or as --classes says.
    Prints how often the argmax is right: near chance, rows or columns stand in another order.
    """
    from pipeline.base.errors import InputError
    from pipeline.base.files import hash_file, hash_json
    from pipeline.datasets.dataset import load_dataset
    from pipeline.dumps.dump_fields import DumpRequest, dump_fields
    from pipeline.dumps.foreign.teacher import read_outputs
    from pipeline.dumps.logits import check_options

    cli.refuse_existing(to)
    if sha256 is not None and (len(sha256) != 64 or set(sha256) - set("0123456789abcdef")):
        raise InputError("--teacher-sha256", expected="64 hexadecimal digits in lower case", found=sha256)
    if not teacher.strip():
        raise InputError("--teacher", expected="the teacher's name", found=repr(teacher))
    cli.refuse_codec(codec, store)
    options = {"dtype": dtype, "codec": codec, "top_k": top_k, "temperature": temperature}
    try:
        check_options(top_k=top_k, temperature=temperature)
    except ValueError as error:
        raise InputError(f"--{error}") from None
    dataset = load_dataset(data, resident=False)
    foreign, samples = read_outputs(source, dataset, teacher, sha256, values=values, floor=floor, classes=classes)
    with cli.work_beside(to) as work:
        # Blocks of another file's outputs, or of its columns in another order, are never taken up.
        identity = hash_json([hash_file(source), foreign.columns])
        wanted = DumpRequest(to, work / identity[:16], field, options, store)
        (made,) = dump_fields(foreign, dataset, [wanted], batch=batch, samples=samples)
    for line in foreign.notes:
        typer.echo(cli.printable(line))
    for line in foreign.warnings:
        cli.warn(line)
    whose = f"{made.rows} samples of {teacher}, weights {made.teacher.weights_sha256}"
    typer.echo(cli.printable(f"{to}: {whose}, root {made.root[:12]}"))


if __name__ == "__main__":
    cli.main(create)
