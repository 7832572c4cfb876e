"""The options of the commands, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

PARAMS = Path("params.yaml")
ParamsOption = Annotated[
    Path, typer.Option("--params", help="The study's parameters; paths in them start at its folder.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:NUMBER.")]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="How much data may lie on the device: 8GB, 500MB, 2GiB. More is streamed from disk, with the same result. "
        "Unless given, TEACHERCACHE_MEMORY, else half of what is free.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]

# Of `graph`, `fidelity`.
CheckOption = Annotated[bool, typer.Option("--check", help="Write nothing; fail if dvc.yaml is stale.")]
SomeClassesOption = Annotated[
    list[int] | None, typer.Option("--top-k", min=1, help="Also keep only k classes; repeatable.")
]

# Of `export`, `predict`.
ExportToOption = Annotated[Path, typer.Option("--to", help="A new folder.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Which of the student's seeds.")]
FormOption = Annotated[
    Literal["safetensors", "onnx"],
    typer.Option("--format", help="onnx: a graph beside the weights, compared with PyTorch (teachercache[onnx])."),
]
ImagesArgument = Annotated[list[str], typer.Argument(help="Image files, or folders of them.")]
OneSeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Which of the study's; 0 unless given.")]
TopOption = Annotated[
    int | None, typer.Option("--top", min=1, help="So many classes an image; 2, or all in JSON, unless given.")
]
OwnCodeOption = Annotated[
    bool, typer.Option("--own-code", help="Run the architecture that an exported folder names by a module.")
]

# Of `cost`.
AccuracyOption = Annotated[
    float | None,
    typer.Option("--accuracy", min=0, max=1, help="Find the smallest student that reaches this: 0.97, say."),
]
RepeatsOption = Annotated[int, typer.Option("--repeats", min=1, help="Passes of each that are timed.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Of torch on the CPU.")]

# Of `tune`.
StepsOption = Annotated[int, typer.Option("--steps", min=1, help="Of training, each time; at most an epoch's.")]
TimesOption = Annotated[int, typer.Option("--repeats", min=2, help="Times that each choice is timed.")]

# Of the cache tools.
CacheArgument = Annotated[str, typer.Argument(help="A cache: its folder, or a URL (https://, s3://, dvc://, ...).")]
OtherCacheArgument = Annotated[str, typer.Argument(help="Another cache: a folder or a URL.")]
StorageOption = Annotated[
    list[str] | None, typer.Option("--storage", help="KEY=VALUE for the URL's file system; may be repeated.")
]
InspectDataOption = Annotated[
    Path | None, typer.Option("--data", help="The prepared data set, for its labels; found by itself in a study.")
]
RepairOption = Annotated[
    Path | None,
    typer.Option("--repair", help="Write a sound copy here: the study's teacher computes the damaged chunks again."),
]
SampleOption = Annotated[
    str | None,
    typer.Option("--sample", help="A quick look: 1%, or 0.01, of each file's chunks, and all that lies beside chunks."),
]
SampleSeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, help="That the sample is drawn with; a random one unless given.")
]
RestartOption = Annotated[bool, typer.Option("--restart", help="Begin anew, whatever an interrupted run has checked.")]

# Of `cache inspect`.
NumbersOption = Annotated[
    bool, typer.Option("--numbers", help="Of a URL, too: fetch the data, and say how the numbers look.")
]

# Of `cache push`, `cache pull`.
PushedArgument = Annotated[str, typer.Argument(metavar="CACHE", help="A cache's folder; it is verified first.")]
PushUrlArgument = Annotated[
    str,
    typer.Argument(help="Where its files are to lie: s3://, gs://, sftp://, webdav://, hf://, file://; #ROOT pins it."),
]
PullUrlArgument = Annotated[
    str, typer.Argument(help="The cache's: https://, s3://, sftp://, ...; #ROOT, 12 or more digits, pins it.")
]
PullToArgument = Annotated[
    Path | None, typer.Argument(metavar="[TO]", help="A new folder; of the URL's last name, here, unless given.")
]
ExpectOption = Annotated[
    list[str] | None,
    typer.Option("--expect", help="KEY=VALUE that its manifest must have: teacher.name=big; may be repeated."),
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Let another cache that lies there make room.")]
ReadBackOption = Annotated[
    bool, typer.Option("--check", help="Read back and hash all that is there; else sizes decide.")
]

# Of `cache sign`, `cache verify`.
KeyOption = Annotated[
    Path, typer.Option("--key", help="A private ECDSA key in PEM that nobody else can read (teachercache[sign]).")
]
SignedByOption = Annotated[
    Path | None,
    typer.Option("--signed-by", help="A public ECDSA key in PEM: refuse a cache that its owner has not signed."),
]

# Of `cache convert`: as they are unless given.
ConvertToArgument = Annotated[Path, typer.Argument(help="A new folder.")]
OtherStoreOption = Annotated[Literal["zarr", "hdf5"] | None, typer.Option("--format", help="Unchanged unless given.")]
OtherDtypeOption = Annotated[
    Literal["float16", "bfloat16", "float32"] | None,
    typer.Option("--dtype", help="Of the numbers; unless given, every bit is kept, and that is checked."),
]
OtherCodecOption = Annotated[Literal["none", "zstd", "gzip"] | None, typer.Option("--codec", help="Compression.")]
ChunkKibOption = Annotated[
    int | None,
    typer.Option(
        "--chunk-kib",
        min=1,
        max=1 << 20,
        help="KiB of a decoded chunk, what a random row costs; unless given, 1024, of compressed fields 128.",
    ),
]

TermsOption = Annotated[
    list[str] | None,
    typer.Option("--terms", help="licence=TEXT, citation=TEXT or contact=TEXT, which others find in it; repeatable."),
]

# Of `cache create`.
CreateAtArgument = Annotated[Path, typer.Argument(help="A new folder: data/cache/DUMP where a study is to read it.")]
SourceOption = Annotated[
    Path, typer.Option("--from", help="A .npy file of floats (samples, classes): rows in the order of images.npy.")
]
ForeignTeacherOption = Annotated[str, typer.Option("--teacher", help="The foreign teacher's name.")]
CreateDataOption = Annotated[Path, typer.Option("--data", help="The prepared data set that the rows belong to.")]
FieldOption = Annotated[Literal["logits"], typer.Option("--field", help="What the numbers are.")]
ValuesOption = Annotated[
    Literal["logits", "probabilities", "log-probabilities"] | None,
    typer.Option("--values", help="What they are; unless given, logits, and rows that look otherwise are refused."),
]
FloorOption = Annotated[
    float | None, typer.Option("--floor", help="Smaller probabilities, 0 too, count as this: 1e-6, say.")
]
ClassesOption = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="A text file with the name of each column's class, one a line, matched by name. Unless given, columns "
        "are in the order of `classes` in the data set's dataset.json: of folders, sorted as text (1, 10, 11, 2).",
    ),
]
WeightsDigestOption = Annotated[
    str | None, typer.Option("--teacher-sha256", help="Of its weights; the file's own digest unless given.")
]
StoreOption = Annotated[Literal["zarr", "hdf5"], typer.Option("--format")]
DtypeOption = Annotated[Literal["float16", "bfloat16", "float32"], typer.Option("--dtype")]
CodecOption = Annotated[Literal["none", "zstd", "gzip"], typer.Option("--codec")]
TopKOption = Annotated[int | None, typer.Option("--top-k", min=1, help="Keep this many classes a sample.")]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", help="Of the tail's mass (top-k).")]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="As the study's dump states it.")]
