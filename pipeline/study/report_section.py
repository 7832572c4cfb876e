"""The `report` section of `params.yaml`: what is compared, claimed, laid beside the source, and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PlainValidator, TypeAdapter, ValidationError, model_validator

from pipeline.base.registry import NestedError, Section, flatten_errors
from pipeline.study.part_sections import Name

Percent = Annotated[float, Field(ge=0, le=100)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
BASELINE: TypeAdapter[str] = TypeAdapter(Name)
BASELINES: TypeAdapter[dict[str, tuple[str, ...]]] = TypeAdapter(
    Annotated[dict[Name, Names], Field(min_length=1)], config=Section.model_config
)


def _parse_baseline(value: Any) -> str | dict[str, tuple[str, ...]] | None:
    """One student, or several with those that are compared with each."""
    if value is None:
        return None
    try:
        return BASELINES.validate_python(value) if isinstance(value, Mapping) else BASELINE.validate_python(value)
    except ValidationError as error:
        raise NestedError(list(flatten_errors(error))) from None


class PublishedParams(Section):
    """What the source of a study reports, to lay beside what was measured here.

    Attributes:
        metric: accuracy on `test`, or on `validation` at the end of training (mean of the last
            twentieth of the epochs).
        error: by student, group or teacher, percent.
        accuracy: likewise; only one of the two.
    """

    metric: Literal["test", "validation"] = "test"
    error: dict[Name, Percent] = Field(default_factory=dict)
    accuracy: dict[Name, Percent] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_one(self) -> PublishedParams:
        if bool(self.error) == bool(self.accuracy):
            raise ValueError("expected exactly one of error and accuracy")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All that have a value."""
        return (*self.error, *self.accuracy)


class ClaimParams(Section):
    """A claim of the source: `ahead` is ahead of `behind`, by more than `by`.

    Attributes:
        text: the claim in the source's words or numbers.
        ahead, behind: students, groups or teachers.
        metric: what is compared: accuracy on `test` (the reported epoch), on `validation` (mean over the last
            twentieth of the epochs), or the `epochs` until the validation accuracy first reaches what `behind`
            ends with (fewer is ahead).
        by: points, or epochs.
    """

    text: Annotated[str, Field(min_length=1)]
    ahead: Name
    behind: Name
    metric: Literal["test", "validation", "epochs"] = "test"
    by: NonNegativeFloat = 0.0


class SweepParams(Section):
    """One option of a recipe over several students, drawn as error against its value.

    Attributes:
        option: its name, the axis.
        values: by student or group; `.inf` is drawn beyond the largest.
    """

    option: Annotated[str, Field(min_length=1)]
    values: dict[Name, Annotated[float, Field(allow_inf_nan=True, ge=0)]] = Field(min_length=2)


class ReportParams(Section):
    """What the report compares and draws.

    Attributes:
        title: of the page; the folder's name where it is left out.
        baseline: the student that the others are compared with; or by such student those that are, students or groups.
        groups: by name, students that are compared as one (a method on each fold); the others are
            groups of their own.
        unit: what one value of the statistics is: a `run` (of one seed), or a `student` (the mean
            over its seeds: one value a fold).
        anova: the groups whose variance is analysed; all where it is left out.
        published: the source's numbers.
        claims: of the source, by name, each with a verdict in the report.
        sweeps: by name, options drawn against error.
        curves: `late` leaves out the first epochs, which would squeeze the rest into a line; `whole` does not.
        terms: students whose loss terms are drawn over the epochs.
    """

    title: Annotated[str, Field(pattern=r"\S")] | None = None
    baseline: Annotated[str | dict[str, tuple[str, ...]] | None, PlainValidator(_parse_baseline)] = None
    groups: dict[Name, Names] = Field(default_factory=dict)
    unit: Literal["run", "student"] = "run"
    anova: Annotated[tuple[Name, ...], Field(min_length=2)] | None = None
    published: PublishedParams | None = None
    claims: dict[Name, ClaimParams] = Field(default_factory=dict)
    sweeps: dict[Name, SweepParams] = Field(default_factory=dict)
    curves: Literal["late", "whole"] = "late"
    terms: tuple[Name, ...] = ()

    @property
    def baselines(self) -> tuple[str, ...]:
        """The students that others are compared with, where they are named."""
        if self.baseline is None:
            return ()
        return (self.baseline,) if isinstance(self.baseline, str) else tuple(self.baseline)

    @property
    def validated_names(self) -> frozenset[str]:
        """The students, groups and teachers whose validation accuracy is reported or compared."""
        claims = [claim for claim in self.claims.values() if claim.metric != "test"]
        published = self.published.names if self.published and self.published.metric == "validation" else ()
        return frozenset([*published, *(side for claim in claims for side in (claim.ahead, claim.behind))])
