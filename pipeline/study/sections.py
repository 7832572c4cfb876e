"""The sections of `params.yaml`: how networks are trained, teachers, students, and the whole study."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainValidator,
    PositiveInt,
    PrivateAttr,
    SerializeAsAny,
    model_validator,
)

from pipeline.base.registry import FilePath, Section, validate_nested
from pipeline.cache.codecs import Codec, Format
from pipeline.cache.manifest import Digest, TermsLine, TermsText
from pipeline.study.grid import Points
from pipeline.study.part_sections import (
    Binary,
    ChunkKib,
    Dump,
    Head,
    LrSchedule,
    MemoryLayout,
    Model,
    ModelParams,
    Name,
    Optimizer,
    Precision,
    SampleOrder,
    Source,
    TermParams,
    Terms,
    ViewsParams,
    ViewsSection,
    parse_lr_schedule,
    parse_optimizer,
    parse_order,
)
from pipeline.study.report_section import ReportParams


class RestoreParams(Section):
    """An epoch that ends in NaN or infinite numbers is taken back, at most so often, and tried again at a
    learning rate that is divided.
    """

    divide: Annotated[float, Field(gt=1)] = 100.0
    at_most: PositiveInt = 10


def _parse_on_nan(value: Any) -> RestoreParams | None:
    if isinstance(value, RestoreParams) or value in (None, "stop"):
        return None if value == "stop" else value
    if value != "restore" and not isinstance(value, Mapping):
        raise ValueError(f"expected stop, restore or {{divide: 100.0, at_most: 10}}, found {value!r}")
    return validate_nested(RestoreParams, {} if value == "restore" else value)


class TrainingParams(Section):
    """How a network is trained, whatever its loss."""

    optimizer: Optimizer = Field(default_factory=partial(parse_optimizer, "adam"))
    lr_schedule: LrSchedule = Field(default_factory=partial(parse_lr_schedule, "constant"))
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 128
    drop_last: bool = False
    order: SampleOrder = Field(default_factory=partial(parse_order, "shuffled"))
    l1: NonNegativeFloat = 0.0
    on_nan: Annotated[SerializeAsAny[RestoreParams] | None, PlainValidator(_parse_on_nan)] = None
    compile: bool = False
    batch_norm: Literal["synchronised", "local"] = "synchronised"

    @property
    def has_order(self) -> bool:
        """Whether the samples come in another order than shuffled: no batch plan may then take its place."""
        return self.order.name != "shuffled"

    def require_length(self) -> None:
        """Raise ValueError unless exactly one of epochs and steps is given."""
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("expected exactly one of epochs and steps")


class NetworkParams(TrainingParams):
    """A network: its data set, its model, and what changes that model's end (`head`) or inside (`binary`)."""

    dataset: Name | None = None
    model: Model | None = None
    head: Head | None = None
    binary: Binary | None = None
    precision: Precision = "float32"
    layout: MemoryLayout | None = None

    @model_validator(mode="after")
    def _refuse_without_model(self) -> NetworkParams:
        """Refuse a head without a model, or with one that calls an option of its own so."""
        for key in ("head", "binary"):
            if getattr(self, key) is None:
                continue
            if self.model is None:
                raise ValueError(f"{key}: belongs to a model, and this teacher has none of its own; remove the key")
            if key in self.model.extra_options(ModelParams):
                raise ValueError(f"{key}: model {self.model.name!r} has an option of that name; rename the option")
        return self


class TeacherParams(NetworkParams):
    """A teacher: trained here, read from a file (`weights`), an ensemble (`members`), or known by its
    outputs alone (`external`: the SHA-256 of its weights, as `cache create` was told).
    """

    weights: FilePath | None = None
    members: tuple[Name, ...] | None = Field(default=None, min_length=2)
    average: Literal["logits", "probabilities"] = "logits"
    external: Digest | None = None

    @model_validator(mode="after")
    def _require_one_kind(self) -> TeacherParams:
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
        keys = {*TrainingParams.model_fields, "precision", "layout"} - {"epochs", "steps"}
        trained = keys & self.model_fields_set
        if trained:
            raise ValueError(f"{min(trained)}: this teacher is not trained here; remove the key")


