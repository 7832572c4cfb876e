"""The options of the commands, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

PARAMS = Path("params.yaml")
ParamsFile = Annotated[
    Path, typer.Option("--params", help="The study's parameters; paths in them start at its folder.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:NUMBER.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]

# Of `graph`, `fidelity`.
Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail if dvc.yaml is stale.")]
SomeClasses = Annotated[list[int] | None, typer.Option("--top-k", min=1, help="Also keep only k classes; repeatable.")]

# Of `export`, `predict`.
ExportTo = Annotated[Path, typer.Option("--to", help="A new folder.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Which of the student's seeds.")]
Form = Annotated[
    Literal["safetensors", "onnx"],
    typer.Option("--format", help="onnx: a graph beside the weights, compared with PyTorch (teachercache[onnx])."),
]
Images = Annotated[list[str], typer.Argument(help="Image files, or folders of them.")]
OneSeed = Annotated[int | None, typer.Option("--seed", min=0, help="Which of the study's; 0 unless given.")]
Top = Annotated[
    int | None, typer.Option("--top", min=1, help="So many classes an image; 2, or all in JSON, unless given.")
]
OwnCode = Annotated[
    bool, typer.Option("--own-code", help="Run the architecture that an exported folder names by a module.")
]

# Of the cache tools.
CacheArgument = Annotated[str, typer.Argument(help="A cache: its folder, or a URL (https://, s3://, dvc://, ...).")]
OtherCache = Annotated[str, typer.Argument(help="Another cache: a folder or a URL.")]
Storage = Annotated[
    list[str] | None, typer.Option("--storage", help="KEY=VALUE for the URL's file system; may be repeated.")
]
InspectData = Annotated[
    Path | None, typer.Option("--data", help="The prepared data set, for its labels; found by itself in a study.")
]
Repair = Annotated[
    Path | None,
    typer.Option("--repair", help="Write a sound copy here: the study's teacher computes the damaged blocks again."),
]

# Of `cache convert`: as they are unless given.
ConvertTo = Annotated[Path, typer.Argument(help="A new folder.")]
OtherStore = Annotated[Literal["zarr", "hdf5"] | None, typer.Option("--format", help="Unchanged unless given.")]
OtherDtype = Annotated[
    Literal["float16", "bfloat16", "float32"] | None,
    typer.Option("--dtype", help="Of the numbers; unless given, every bit is kept, and that is checked."),
]
OtherCodec = Annotated[Literal["none", "zstd", "gzip"] | None, typer.Option("--codec", help="Compression.")]

# Of `cache create`.
CreateAt = Annotated[Path, typer.Argument(help="A new folder: data/cache/DUMP where a study is to read it.")]
Source = Annotated[
    Path, typer.Option("--from", help="A .npy file of floats (samples, classes): rows in the order of images.npy.")
]
ForeignTeacher = Annotated[str, typer.Option("--teacher", help="The foreign teacher's name.")]
CreateData = Annotated[Path, typer.Option("--data", help="The prepared data set that the rows belong to.")]
Field = Annotated[Literal["logits"], typer.Option("--field", help="What the numbers are.")]
Values = Annotated[
    Literal["logits", "probabilities", "log-probabilities"] | None,
    typer.Option("--values", help="What they are; unless given, logits, and rows that look otherwise are refused."),
]
Floor = Annotated[float | None, typer.Option("--floor", help="Smaller probabilities, 0 too, count as this: 1e-6, say.")]
Classes = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="A text file with the name of each column's class, one a line, matched by name. Unless given, columns "
        "are in the order of `classes` in the data set's dataset.json: of folders, sorted as text (1, 10, 11, 2).",
    ),
]
WeightsDigest = Annotated[
    str | None, typer.Option("--teacher-sha256", help="Of its weights; the file's own digest unless given.")
]
Store = Annotated[Literal["zarr", "hdf5"], typer.Option("--format")]
Dtype = Annotated[Literal["float16", "bfloat16", "float32"], typer.Option("--dtype")]
Codec = Annotated[Literal["none", "zstd", "gzip"], typer.Option("--codec")]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Keep this many classes a sample.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="Of the tail's mass (top-k).")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="As the study's dump states it.")]
