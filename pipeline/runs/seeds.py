"""The seeds of a student, with its peers: trained, watched, written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.base.ranks import ALONE, Ranks
from pipeline.base.seeds import derive_seed
from pipeline.models.network_files import save_network
from pipeline.runs.recipes import build_recipe
from pipeline.runs.stage_work import StageWork
from pipeline.runs.training import Watch, ignore_history, show_epochs, trainable_part, training_options
from pipeline.student import Checkpoints, train_cohort
from pipeline.student_phase import CachedField, Phase, StudentRun, samples_per_epoch
from pipeline.study.layout import network_folder
from pipeline.study.sections import PhaseParams, StudentParams, Study, describe_model
from pipeline.training.curves import Curves
from pipeline.training.result import Select, TrainedStudent
from pipeline.training.rows import Rows, Splits


def train_seeds(
    study: Study,
    names: Sequence[str],
    *,
    splits: Splits,
    targets: Mapping[str, CachedField],
    initial: Mapping[str, Tensor] | None,
    works: Sequence[StageWork],
    ranks: Ranks = ALONE,
) -> list[list[list[TrainedStudent]]]:
    """Train each seed of students, and its peers, and write their curves.

    Args:
        study: with the students.
        names: theirs: a student's, or those of a grid's members.
        splits, targets, initial: see `student.train_cohort`.
        works: of each student, where its curves go; unfinished training goes to the first's.
        ranks: the processes that the runs are spread over.

    Returns:
        By student and seed, the student and its peers; for the first process alone.
    """
    every = [
        (name, work, seed)
        for name, work in zip(names, works, strict=True)
        for seed in range(study.students[name].seeds)
    ]
    spread = ranks if len(every) > 1 else ALONE  # a lone run is trained by all of them
    runs = spread.take_share(every)
    lengths = [phase_epochs(study.students[name], splits, targets) for name, *_ in runs]
    curves = [
        _open_curves(study.students[name], work, seed, len(phases), write=spread.are_several or ranks.is_first)
        for (name, work, seed), phases in zip(runs, lengths, strict=True)
    ]
    with show_epochs(_write_title(study, names, len(runs)), lengths, curves) as watch:
        trained = train_cohort(
            splits,
            targets,
            [
                _describe_run(study, name, seed, phases, watching)
                for (name, _, seed), phases, watching in zip(runs, lengths, watch, strict=True)
            ],
            peers=study.students[names[0]].peers,
            initial=initial,
            views=study.views.views(),
            checkpoints=Checkpoints(works[0].checkpoint(ranks=spread)),
            ranks=ALONE if spread.are_several else ranks,
        )
    if not ranks.is_first:
        spread.collect(trained)
        return []
    shares = spread.collect(trained)
    # The runs were dealt out in turn.
    dealt = [shares[number % spread.count][number // spread.count] for number in range(len(every))]
    return [[made for (of, *_), made in zip(every, dealt, strict=True) if of == name] for name in names]


def _write_title(study: Study, names: Sequence[str], runs: int) -> str:
    of = f"student {names[0]}" if len(names) == 1 else f"grid {study.find_stage_name(names[0])}"
    return of if runs == 1 else f"{of}, {runs} runs"


def _open_curves(spec: StudentParams, work: StageWork, seed: int, phases: int, *, write: bool) -> list[list[Watch]]:
    """By phase and peer, what takes the curves of a seed; nowhere where another process writes them."""
    if not write:
        return [[ignore_history] * spec.peers] * phases
    names = [*(f"pretrain-{place}/curves" for place in range(1, phases)), "curves"]
    return [[Curves(network_folder(work.out, seed, peer) / name) for peer in range(spec.peers)] for name in names]


def _describe_run(
    study: Study, student: str, seed: int, lengths: Sequence[int], watch: Sequence[Sequence[Watch]]
) -> StudentRun:
    """One seed of a student, as it is trained."""
    spec, what = study.students[student], f"student {student!r}, seed {seed}"
    phases = [build_phase(*each, what=what) for each in zip(spec.phases, lengths, watch, strict=True)]
    return StudentRun(describe_model(spec), phases, derive_seed(study.seed, "student", seed), what)


def save_seed(
    cohort: Sequence[TrainedStudent], about: Mapping[str, Any], select: Select, test: Rows, out: Path
) -> list[str]:
    """Write the networks of one seed; the SHA-256 of the weights of each, the student's own first.

    Args:
        cohort: the student and its peers.
        about: what all their cards say, `seed_number` and `classes` among it.
        select: which epoch's weights.
        test: that they were measured on.
        out: the student's folder.
    """
    seed = about["seed_number"]
    several = len(cohort) > 1
    peers: list[str] = []
    for peer, run in [*enumerate(cohort)][::-1]:  # the student's own last: its card names its peers, who taught it
        extra: dict[str, Any] = {"peer": peer} if several else {}
        extra |= {"peers_sha256": peers} if several and not peer else {}
        extra |= {"prepared": run.prepared} if run.prepared else {}
        card = {**about, **extra, **run.scores(select, test, about["classes"])}
        peers = [save_network(network_folder(out, seed, peer), run.state(select), card), *peers]
    return peers


def doubtful_networks(
    cohort: Sequence[TrainedStudent], seed: int, spec: StudentParams, test: Rows, classes: Sequence[str]
) -> dict[str, str]:
    """Those networks of one seed that seem to have learnt nothing, by seed and peer, each with the reason."""
    found = {
        f"seed {seed}, peer {peer}" if peer else f"seed {seed}": run.find_doubt(spec.select, test, classes)
        for peer, run in enumerate(cohort)
    }
    return {which: reason for which, reason in found.items() if reason}


def phase_epochs(spec: StudentParams, splits: Splits, targets: Mapping[str, CachedField]) -> list[int]:
    """The length of each phase."""
    return [
        training_options(each).count_epochs(samples_per_epoch(splits, targets, each.list_dumps()))
        for each in spec.phases
    ]


def build_phase(params: PhaseParams, epochs: int, watch: Sequence[Watch], *, what: str) -> Phase:
    """A phase as it is trained; `watch` by peer, `what` names it in messages."""
    trainable = None if params.trainable is None else trainable_part(params.trainable)
    recipe = build_recipe(params, epochs)
    recipe.refuse_weightless(epochs, what)
    return Phase(recipe, training_options(params), watch, trainable)
