"""`params.yaml` -> frozen, validated sections. The only reader of that file.

A mistake anywhere is refused before anything runs, in one line that names the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.cache.manifest import Format
from pipeline.datasets import SOURCES, Amount, First, Folds
from pipeline.dumps import FIELDS
from pipeline.errors import InputError
from pipeline.losses import TERMS, field_of
from pipeline.models import MODELS
from pipeline.optimizers import LR_SCHEDULES, OPTIMIZERS
from pipeline.registry import Registry, Section, flatten, unknown
from pipeline.schedules import SCHEDULES

S = TypeVar("S", bound=Section)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]
Share = Annotated[float, Field(gt=0, lt=1)]


class FirstParams(Section):
    """`{first: n}`: the first n samples in file order."""

    first: PositiveInt


class FoldsParams(Section):
    """`{count: 6, test: k}`: balanced folds over all images; fold k, from 0, is the test part."""

    count: Annotated[int, Field(ge=2)]
    test: NonNegativeInt

    @model_validator(mode="after")
    def _test_is_a_fold(self) -> FoldsParams:
        if self.test >= self.count:
            raise ValueError(f"test: expected 0 to {self.count - 1}, found {self.test}")
        return self


AmountParams = FirstParams | PositiveInt | Share | None


class DatasetParams(Section):
    """A source of images and how it is split; further keys are the source's own options.

    `train` and `validation`: `{first: n}`, a number of images or a share (both stratified).
    """

    source: str
    root: str | None = None
    folder: str | None = None
    download: bool = False
    train: AmountParams = None
    validation: AmountParams = None
    folds: FoldsParams | None = None
    grey: bool = False
    size: PositiveInt | None = None
    seed: NonNegativeInt = 0

    @property
    def options(self) -> dict[str, Any]:
        """What the source's function takes beside the keys above."""
        return self.options_beyond(DatasetParams)

    def amount(self, key: Literal["train", "validation"]) -> Amount | None:
        """`train` or `validation` as the split takes it."""
        value: FirstParams | int | float | None = getattr(self, key)
        return First(value.first) if isinstance(value, FirstParams) else value

    def split_folds(self) -> Folds | None:
        """`folds` as the split takes it."""
        return Folds(self.folds.count, self.folds.test) if self.folds else None


class ModelParams(Section):
    """An architecture; further keys are its own options. `mean` and `std` scale each channel."""

    name: str
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None


class NamedParams(Section):
    """A named part whose further keys are its own options."""

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What the named function takes."""
        return self.options_beyond(NamedParams)


class DumpParams(Section):
    """One field of a teacher (or of a student) on a data set; further keys are the field's own."""

    field: str
    of: Name
    of_seed: NonNegativeInt = 0
    dataset: Name | None = None
    samples: Literal["train", "all"] = "train"
    format: Format | None = None
    batch: PositiveInt = 512

    @property
    def options(self) -> dict[str, Any]:
        """What the field's function takes."""
        return self.options_beyond(DumpParams)


def _parse(registry: Registry, tag: str, base: type[S], value: Any) -> S:
    return registry.parse({tag: value} if isinstance(value, str) else value, tag=tag, base=base)


def _weight(value: Any) -> float | dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(SCHEDULES.parse(value, tag="name", base=NamedParams))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"expected a number from 0, or a schedule {{name: linear, ...}}, found {value!r}")
    return float(value)


class TermParams(Section):
    """One loss term: its weight (a number or a schedule), the dump it reads, its own options."""

    loss: str
    weight: Annotated[float | dict[str, Any], PlainValidator(_weight)] = 1.0
    reads: Name | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the term's function takes."""
        return self.options_beyond(TermParams)


def _terms(value: Any) -> Any:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("expected a mapping of loss terms, such as {ce: {weight: 1.0}}")
    return {name: {**(options or {}), "loss": name} if isinstance(options or {}, Mapping) else options for name, options in value.items()}


# Each is validated by the function it names, and written out with that function's options.
Model = Annotated[SerializeAsAny[ModelParams], PlainValidator(partial(_parse, MODELS, "name", ModelParams))]
Optimizer = Annotated[SerializeAsAny[NamedParams], PlainValidator(partial(_parse, OPTIMIZERS, "name", NamedParams))]
LrSchedule = Annotated[SerializeAsAny[NamedParams], PlainValidator(partial(_parse, LR_SCHEDULES, "name", NamedParams))]
Source = Annotated[SerializeAsAny[DatasetParams], PlainValidator(partial(_parse, SOURCES, "source", DatasetParams))]
Dump = Annotated[SerializeAsAny[DumpParams], PlainValidator(partial(_parse, FIELDS, "field", DumpParams))]
Term = Annotated[SerializeAsAny[TermParams], PlainValidator(partial(_parse, TERMS, "loss", TermParams))]


