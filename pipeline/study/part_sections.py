"""The named parts of a study (data sets, models, optimisers, losses, dumps, ...) as frozen values.

Each is validated by the function that its name stands for: see `registry`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    Field,
    NonNegativeInt,
    PlainValidator,
    PositiveInt,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.base.errors import InputError
from pipeline.base.light_modules import read_outline
from pipeline.base.registry import (
    UNSET,
    NestedError,
    Registry,
    Section,
    create_options_section,
    validate_nested,
)
from pipeline.cache.codecs import Format
from pipeline.cache.root_pins import split_pin
from pipeline.cache.store_plan import MAX_CHUNK_BYTES
from pipeline.datasets import SOURCES
from pipeline.datasets.duplicates import Duplicates
from pipeline.datasets.split import Amount, First, Folds
from pipeline.dumps import FIELDS
from pipeline.dumps.hooks import check_options
from pipeline.losses import TERMS
from pipeline.losses.weights import SCHEDULES
from pipeline.models import MODELS
from pipeline.models.heads import HEADS
from pipeline.training.registries import LR_SCHEDULES, OPTIMIZERS, ORDERS
from pipeline.views import POLICIES
from pipeline.views.view_limits import refuse_impossible_views

if TYPE_CHECKING:
    from pipeline.views.view import Views

S = TypeVar("S", bound=Section)

NAME, MOST_LETTERS = r"^[A-Za-z0-9][A-Za-z0-9_-]*$", 100
Name = Annotated[str, Field(pattern=NAME, max_length=MOST_LETTERS)]


class FirstParams(Section):
    """`{first: n}`: the first n samples in file order."""

    first: PositiveInt


class FoldsParams(Section):
    """`{count: 6, test: k}`: balanced folds over all images; fold k, from 0, is the test part."""

    count: Annotated[int, Field(ge=2)]
    test: NonNegativeInt

    @model_validator(mode="after")
    def _refuse_other_fold(self) -> FoldsParams:
        if self.test >= self.count:
            raise ValueError(f"test: expected 0 to {self.count - 1}, found {self.test}")
        return self


def _parse_amount(value: Any) -> Amount | None:
    if isinstance(value, Mapping):
        return First(FirstParams.model_validate(value).first)
    counted = isinstance(value, int) and not isinstance(value, bool) and value > 0
    shared = isinstance(value, float) and 0 < value < 1
    if value is not None and not counted and not shared:
        raise ValueError(f"expected {{first: n}}, a number of images or a share below 1, found {value!r}")
    return value  # type: ignore[no-any-return]


AmountParams = Annotated[First | int | float | None, PlainValidator(_parse_amount)]


class DatasetParams(Section):
    """A source of images and how it is split; further keys are the source's own options.

    `train`, `validation` and `test`: `{first: n}`, a number of images or a share (both stratified). `duplicates`:
    what becomes of images with just the pixels of another.
    """

    source: str
    root: Annotated[str, Field(min_length=1)] | None = None
    folder: str | None = None
    download: bool = False
    train: AmountParams = None
    validation: AmountParams = None
    test: AmountParams = None
    folds: FoldsParams | None = None
    grey: bool = False
    size: PositiveInt | None = None
    seed: NonNegativeInt = 0
    duplicates: Duplicates = "keep"

    @property
    def options(self) -> dict[str, Any]:
        """What the source's function takes beside the keys above."""
        return self.extra_options(DatasetParams)

    def split_folds(self) -> Folds | None:
        """`folds` as the split takes it."""
        return Folds(self.folds.count, self.folds.test) if self.folds else None


