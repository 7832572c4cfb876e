"""What one section of a study says of another: names that must exist, defaults that follow."""

from __future__ import annotations

from typing import Any, cast

from pydantic import ValidationError

from pipeline.cache.codecs import CODECS, Format
from pipeline.dumps import needs_head, plan_of
from pipeline.losses import field_of, misfit_of
from pipeline.parts import DumpParams, TermParams
from pipeline.registry import flatten, unknown
from pipeline.sections import PhaseParams, StudentParams, Study, TeacherParams


def complete(study: Study) -> Study:
    """The study with every default that depends on another section, all references checked.

    Raises:
        ValueError: a name that nobody has, or two parts that do not fit; it begins with the key.
    """
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
    known = known.model_copy(update={"students": {name: _student(known, name) for name in students}})
    taught_in_order(known)
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
        trained = [other for other, its in study.teachers.items() if not its.members and not its.external]
        if member not in trained:
            raise ValueError(f"{key}.members: " + unknown("single teacher", member, trained))
    return params.model_copy(update={"dataset": _dataset(study, key, params.dataset)})


def _dump(study: Study, name: str) -> DumpParams:
    params, key = study.dumps[name], f"dumps.{name}"
    source = study.teachers.get(params.of) or study.students.get(params.of)
    if source is None:
        raise ValueError(f"{key}.of: " + unknown("teacher or student", params.of, [*study.teachers, *study.students]))
    if isinstance(source, StudentParams) and params.of_seed >= source.seeds:
        raise ValueError(f"{key}.of_seed: expected 0 to {source.seeds - 1}, found {params.of_seed}")
    if needs_head(params.field) and isinstance(source, TeacherParams) and source.model is None:
        raise ValueError(f"{key}.of: expected a single network that is run here, found {params.of!r}")
    if needs_head(params.field) and source.head is None:
        raise ValueError(
            f"{key}.of: expected a network with channels, found {params.of!r}; "
            "train it with `head: {multichannel: {}}`"
        )
    update: dict[str, Any] = {
        "dataset": _dataset(study, key, params.dataset or source.dataset),
        "format": params.format or study.cache.format,
    }
    for option in ("dtype", "codec"):
        chosen = getattr(study.cache, option)
        if chosen is not None and option in params.options and option not in params.model_fields_set:
            update[option] = chosen
    update |= _codec(key, params, update)
    _refuse_format(key, params, update)
    if isinstance(source, TeacherParams) and source.external is not None and study.views.policy != "none":
        raise ValueError(f"{key}.of: expected a teacher that is run here to answer for views, found an external one")
    if params.samples == "all" and study.views.policy != "none":
        raise ValueError(f"{key}.samples: expected train, since only training images have views, found all")
    if params.samples == "all" and plan_of(params.field, params.options):
        raise ValueError(f"{key}.samples: expected train, since only training batches are planned, found all")
    return params.model_copy(update=update)


def _codec(key: str, params: DumpParams, update: dict[str, Any]) -> dict[str, Any]:
    """The codec where the field's own default is one that the store does not have: that which compresses there."""
    codec, store = update.get("codec", params.options.get("codec")), cast("Format", update["format"])
    if codec is None or codec in CODECS[store]:
        return {}
    if "codec" in update or "codec" in params.model_fields_set:
        raise ValueError(f"{key}.codec: expected one of {', '.join(CODECS[store])} for {store}, found {codec!r}")
    return {"codec": "gzip"}


def _refuse_format(key: str, params: DumpParams, update: dict[str, Any]) -> None:
    """Raise ValueError where `cache.dtype`, meant for every dump, is none that this field has."""
    if "dtype" in update:
        try:
            type(params).model_validate({**params.model_dump(), **update})
        except ValidationError as error:
            (option, *_), text = next(iter(flatten(error)))
            raise ValueError(f"{key}.{option}: {text} (from cache.{option}); give this dump its own") from None


def _student(study: Study, name: str) -> StudentParams:
    """The student with every phase complete."""
    params, key = study.students[name], f"students.{name}"
    phases = []
    for number, phase in enumerate(params.pretrain):
        whole = phase.as_in(params)
        place = f"{key}.pretrain.{number}"
        phases.append(whole.model_copy(update={"losses": _losses(study, name, place, whole)}))
    return params.model_copy(update={"pretrain": tuple(phases), "losses": _losses(study, name, key, params)})