class TrainableParams(Section):
    """The part of a network that a phase trains: all below a tap (`up_to`), or `only` the named modules."""

    up_to: str | None = None
    only: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _require_one(self) -> TrainableParams:
        if (self.up_to is None) == (self.only is None):
            raise ValueError("expected exactly one of up_to and only")
        return self


def _parse_trainable(value: Any) -> TrainableParams | None:
    if value is None or isinstance(value, TrainableParams):
        return value
    return validate_nested(TrainableParams, {"up_to": value} if isinstance(value, str) else value)


class PhaseParams(TrainingParams):
    """A recipe of losses, how it is trained, and which part of the network."""

    losses: Terms
    trainable: Annotated[SerializeAsAny[TrainableParams] | None, PlainValidator(_parse_trainable)] = None

    def list_dumps(self) -> list[str]:
        """The dumps that its losses read, each once."""
        return list(dict.fromkeys(dump for term in self.losses.values() for dump in term.dumps))


class PretrainParams(PhaseParams):
    """A phase before a student's own; what it leaves out (but its length) is as the student has it."""

    @model_validator(mode="after")
    def _require_length(self) -> PretrainParams:
        self.require_length()
        return self

    def inherit_from(self, student: StudentParams) -> PretrainParams:
        """The phase with what it leaves out."""
        inherited = TrainingParams.model_fields.keys() - self.model_fields_set - {"epochs", "steps"}
        return self.model_copy(update={key: getattr(student, key) for key in inherited})


class InitParams(Section):
    """The student, of one seed, whose weights another starts from."""

    student: Name
    seed: NonNegativeInt = 0


def _parse_init(value: Any) -> InitParams | None:
    if value is None or isinstance(value, InitParams):
        return value
    if not isinstance(value, str | Mapping):
        raise ValueError(f"expected a student, or {{student: NAME, seed: 0}}, found {value!r}")  # noqa: TRY004
    return validate_nested(InitParams, {"student": value} if isinstance(value, str) else value)


class StudentParams(NetworkParams, PhaseParams):
    """A student: a model, a recipe of losses, phases before it, and `seeds` independent runs of all that.

    With `peers`, each run is so many students of this model, which learn from each other.
    """

    model: Model
    init: Annotated[SerializeAsAny[InitParams] | None, PlainValidator(_parse_init)] = None
    pretrain: tuple[PretrainParams, ...] = ()
    peers: PositiveInt = 1
    seeds: PositiveInt = 1
    select: Literal["best", "last"] = "best"

    @property
    def phases(self) -> tuple[PhaseParams, ...]:
        """All phases in order, the student's own the last."""
        return (*self.pretrain, self)

    def terms(self) -> list[TermParams]:
        """The loss terms of all phases."""
        return [term for phase in self.phases for term in phase.losses.values()]

    def list_all_dumps(self) -> list[str]:
        """The dumps that the losses of all phases read, each once."""
        return list(dict.fromkeys(dump for term in self.terms() for dump in term.dumps))

    @model_validator(mode="after")
    def _require_length(self) -> StudentParams:
        self.require_length()
        return self


def describe_model(
    params: TeacherParams | StudentParams, mode: Literal["python", "json"] = "python", without: set[str] | None = None
) -> dict[str, Any]:
    """What `models.build_network` takes of a network with a model: that, and its `head` and `binary` where it has them.

    Args:
        params: the network's section.
        mode: "json" for what cards and manifests hold: the architecture, without how it was computed.
        without: options of the model to leave out.
    """
    assert params.model is not None
    made = params.model.model_dump(mode=mode, exclude=without)
    computed = {"precision": params.precision, "layout": params.layout}
    if mode == "python" and computed != {"precision": "float32", "layout": None}:
        made["computed"] = computed
    changes = {"head": params.head, "binary": params.binary}
    return made | {key: change.model_dump(mode=mode) for key, change in changes.items() if change is not None}


