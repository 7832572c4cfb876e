"""The sections of `params.yaml` as frozen, validated values."""

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
    model_validator,
)

from pipeline.cache.manifest import Format
from pipeline.datasets import SOURCES
from pipeline.datasets.split import Amount, First, Folds
from pipeline.dumps import FIELDS
from pipeline.losses import TERMS
from pipeline.models import MODELS
from pipeline.optimizers import LR_SCHEDULES, OPTIMIZERS
from pipeline.registry import Registry, Section
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
    return {
        name: {**(options or {}), "loss": name} if isinstance(options or {}, Mapping) else options
        for name, options in value.items()
    }


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
    """A whole `params.yaml`; `params.load` fills in what may be left out."""

    seed: NonNegativeInt = 0
    cache: CacheParams = CacheParams()
    views: ViewsParams = ViewsParams()
    datasets: dict[Name, Source] = Field(min_length=1)
    teachers: dict[Name, TeacherParams] = Field(default_factory=dict)
    dumps: dict[Name, Dump] = Field(default_factory=dict)
    students: dict[Name, StudentParams] = Field(default_factory=dict)
    report: ReportParams = ReportParams()