def _losses(study: Study, student: str, key: str, phase: PhaseParams) -> dict[str, TermParams]:
    _refuse_headless(study.students[student], key, phase)
    terms = {
        name: term.model_copy(update={"reads": _reads(study, student, f"{key}.losses.{name}", name, term)})
        for name, term in phase.losses.items()
    }
    _refuse_other_plan(study, key, phase, [term.reads for term in terms.values() if term.reads])
    return terms


def _refuse_headless(student: StudentParams, key: str, phase: PhaseParams) -> None:
    """Labels of channels are for students that have such."""
    fields = {loss: field_of(loss) for loss in phase.losses}
    needing = [loss for loss, field in fields.items() if field is not None and needs_head(field)]
    if needing and student.head is None:
        raise ValueError(
            f"{key}.losses.{needing[0]}: expected a student with channels; "
            "give it `head: {channel_outputs: {channels: K}}`, with K as many as its teacher has"
        )


def _refuse_other_plan(study: Study, key: str, phase: PhaseParams, dumps: list[str]) -> None:
    """What was computed for the batches of a plan serves just these batches."""
    plans = {dump: plan for dump in dumps if (plan := plan_of(study.dumps[dump].field, study.dumps[dump].options))}
    for dump, plan in plans.items():
        first = next(iter(plans))
        differing = [option for option in plan if plan[option] != plans[first][option]]
        if differing:
            raise ValueError(
                f"{key}.losses: expected fields of one batch plan, found dumps {first!r} and {dump!r} "
                f"that differ in {', '.join(differing)}"
            )
        if phase.batch_size != plan["batch_size"]:
            raise ValueError(
                f"{key}.batch_size: expected {plan['batch_size']}, that of the batch plan of dump {dump!r}, "
                f"found {phase.batch_size}"
            )
        if phase.drop_last:
            raise ValueError(f"{key}.drop_last: the batch plan of dump {dump!r} decides that; remove the key")


def _reads(study: Study, student: str, key: str, loss: str, term: TermParams) -> str | None:
    """The dump that a term reads: the one it names, or the only one that fits."""
    field, dataset = field_of(loss), study.students[student].dataset
    if field is None:
        if term.reads is not None:
            raise ValueError(f"{key}.reads: this loss reads no dump; remove the key")
        return None
    if term.reads is None:
        fitting = [name for name, dump in study.dumps.items() if (dump.field, dump.dataset) == (field, dataset)]
        if not fitting:
            raise ValueError(
                f"{key}: needs a dump of field {field!r} on data set {dataset!r}, found none; add one under dumps:"
            )
        if len(fitting) > 1:
            raise ValueError(f"{key}.reads: missing; expected one of {', '.join(sorted(fitting))}")
        _refuse_misfit(key, loss, term, study.dumps[fitting[0]], fitting[0])
        return fitting[0]
    if term.reads in study.teachers:
        raise ValueError(f"{key}.reads: {term.reads!r} is a teacher; expected one of its dumps")
    if term.reads not in study.dumps:
        raise ValueError(f"{key}.reads: " + unknown("dump", term.reads, study.dumps))
    dump = study.dumps[term.reads]
    if dump.field != field:
        raise ValueError(
            f"{key}.reads: expected a dump of field {field!r}, found {term.reads!r} of field {dump.field!r}"
        )
    if dump.dataset != dataset:
        raise ValueError(
            f"{key}.reads: expected a dump on data set {dataset!r}, found {term.reads!r} on {dump.dataset!r}"
        )
    _refuse_misfit(key, loss, term, dump, term.reads)
    return term.reads


def _refuse_misfit(key: str, loss: str, term: TermParams, dump: DumpParams, name: str) -> None:
    reason = misfit_of(loss, term.options, dump.options)
    if reason:
        raise ValueError(f"{key}: cannot read dump {name!r}: {reason}")


def taught_in_order(study: Study) -> list[str]:
    """The students, each after those whose dumps it reads.

    Raises:
        ValueError: a student is taught by itself, directly or through others.
    """
    order: list[str] = []

    def visit(name: str, pupils: tuple[str, ...]) -> None:
        if name in pupils:
            circle = " <- ".join((*pupils[pupils.index(name) :], name))
            raise ValueError(f"students.{name}.losses: expected other teachers than itself, found {circle}")
        if name not in order:
            for dump in study.students[name].all_reads():
                if study.dumps[dump].of in study.students:
                    visit(study.dumps[dump].of, (*pupils, name))
            order.append(name)

    for name in study.students:
        visit(name, ())
    return order
