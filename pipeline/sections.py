"""The sections of `params.yaml`: how networks are trained, teachers, students, and the whole study."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from pipeline.cache.codecs import Codec, Format
from pipeline.cache.manifest import Digest
from pipeline.parts import (
    Dump,
    Head,
    HeadParams,
    LrSchedule,
    Model,
    ModelParams,
    Name,
    Optimizer,
    Source,
    TermParams,
    Terms,
    ViewsParams,
    ViewsSection,
    lr_schedule,
    optimizer,
)
from pipeline.registry import FilePath, Section


class TrainingParams(Section):
    """How a network is trained, whatever its loss."""

    optimizer: Optimizer = Field(default_factory=partial(optimizer, "adam"))
    schedule: LrSchedule = Field(default_factory=partial(lr_schedule, "constant"))
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 128
    drop_last: bool = False
    l1: NonNegativeFloat = 0.0

    def require_length(self) -> None:
        """Raise ValueError unless exactly one of epochs and steps is given."""
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("expected exactly one of epochs and steps")


def _refuse_head(model: ModelParams | None, head: HeadParams | None) -> None:
    """Raise ValueError for a head without a model, or with one that calls an option of its own so."""
    if head is not None and model is None:
        raise ValueError("head: belongs to a model, and this teacher has none of its own; remove the key")
    if head is not None and model is not None and "head" in model.options_beyond(ModelParams):
        raise ValueError(f"head: model {model.name!r} has an option of that name; rename the option")


class TeacherParams(TrainingParams):
    """A teacher: trained here, read from a file (`weights`), an ensemble (`members`), or known by its
    outputs alone (`external`: the SHA-256 of its weights, as `cache create` was told).
    """

    dataset: Name | None = None
    model: Model | None = None
    head: Head | None = None
    weights: FilePath | None = None
    members: tuple[Name, ...] | None = Field(default=None, min_length=2)
    average: Literal["logits", "probabilities"] = "logits"
    external: Digest | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> TeacherParams:
        _refuse_head(self.model, self.head)
        if self.external is not None:
            if self.model is not None or self.weights is not None or self.members or self.epochs or self.steps:
                raise ValueError(
                    "external: this teacher is never run here; remove model, weights, members, epochs, steps"
                )
            self._refuse_training_keys()
            return self
        if self.members is not None:
            if self.model is not None or self.weights is not None or self.epochs or self.steps:
                raise ValueError("members: an ensemble has no model, weights, epochs or steps of its own")
            self._refuse_training_keys()
            return self
        if self.model is None:
            raise ValueError("model: missing; a teacher needs a model, members or external")
        if self.weights is None:
            self.require_length()
        elif self.epochs or self.steps:
            raise ValueError("weights: a teacher read from a file is not trained; remove epochs and steps")
        else:
            self._refuse_training_keys()
        return self

    def _refuse_training_keys(self) -> None:
        trained = {"optimizer", "schedule", "batch_size", "drop_last", "l1"} & self.model_fields_set
        if trained:
            raise ValueError(f"{min(trained)}: this teacher is not trained here; remove the key")


class PhaseParams(TrainingParams):
    """A recipe of losses and how it is trained."""

    losses: Terms

    def reads(self) -> list[str]:
        """The dumps that its losses read, each once."""
        return list(dict.fromkeys(term.reads for term in self.losses.values() if term.reads))


class PretrainParams(PhaseParams):
    """A phase before a student's own; what it leaves out (but its length) is as the student has it."""

    @model_validator(mode="after")
    def _length(self) -> PretrainParams:
        self.require_length()
        return self

    def as_in(self, student: StudentParams) -> PretrainParams:
        """The phase with what it leaves out."""
        inherited = TrainingParams.model_fields.keys() - self.model_fields_set - {"epochs", "steps"}
        return self.model_copy(update={key: getattr(student, key) for key in inherited})


class StudentParams(PhaseParams):
    """A student: a model, a recipe of losses, phases before it, and `seeds` independent runs of all that."""

    dataset: Name | None = None
    model: Model
    head: Head | None = None
    pretrain: tuple[PretrainParams, ...] = ()
    seeds: PositiveInt = 1
    select: Literal["best", "last"] = "best"

    @property
    def phases(self) -> tuple[PhaseParams, ...]:
        """All phases in order, the student's own the last."""
        return (*self.pretrain, self)

    def terms(self) -> list[tuple[str, TermParams]]:
        """The loss terms of all phases, by name."""
        return [term for phase in self.phases for term in phase.losses.items()]

    def all_reads(self) -> list[str]:
        """The dumps that the losses of all phases read, each once."""
        return list(dict.fromkeys(term.reads for _, term in self.terms() if term.reads))

    @model_validator(mode="after")
    def _length(self) -> StudentParams:
        _refuse_head(self.model, self.head)
        self.require_length()
        return self


def model_of(
    params: TeacherParams | StudentParams, mode: Literal["python", "json"] = "python", without: set[str] | None = None
) -> dict[str, Any]:
    """What `models.build` takes of a network with a model: that, and its `head` where it has one.

    Args:
        params: the network's section.
        mode: "json" for what cards and manifests hold.
        without: options of the model to leave out.
    """
    assert params.model is not None
    made = params.model.model_dump(mode=mode, exclude=without)
    return made if params.head is None else {**made, "head": params.head.model_dump(mode=mode)}


class CacheParams(Section):
    """What every dump does unless it says otherwise."""

    format: Format = "zarr"
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    codec: Codec | None = None


class ReportParams(Section):
    """`baseline`: the student that the others are compared with."""

    baseline: Name | None = None


class Study(Section):
    """A whole `params.yaml`; `params.load` fills in what may be left out."""

    seed: NonNegativeInt = 0
    cache: CacheParams = CacheParams()
    views: ViewsSection = ViewsParams()
    datasets: dict[Name, Source] = Field(min_length=1)
    teachers: dict[Name, TeacherParams] = Field(default_factory=dict)
    dumps: dict[Name, Dump] = Field(default_factory=dict)
    students: dict[Name, StudentParams] = Field(default_factory=dict)
    report: ReportParams = ReportParams()