class TrainingParams(Section):
    """How a network is trained, whatever its loss."""

    optimizer: Optimizer = Field(default_factory=lambda: _parse(OPTIMIZERS, "name", NamedParams, "adam"))
    schedule: LrSchedule = Field(default_factory=lambda: _parse(LR_SCHEDULES, "name", NamedParams, "constant"))
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 128
    drop_last: bool = False
    l1: NonNegativeFloat = 0.0

    def require_length(self) -> None:
        """Raise ValueError unless exactly one of epochs and steps is given."""
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("expected exactly one of epochs and steps")


class TeacherParams(TrainingParams):
    """A teacher: trained here, read from a file (`weights`), or an ensemble (`members`)."""

    dataset: Name | None = None
    model: Model | None = None
    weights: Path | None = None
    members: tuple[Name, ...] | None = Field(default=None, min_length=2)
    average: Literal["logits", "probabilities"] = "logits"

    @model_validator(mode="after")
    def _one_kind(self) -> TeacherParams:
        if self.members is not None:
            if self.model is not None or self.weights is not None or self.epochs or self.steps:
                raise ValueError("members: an ensemble has no model, weights, epochs or steps of its own")
            return self
        if self.model is None:
            raise ValueError("model: missing; a teacher needs a model, or members")
        if self.weights is None:
            self.require_length()
        elif self.epochs or self.steps:
            raise ValueError("weights: a teacher read from a file is not trained; remove epochs and steps")
        return self


class StudentParams(TrainingParams):
    """A student: a model, a recipe of losses, and `seeds` independent runs of it."""

    dataset: Name | None = None
    model: Model
    losses: Annotated[dict[str, Term], BeforeValidator(_terms)]
    seeds: PositiveInt = 1
    select: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _length(self) -> StudentParams:
        self.require_length()
        return self


class CacheParams(Section):
    """What every dump does unless it says otherwise."""

    format: Format = "zarr"
    dtype: Literal["float16", "float32"] = "float16"


class ViewsParams(Section):
    """Augmented views of the training images."""

    policy: Literal["none"] = "none"
    count: Literal[1] = 1


class ReportParams(Section):
    """`baseline`: the student that the others are compared with."""

    baseline: Name | None = None


class Study(Section):
    """A whole `params.yaml`, after `load` has filled in what may be left out."""

    seed: NonNegativeInt = 0
    cache: CacheParams = CacheParams()
    views: ViewsParams = ViewsParams()
    datasets: dict[Name, Source] = Field(min_length=1)
    teachers: dict[Name, TeacherParams] = {}
    dumps: dict[Name, Dump] = {}
    students: dict[Name, StudentParams] = {}
    report: ReportParams = ReportParams()