def describe_computation(params: TeacherParams | StudentParams) -> dict[str, Any]:
    """How a network is computed; a `layout` of None is its architecture's own."""
    return {"precision": params.precision, "layout": params.layout, "compile": params.compile}


def weight_files(params: TeacherParams | StudentParams) -> list[Path]:
    """The files of weights that a teacher, or an option of a model, names."""
    own = [params.weights] if isinstance(params, TeacherParams) else []
    options = params.model.extra_options(ModelParams).values() if params.model else ()
    return [path for path in (*own, *options) if isinstance(path, Path)]


class CacheParams(Section):
    """What every dump does unless it says otherwise."""

    format: Format = "zarr"
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    codec: Codec | None = None
    chunk_kib: ChunkKib | None = None


class SharingParams(Section):
    """The terms that caches name in their cards: see `SharingInfo`."""

    licence: TermsLine | None = None
    citation: TermsText | None = None
    contact: TermsLine | None = None


def _parse_apart(value: Any) -> bool | tuple[str, ...]:
    named = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if not isinstance(value, bool) and not named:
        raise ValueError(f"expected true, false or a list of dumps, such as [NAME], found {value!r}")
    return value if isinstance(value, bool) else tuple(value)


class Study(Section):
    """A whole `params.yaml`; `load_study` fills in what may be left out."""

    _file: str = PrivateAttr("params.yaml")
    _folder: Path = PrivateAttr(default_factory=Path)
    _raw: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _grids: Mapping[str, Points] = PrivateAttr(default_factory=dict)

    seed: NonNegativeInt = 0
    cache: CacheParams = CacheParams()
    views: ViewsSection = ViewsParams()
    datasets: dict[Name, Source] = Field(min_length=1)
    teachers: dict[Name, TeacherParams] = Field(default_factory=dict)
    dumps: dict[Name, Dump] = Field(default_factory=dict)
    apart: Annotated[bool | tuple[Name, ...], PlainValidator(_parse_apart)] = False
    students: dict[Name, StudentParams] = Field(default_factory=dict)
    report: ReportParams = ReportParams()
    sharing: SharingParams = SharingParams()

    @property
    def file(self) -> str:
        """The name of the file that says all this: messages and the stages' commands name it."""
        return self._file

    @property
    def folder(self) -> Path:
        """The folder of that file, where relative paths in it start and the study's data lie."""
        return self._folder

    @property
    def raw(self) -> Mapping[str, Any]:
        """The file as plain values: what is written there, without what was filled in."""
        return self._raw

    @property
    def teachers_run_here(self) -> list[str]:
        """The teachers that have stages and metrics: what an external one knows comes as a finished cache."""
        return [name for name, teacher in self.teachers.items() if teacher.external is None]

    def is_apart(self, dump: str) -> bool:
        """Whether a dump has a stage of its own, though another one could be made in the same pass."""
        return self.apart if isinstance(self.apart, bool) else dump in self.apart

    @property
    def grids(self) -> Mapping[str, Points]:
        """The grids among the students: by name, the values of each member."""
        return self._grids

    def list_trained_with(self, name: str) -> list[str]:
        """The students that one command of this name trains: a grid's members, or itself."""
        return list(self._grids.get(name, (name,)))

    def find_stage_name(self, student: str) -> str:
        """What the command that trains a student is told: its grid's name, or its own."""
        return next((grid for grid, members in self._grids.items() if student in members), student)

    def with_grids(self, grids: Mapping[str, Points]) -> Study:
        """Return the same study, with what its grids were."""
        study = self.model_copy()
        study._grids = grids  # noqa: SLF001 - its own
        return study

    def with_file(self, file: str, folder: Path, raw: Mapping[str, Any]) -> Study:
        """Return the same study, as read from a file of this name and content."""
        study = self.model_copy()
        study._file, study._folder, study._raw = file, folder, raw  # noqa: SLF001 - its own
        return study