class ModelParams(Section):
    """An architecture; further keys are its own options. `mean` and `std` scale each channel."""

    name: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @field_validator("mean", "std")
    @classmethod
    def _refuse_unscaled(cls, values: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        """Refuse what pixels in [0, 1] cannot have (a std is at most 0.5 there; 1 is how people say: not scaled)."""
        least = "numbers from 0 to 1" if info.field_name == "mean" else "numbers above 0, up to 1"
        wrong = [value for value in values or () if not 0 <= value <= 1 or (info.field_name == "std" and not value)]
        if not wrong:
            return values
        bytes_ = all(1 < value <= 255 for value in wrong) and max(wrong) > 2
        fix = f"divide by 255: {wrong[0] / 255:.3g}" if bytes_ else "leave it out for pixels as they are"
        raise ValueError(
            f"expected {least}, since pixels are scaled to [0, 1] before, found {list(values or ())}; {fix}"
        )

    @model_serializer(mode="wrap")
    def _drop_unset(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All options but those that came later and are not set."""
        later = {key for key, field in type(self).model_fields.items() if UNSET in field.metadata}
        return {key: value for key, value in whole(self).items() if value is not None or key not in later}


class NamedParams(Section):
    """A named part whose further keys are its own options."""

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What the named function takes."""
        return self.extra_options(NamedParams)


class HeadParams(Section):
    """How a network ends: a head's name; further keys are its own options."""

    implied_keys: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What the head's function takes."""
        return self.extra_options(HeadParams)


ChunkKib = Annotated[int, Field(ge=1, le=MAX_CHUNK_BYTES >> 10)]


Precision = Literal["float32", "tf32", "bfloat16"]
MemoryLayout = Literal["channels_last", "contiguous"]


class ForwardParams(Section):
    """How the forward pass of a dump is computed; a `layout` of None is the architecture's own."""

    precision: Precision = "float32"
    layout: MemoryLayout | None = None


class DumpParams(Section):
    """One field of a teacher (or of a student) on a data set; further keys are the field's own."""

    field: str
    of: Name
    of_seed: NonNegativeInt = 0
    dataset: Name | None = None
    samples: Literal["train", "all"] = "train"
    format: Format | None = None
    batch: PositiveInt = 512
    forward: ForwardParams = ForwardParams()
    at: str | None = None
    chunk_kib: ChunkKib | None = None

    @field_validator("at")
    @classmethod
    def _require_pin(cls, url: str | None) -> str | None:
        """Refuse a URL that does not say which cache is meant: whoever keeps it could put another there."""
        try:
            pin = None if url is None else split_pin(url)[1]
        except InputError as error:
            raise ValueError(str(error)) from None
        if url is not None and pin is None:
            raise ValueError("expected URL#root, pinned by the cache's root digest, found none")
        return url

    @property
    def options(self) -> dict[str, Any]:
        """What the field's function takes."""
        return self.extra_options(DumpParams)


class ViewsParams(Section):
    """Augmented views of the training images; further keys are the policy's own options.

    `order`: epoch e shows view e mod count (`cycle`), or draws a view for each sample (`draw`).
    """

    policy: str = "none"
    count: PositiveInt = 1
    seed: NonNegativeInt = 0
    order: Literal["cycle", "draw"] = "cycle"

    @property
    def options(self) -> dict[str, Any]:
        """What the policy's function takes."""
        return self.extra_options(ViewsParams)

    def views(self) -> Views:
        """The augmentation itself."""
        from pipeline.views.view import Views  # torch

        return Views(self.policy, self.count, self.seed, self.options, self.order)


def _parse_part(registry: Registry, tag: str, base: type[S], value: Any) -> S:
    return registry.parse({tag: value} if isinstance(value, str) else value, tag=tag, base=base)


def _parse_weight(value: Any) -> float | dict[str, Any]:
    if isinstance(value, Mapping):
        made = SCHEDULES.parse(value, tag="name", base=NamedParams)
        SCHEDULES.import_function(made.name)(1, **made.options)  # raises what options forbid together
        return dict(made)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"expected a number from 0, or a schedule {{name: linear, ...}}, found {value!r}")
    return float(value)


def _parse_reads(value: Any) -> str | dict[str, str] | None:
    if isinstance(value, Mapping) and value and all(isinstance(item, str) for pair in value.items() for item in pair):
        return dict(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"expected the name of a dump, or of one for each role, found {value!r}")
    return value


class TermParams(Section):
    """One term of a recipe: its loss, its weight (a number or a schedule), the dumps it reads, the loss's own options.

    `loss` may be left out where the term is called as its loss. `reads` names a dump, or one for each
    role of a loss that reads several; in a completed study it is always by role.
    """

    loss: str
    weight: Annotated[float | dict[str, Any], PlainValidator(_parse_weight)] = 1.0
    reads: Annotated[str | dict[str, str] | None, PlainValidator(_parse_reads)] = None

    @property
    def options(self) -> dict[str, Any]:
        """What the loss's function takes."""
        return self.extra_options(TermParams)

    @property
    def dumps(self) -> tuple[str, ...]:
        """The dumps that a completed term reads."""
        return tuple(self.reads.values()) if isinstance(self.reads, dict) else ()

    def written_options(self) -> dict[str, Any]:
        """Those options that the user has written, as JSON."""
        return self.model_dump(mode="json", include=self.options.keys() & self.model_fields_set, exclude_unset=True)


RESERVED = ("loss", "l1")  # what curves call other things


def _parse_terms(value: Any) -> dict[str, TermParams]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("expected a mapping of loss terms, such as {ce: {weight: 1.0}}")
    terms = {}
    for name, options in value.items():
        if options is not None and not isinstance(options, Mapping):
            raise NestedError([((name,), f"expected a mapping of this term's options, found {options!r}")])
        loss = (options or {}).get("loss", name)
        if name in TERMS.entries and loss != name:
            raise NestedError([((name, "loss"), f"a term with the name of a loss is that loss; found {loss!r}")])
        if not isinstance(name, str) or len(name) > MOST_LETTERS or not re.fullmatch(NAME, name):
            raise NestedError([((name,), "expected a name of letters, digits, - and _")])
        if name in RESERVED:
            raise NestedError([((name,), "this name is taken; give the term another, and say `loss: NAME` in it")])
        try:
            terms[name] = TERMS.parse({**(options or {}), "loss": loss}, tag="loss", base=TermParams)
        except NestedError as error:
            raise NestedError([((name, *place), text) for place, text in error.errors]) from None
    return terms


def _parse_head(value: Any) -> HeadParams:
    if isinstance(value, HeadParams):
        return value
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError(f"expected a mapping of one head, such as {{multichannel: {{kernel: 3}}}}, found {value!r}")
    ((name, options),) = value.items()
    if options is not None and (not isinstance(options, Mapping) or "name" in options):
        raise NestedError([((name,), f"expected a mapping of this head's options, found {options!r}")])
    try:
        return HEADS.parse({**(options or {}), "name": name}, tag="name", base=HeadParams)
    except NestedError as error:
        raise NestedError([((name, *place), text) for place, text in error.errors]) from None


def parse_optimizer(value: Any) -> NamedParams:
    """An optimiser by its name, or with options; refused where its options contradict each other."""
    made = _parse_part(OPTIMIZERS, "name", NamedParams, value)
    _check_together(OPTIMIZERS, made)
    return made


def parse_lr_schedule(value: Any) -> NamedParams:
    """A learning-rate schedule by its name, or with options; refused where they contradict each other."""
    made = _parse_part(LR_SCHEDULES, "name", NamedParams, value)
    _check_together(LR_SCHEDULES, made)
    return made


def _check_together(registry: Registry, made: NamedParams) -> None:
    """Raise ValueError for options that contradict each other, by the part's `check_NAME` where there is one."""
    check = getattr(registry.read_part(made.name), f"check_{made.name}", None)
    if check is not None:
        check(**made.options)


def parse_order(value: Any) -> NamedParams:
    """An order of the training samples by its name, or with options."""
    return _parse_part(ORDERS, "name", NamedParams, value)


def _parse_dump(value: Any) -> DumpParams:
    made = _parse_part(FIELDS, "field", DumpParams, value)
    check_options(made.field, made.options)
    return made


def _parse_views(value: Any) -> ViewsParams:
    made = _parse_part(POLICIES, "policy", ViewsParams, value)
    try:
        refuse_impossible_views(made.policy, made.count, made.seed)
    except InputError as error:
        raise ValueError(str(error)) from None
    return made


def _parse_binary(value: Any) -> Section:
    # Imported by name: networks without binary layers have no use for that file.
    model = create_options_section(read_outline("pipeline.models.binary.convert:binarise_network"), Section)
    made: Section = validate_nested(model, {"form": value} if isinstance(value, str) else value)
    return made


# Each is validated by the function it names, and written out with that function's options.
Model = Annotated[SerializeAsAny[ModelParams], PlainValidator(partial(_parse_part, MODELS, "name", ModelParams))]
Head = Annotated[SerializeAsAny[HeadParams], PlainValidator(_parse_head)]
Binary = Annotated[SerializeAsAny[Section], PlainValidator(_parse_binary)]
Optimizer = Annotated[SerializeAsAny[NamedParams], PlainValidator(parse_optimizer)]
LrSchedule = Annotated[SerializeAsAny[NamedParams], PlainValidator(parse_lr_schedule)]
SampleOrder = Annotated[SerializeAsAny[NamedParams], PlainValidator(parse_order)]
Source = Annotated[
    SerializeAsAny[DatasetParams], PlainValidator(partial(_parse_part, SOURCES, "source", DatasetParams))
]
Dump = Annotated[SerializeAsAny[DumpParams], PlainValidator(_parse_dump)]
ViewsSection = Annotated[SerializeAsAny[ViewsParams], PlainValidator(_parse_views)]
Terms = Annotated[dict[str, SerializeAsAny[TermParams]], PlainValidator(_parse_terms)]