def read_raw(path: Path) -> dict[str, Any]:
    """The file as plain values, merge keys resolved.

    Raises:
        InputError: it is missing or is not a YAML mapping.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            str(path), expected="a study's parameters", found="no such file",
            fix="run from the study's folder or pass --params FILE",
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(str(path), expected="valid YAML", found=str(error)) from None
    if not isinstance(raw, dict):
        raise InputError(str(path), expected="a mapping of sections", found=type(raw).__name__)
    return raw


def load(path: Path) -> Study:
    """Read, validate and complete a study.

    Raises:
        InputError: with the key of the first mistake, what was expected and what was found.
    """
    return parse(read_raw(path), path.name)


def parse(raw: Mapping[str, Any], file: str = "params.yaml") -> Study:
    """Validate plain values and fill in data sets, formats and dumps that may be left out.

    Raises:
        InputError: see `load`.
    """
    values = dict(raw)
    if "dataset" in values:
        if "datasets" in values:
            raise InputError(f"{file}: dataset", expected="either dataset or datasets", found="both")
        values["datasets"] = {"default": values.pop("dataset")}
    values = {key: {} if value is None and key in Study.model_fields else value for key, value in values.items()}
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        mistakes = list(flatten(error))
        place, text = mistakes[0]
        key = ".".join(str(part) for part in place if part != "[key]")
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise InputError(f"{file}: {key}: {text}{more}" if key else f"{file}: {text}{more}") from None
    try:
        return _complete(study)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None


def _complete(study: Study) -> Study:
    """Fill in defaults that depend on other sections, and check every reference."""
    both = sorted(study.teachers.keys() & study.students.keys())
    if both:
        raise ValueError(f"students.{both[0]}: also the name of a teacher; expected a name of its own")
    teachers = {name: _teacher(study, name) for name in study.teachers}
    known = study.model_copy(update={"teachers": teachers})
    students = {
        name: params.model_copy(update={"dataset": _dataset(known, f"students.{name}", params.dataset)})
        for name, params in study.students.items()
    }
    known = known.model_copy(update={"students": students})
    known = known.model_copy(update={"dumps": {name: _dump(known, name) for name in study.dumps}})
    known = known.model_copy(
        update={"students": {name: params.model_copy(update={"losses": _losses(known, name)}) for name, params in students.items()}}
    )
    baseline = study.report.baseline
    if baseline is not None and baseline not in students:
        raise ValueError("report.baseline: " + unknown("student", baseline, students))
    return known


def _dataset(study: Study, key: str, name: str | None) -> str:
    if name is None:
        if len(study.datasets) > 1:
            raise ValueError(f"{key}.dataset: missing; expected one of {', '.join(sorted(study.datasets))}")
        return next(iter(study.datasets))
    if name not in study.datasets:
        raise ValueError(f"{key}.dataset: " + unknown("data set", name, study.datasets))
    return name


def _teacher(study: Study, name: str) -> TeacherParams:
    params, key = study.teachers[name], f"teachers.{name}"
    for member in params.members or ():
        if member not in study.teachers or study.teachers[member].members:
            trained = [other for other, its in study.teachers.items() if not its.members]
            raise ValueError(f"{key}.members: " + unknown("single teacher", member, trained))
    return params.model_copy(update={"dataset": _dataset(study, key, params.dataset)})


def _dump(study: Study, name: str) -> DumpParams:
    params, key = study.dumps[name], f"dumps.{name}"
    source = study.teachers.get(params.of) or study.students.get(params.of)
    if source is None:
        raise ValueError(f"{key}.of: " + unknown("teacher or student", params.of, [*study.teachers, *study.students]))
    if isinstance(source, StudentParams) and params.of_seed >= source.seeds:
        raise ValueError(f"{key}.of_seed: expected 0 to {source.seeds - 1}, found {params.of_seed}")
    update: dict[str, Any] = {
        "dataset": _dataset(study, key, params.dataset or source.dataset),
        "format": params.format or study.cache.format,
    }
    if "dtype" in params.options and "dtype" not in params.model_fields_set:
        update["dtype"] = study.cache.dtype
    return params.model_copy(update=update)


def _losses(study: Study, student: str) -> dict[str, TermParams]:
    return {
        name: term.model_copy(update={"reads": _reads(study, student, name, term)})
        for name, term in study.students[student].losses.items()
    }


def _reads(study: Study, student: str, loss: str, term: TermParams) -> str | None:
    """The dump that a term reads: the one it names, or the only one that fits."""
    key, field, dataset = f"students.{student}.losses.{loss}", field_of(loss), study.students[student].dataset
    if field is None:
        if term.reads is not None:
            raise ValueError(f"{key}.reads: this loss reads no dump; remove the key")
        return None
    if term.reads is None:
        fitting = [name for name, dump in study.dumps.items() if (dump.field, dump.dataset) == (field, dataset)]
        if not fitting:
            raise ValueError(f"{key}: needs the field {field!r} of a teacher on data set {dataset!r}, which no dump makes; add one under dumps:")
        if len(fitting) > 1:
            raise ValueError(f"{key}.reads: missing; expected one of {', '.join(sorted(fitting))}")
        return fitting[0]
    if term.reads in study.teachers:
        raise ValueError(f"{key}.reads: {term.reads!r} is a teacher; expected one of its dumps")
    if term.reads not in study.dumps:
        raise ValueError(f"{key}.reads: " + unknown("dump", term.reads, study.dumps))
    dump = study.dumps[term.reads]
    if dump.field != field:
        raise ValueError(f"{key}.reads: expected a dump of field {field!r}, found {term.reads!r} of field {dump.field!r}")
    if dump.dataset != dataset:
        raise ValueError(f"{key}.reads: expected a dump on data set {dataset!r}, found {term.reads!r} on {dump.dataset!r}")
    return term.reads
