"""References between the sections of a study: names that must exist, and defaults that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import ValidationError

from pipeline.base.registry import describe_unknown, flatten_errors
from pipeline.cache.codecs import CODECS, Format
from pipeline.dumps.hooks import needs_head, select_plan_options
from pipeline.losses.hooks import find_mismatch, learns_from_peers, term_fields
from pipeline.study.dump_stages import list_dump_stages
from pipeline.study.part_sections import DumpParams, TermParams
from pipeline.study.report_references import check_report_references as refuse_report
from pipeline.study.sections import PhaseParams, StudentParams, Study, TeacherParams


def complete_study(study: Study) -> Study:
    """Check all references of a study, and return it with every default that depends on another section.

    Raises:
        ValueError: a name that nobody has, or two parts that do not fit; it begins with the key.
    """
    both = sorted(study.teachers.keys() & study.students.keys())
    if both:
        raise ValueError(f"students.{both[0]}: also the name of a teacher; expected a name of its own")
    teachers = {name: _complete_teacher(study, name) for name in study.teachers}
    known = study.model_copy(update={"teachers": teachers})
    students = {
        name: params.model_copy(update={"dataset": _complete_dataset(known, f"students.{name}", params.dataset)})
        for name, params in study.students.items()
    }
    known = known.model_copy(update={"students": students})
    known = known.model_copy(update={"dumps": {name: _complete_dump(known, name) for name in study.dumps}})
    known = known.model_copy(update={"students": {name: _complete_student(known, name) for name in students}})
    order_students(known)
    _refuse_stages(known)
    refuse_report(known.report, known.teachers_run_here, known.students, _find_watched(known))
    return known


def _refuse_stages(study: Study) -> None:
    """Dumps that are apart must exist, and each stage of dumps needs a name of its own."""
    for name in () if isinstance(study.apart, bool) else study.apart:
        if name not in study.dumps:
            raise ValueError("apart: " + describe_unknown("dump", name, study.dumps))
    list_dump_stages(study)


def _find_watched(study: Study) -> set[str]:
    """The networks that are trained here beside a validation part."""
    trained = {name: teacher for name, teacher in study.teachers.items() if teacher.epochs or teacher.steps}
    parts = {name for name, source in study.datasets.items() if source.validation is not None}
    return {name for name, network in {**trained, **study.students}.items() if network.dataset in parts}


def _complete_dataset(study: Study, key: str, name: str | None) -> str:
    if name is None:
        if len(study.datasets) > 1:
            raise ValueError(f"{key}.dataset: missing; expected one of {', '.join(sorted(study.datasets))}")
        return next(iter(study.datasets))
    if name not in study.datasets:
        raise ValueError(f"{key}.dataset: " + describe_unknown("data set", name, study.datasets))
    return name


def _complete_teacher(study: Study, name: str) -> TeacherParams:
    params, key = study.teachers[name], f"teachers.{name}"
    for member in params.members or ():
        trained = [other for other, its in study.teachers.items() if not its.members and not its.external]
        if member not in trained:
            raise ValueError(f"{key}.members: " + describe_unknown("single teacher", member, trained))
    return params.model_copy(update={"dataset": _complete_dataset(study, key, params.dataset)})


def _complete_dump(study: Study, name: str) -> DumpParams:
    params, key = study.dumps[name], f"dumps.{name}"
    source = study.teachers.get(params.of) or study.students.get(params.of)
    if source is None:
        raise ValueError(
            f"{key}.of: " + describe_unknown("teacher or student", params.of, [*study.teachers, *study.students])
        )
    outside = isinstance(source, TeacherParams) and source.external is not None
    if params.at is not None:
        _refuse_beside_url(key, params, outside=outside)
    if isinstance(source, StudentParams) and params.of_seed >= source.seeds:
        raise ValueError(f"{key}.of_seed: expected 0 to {source.seeds - 1}, found {params.of_seed}")
    if params.at is None:
        _refuse_source(study, key, params, source)
    update: dict[str, Any] = {
        "dataset": _complete_dataset(study, key, params.dataset or source.dataset),
        "format": params.format or study.cache.format,
        "chunk_kib": params.chunk_kib or study.cache.chunk_kib,
    }
    for option in ("dtype", "codec"):
        chosen = getattr(study.cache, option)
        if chosen is not None and option in params.options and option not in params.model_fields_set:
            update[option] = chosen
    update |= _choose_codec(key, params, update)
    _refuse_format(key, params, update)
    if params.samples == "all" and study.views.policy != "none":
        raise ValueError(f"{key}.samples: expected train, since only training images have views, found all")
    if params.samples == "all" and select_plan_options(params.field, params.options):
        raise ValueError(f"{key}.samples: expected train, since only training batches are planned, found all")
    return params.model_copy(update=update)


def _refuse_beside_url(key: str, params: DumpParams, *, outside: bool) -> None:
    """A cache at a URL is of a teacher that is not run here, and has decided how it was computed and stored."""
    if not outside:
        raise ValueError(
            f"{key}.at: expected a teacher that is known by its outputs alone (external), found {params.of!r}"
        )
    stated = {"batch", "forward", "format", "chunk_kib", "of_seed"} & params.model_fields_set
    if stated:
        raise ValueError(f"{key}.{min(stated)}: the cache at the URL has its own; remove the key")


def _refuse_source(study: Study, key: str, params: DumpParams, source: TeacherParams | StudentParams) -> None:
    """A network that is asked here can answer for what is asked; a cache at a URL has its answers."""
    if needs_head(params.field) and isinstance(source, TeacherParams) and source.model is None:
        raise ValueError(f"{key}.of: expected a single network that is run here, found {params.of!r}")
    if needs_head(params.field) and source.head is None:
        raise ValueError(
            f"{key}.of: expected a network with channels, found {params.of!r}; "
            "train it with `head: {multichannel: {}}`"
        )
    if isinstance(source, TeacherParams) and source.external is not None and study.views.policy != "none":
        raise ValueError(f"{key}.of: expected a teacher that is run here to answer for views, found an external one")


def _choose_codec(key: str, params: DumpParams, update: dict[str, Any]) -> dict[str, Any]:
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
            (option, *_), text = next(iter(flatten_errors(error)))
            raise ValueError(f"{key}.{option}: {text} (from cache.{option}); give this dump its own") from None


def _complete_student(study: Study, name: str) -> StudentParams:
    """The student with every phase complete."""
    params, key = study.students[name], f"students.{name}"
    _refuse_start(study, key, params)
    phases = []
    for number, phase in enumerate(params.pretrain):
        whole = phase.inherit_from(params)
        place = f"{key}.pretrain.{number}"
        phases.append(whole.model_copy(update={"losses": _complete_losses(study, name, place, whole)}))
    made = params.model_copy(update={"pretrain": tuple(phases), "losses": _complete_losses(study, name, key, params)})
    if params.peers > 1 and not any(learns_from_peers(term.loss) for term in made.terms()):
        raise ValueError(f"{key}.peers: no loss learns from them; add mutual_kl, or train independent students (seeds)")
    return made


def _refuse_start(study: Study, key: str, params: StudentParams) -> None:
    """A student that starts from another's weights needs one whose weights are its own network's."""
    if params.init is None:
        return
    other = params.init.student
    if other not in study.students:
        raise ValueError(f"{key}.init: " + describe_unknown("student", other, study.students))
    source = study.students[other]
    if params.init.seed >= source.seeds:
        raise ValueError(
            f"{key}.init.seed: expected 0 to {source.seeds - 1}, one of student {other!r}, found {params.init.seed}"
        )
    if params.peers > 1:
        raise ValueError(f"{key}.init: expected peers that start from weights of their own; remove init or peers")
    for part in ("name", "mean", "std"):
        its, own = getattr(source.model, part), getattr(params.model, part)
        if its != own:
            raise ValueError(f"{key}.model.{part}: expected {its!r}, as student {other!r} has it, found {own!r}")


def _complete_losses(study: Study, student: str, key: str, phase: PhaseParams) -> dict[str, TermParams]:
    if all(term.weight == 0 for term in phase.losses.values()):
        raise ValueError(f"{key}.losses: expected a weight above 0, found none; nothing would be learned")
    _refuse_headless(study.students[student], key, phase)
    _refuse_peerless(study.students[student], key, phase)
    terms = {
        name: term.model_copy(update={"reads": _complete_reads(study, student, f"{key}.losses.{name}", term)})
        for name, term in phase.losses.items()
    }
    _refuse_other_plan(study, key, phase, [dump for term in terms.values() for dump in term.dumps])
    return terms


def _refuse_headless(student: StudentParams, key: str, phase: PhaseParams) -> None:
    """Labels of channels are for students that have such."""
    for name, term in phase.losses.items():
        if student.head is None and any(map(needs_head, term_fields(term.loss, term.options).values())):
            raise ValueError(
                f"{key}.losses.{name}: expected a student with channels; "
                "give it `head: {channel_outputs: {channels: K}}`, with K as many as its teacher has"
            )


def _refuse_peerless(student: StudentParams, key: str, phase: PhaseParams) -> None:
    """Who learns from peers needs some."""
    for name, term in phase.losses.items():
        if student.peers < 2 and learns_from_peers(term.loss):
            raise ValueError(f"{key}.losses.{name}: expected a student with peers; give it `peers: 2` or more")


def _refuse_other_plan(study: Study, key: str, phase: PhaseParams, dumps: list[str]) -> None:
    """What was computed for the batches of a plan serves just these batches."""
    plans = {
        dump: plan
        for dump in dumps
        if (plan := select_plan_options(study.dumps[dump].field, study.dumps[dump].options))
    }
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
        if phase.has_order:
            raise ValueError(
                f"{key}.order: expected shuffled, since dump {dump!r} brings a batch plan, found {phase.order.name!r}"
            )


def _complete_reads(study: Study, student: str, key: str, term: TermParams) -> dict[str, str]:
    """The dumps that a term reads, by role: those it names, or for each role the only one that fits."""
    fields = term_fields(term.loss, term.options)
    if not fields:
        if term.reads is not None:
            raise ValueError(f"{key}.reads: this loss reads no dump; remove the key")
        return {}
    named = _list_named_dumps(f"{key}.reads", term.reads, fields)
    found = {}
    for role, field in fields.items():
        place = f"{key}.reads.{role}" if len(fields) > 1 else f"{key}.reads"
        dump = named.get(role) or _find_only_dump(study, student, place, role, field)
        _refuse_other_dump(study, study.students[student].dataset, place, dump, field)
        _refuse_other_role(study, student, place, role, dump)
        reason = find_mismatch(term.loss, term.options, study.dumps[dump].options)
        if reason:
            raise ValueError(f"{key}: cannot read dump {dump!r}: {reason}")
        found[role] = dump
    return found


def _list_named_dumps(key: str, reads: str | Mapping[str, str] | None, fields: Mapping[str, str]) -> Mapping[str, str]:
    """The dumps that the user has named, by role."""
    if isinstance(reads, str):
        if len(fields) > 1:
            raise ValueError(f"{key}: expected a dump for each of {', '.join(fields)}, found {reads!r} alone")
        return dict.fromkeys(fields, reads)
    for role in reads or {}:
        if role not in fields:
            raise ValueError(f"{key}: " + describe_unknown("role", role, fields))
    return reads or {}


def _find_only_dump(study: Study, student: str, key: str, role: str, field: str) -> str:
    """The one dump that fits a role that names none."""
    dataset = study.students[student].dataset
    fitting = [
        name
        for name, dump in study.dumps.items()
        if (dump.field, dump.dataset) == (field, dataset) and _plays_role(study, student, role, dump)
    ]
    if not fitting:
        term = key.partition(".reads")[0]
        if role == "initial" and study.students[student].init is None:
            raise ValueError(f"{term}: expected a student that starts from another one; give it `init: STUDENT`")
        raise ValueError(
            f"{term}: needs a dump of field {field!r}{ROLES.get(role, '')} on data set {dataset!r}, "
            "found none; add one under dumps"
        )
    if len(fitting) > 1:
        raise ValueError(f"{key}: missing; expected one of {', '.join(sorted(fitting))}")
    return fitting[0]


ROLES = {"teacher": " of a teacher", "initial": " of the student that this one starts from (init)"}


def _plays_role(study: Study, student: str, role: str, dump: DumpParams) -> bool:
    """Whether a dump is of the network that a role stands for; the roles of most losses stand for any."""
    init = study.students[student].init
    if role == "teacher":
        return dump.of in study.teachers
    return role != "initial" or (init is not None and (dump.of, dump.of_seed) == (init.student, init.seed))


def _refuse_other_role(study: Study, student: str, key: str, role: str, name: str) -> None:
    """The initial student's dump is of no teacher, and of that very student; what teaches is another's."""
    dump, init = study.dumps[name], study.students[student].init
    its_own = dump.of in study.students and (init is None or _plays_role(study, student, role, dump))
    if role == "initial" and not its_own:
        expected = "a student" if init is None else f"student {init.student!r}, seed {init.seed} (init)"
        raise ValueError(f"{key}: expected a dump of {expected}, found {name!r} of {dump.of!r}, seed {dump.of_seed}")
    if role == "teacher" and init is not None and dump.of == init.student:
        raise ValueError(f"{key}: expected another teacher than the student that this one starts from, found {name!r}")


def _refuse_other_dump(study: Study, dataset: str | None, key: str, name: str, field: str) -> None:
    """A name must be that of a dump of this field on this data set."""
    if name in study.teachers:
        raise ValueError(f"{key}: {name!r} is a teacher; expected one of its dumps")
    if name not in study.dumps:
        raise ValueError(f"{key}: " + describe_unknown("dump", name, study.dumps))
    dump = study.dumps[name]
    if dump.field != field:
        raise ValueError(f"{key}: expected a dump of field {field!r}, found {name!r} of field {dump.field!r}")
    if dump.dataset != dataset:
        raise ValueError(f"{key}: expected a dump on data set {dataset!r}, found {name!r} on {dump.dataset!r}")


def order_students(study: Study) -> list[str]:
    """Return the students, each after those whose dumps it reads and the one that it starts from.

    Raises:
        ValueError: a student is taught by itself or starts from itself, directly or through others.
    """
    order: list[str] = []

    def visit(name: str, pupils: tuple[str, ...]) -> None:
        if name in pupils:
            circle = " <- ".join((*pupils[pupils.index(name) :], name))
            raise ValueError(f"students.{name}: expected other teachers (or start) than itself, found {circle}")
        if name not in order:
            for source in _list_sources(study, name):
                visit(source, (*pupils, name))
            order.append(name)

    for name in study.students:
        visit(name, ())
    return order


def _list_sources(study: Study, student: str) -> list[str]:
    """The students that must be trained before another one."""
    params = study.students[student]
    before = [study.dumps[dump].of for dump in params.list_all_dumps()]
    before += [params.init.student] if params.init else []
    return [source for source in before if source in study.students]


def refuse_circles(study: Study) -> None:
    """Raise ValueError where a grid needs one of its own members first: it is trained by one command."""
    needed = {name: _list_sources(study, name) for name in study.students}

    def visit(name: str, grid: str, seen: set[str]) -> None:
        for each in study.list_trained_with(name):
            for source in needed[each]:
                stage = study.find_stage_name(source)
                if stage == grid:
                    raise ValueError(
                        f"students.{grid}: expected members that are trained together, found {each!r}, "
                        f"which needs {source!r} before; write that one out as a student of its own"
                    )
                if stage not in seen:
                    seen.add(stage)
                    visit(stage, grid, seen)

    for grid in study.grids:
        visit(grid, grid, set())
