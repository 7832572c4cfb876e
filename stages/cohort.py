"""One seed of a student, with its peers: trained, watched, written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.base.files import read_json
from pipeline.base.seeds import derive_seed
from pipeline.models.saved import load_network, save_network
from pipeline.student import CachedField, Phase, samples_per_epoch, train_cohort
from pipeline.study.layout import Layout, network_folder
from pipeline.study.parts import TermParams
from pipeline.study.sections import PhaseParams, StudentParams, Study, describe_model
from pipeline.training.curves import Curves
from pipeline.training.result import Select, TrainedStudent
from pipeline.training.rows import Rows, Splits
from pipeline.training.trainee import History
from stages.run import Workshop, progress, recipe, trainable_part, training_options


def start_of(params: StudentParams) -> tuple[dict[str, Tensor] | None, dict[str, Any] | None]:
    """The weights that a student starts from, and which they are; None and None where its seed draws them.

    Raises:
        InputError: no such student is trained, or not by the run that its metrics tell of.
    """
    if params.init is None:
        return None, None
    layout, (name, seed) = Layout(Path()), (params.init.student, params.init.seed)
    fix = layout.how_to_make(f"train-student-{name}", f"train-student {name}")
    network, card = load_network(layout.network(name, seed), torch.device("cpu"), fix)
    metrics = layout.metrics("students", name)
    if metrics.exists():
        expected = dict(enumerate(read_json(metrics, fix, keys=("weights_sha256",))["weights_sha256"])).get(seed)
        if expected != card["weights_sha256"]:
            found = f"{card['weights_sha256'][:12]}..."
            raise InputError(f"student {name!r}, seed {seed}", expected=f"weights {expected}", found=found, fix=fix)
    return network.state_dict(), {"student": name, "seed": seed, "weights_sha256": card["weights_sha256"]}


def trained(
    student: str,
    study: Study,
    number: int,
    *,
    splits: Splits,
    targets: Mapping[str, CachedField],
    initial: Mapping[str, Tensor] | None,
    work: Workshop,
) -> list[TrainedStudent]:
    """Train the student of one seed and its peers, and write their curves.

    Args:
        student: its name in the study.
        number: of the seed.
        splits, targets, initial: see `student.train_cohort`.
        work: where curves and unfinished training go.
    """
    spec, lengths = study.students[student], phase_epochs(study.students[student], splits, targets)
    names = [*(f"pretrain-{place}/curves" for place in range(1, len(lengths))), "curves"]
    folders = [network_folder(work.out, number, peer) for peer in range(spec.peers)]
    logs = [
        (epochs, [Curves(folder / name) for folder in folders]) for epochs, name in zip(lengths, names, strict=True)
    ]
    with progress(f"student {student} {number + 1}/{spec.seeds}", *logs) as watch:
        what = f"student {student!r}, seed {number}"
        phases = [_phase(*each, what=what) for each in zip(spec.phases, lengths, watch, strict=True)]
        return train_cohort(
            splits,
            targets,
            phases,
            model=describe_model(spec),
            peers=spec.peers,
            initial=initial,
            seed=derive_seed(study.seed, "student", number),
            views=study.views.views(),
            what=what,
            checkpoint=work.checkpoint(number),
        )


def saved(
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
        beside: dict[str, Any] = {"peer": peer} if several else {}
        beside |= {"peers_sha256": peers} if several and not peer else {}
        beside |= {"prepared": run.prepared} if run.prepared else {}
        whole = {**about, **beside, **run.scores(select, test, about["classes"])}
        peers = [save_network(network_folder(out, seed, peer), run.state(select), whole), *peers]
    return peers


def doubts(
    cohort: Sequence[TrainedStudent], seed: int, spec: StudentParams, test: Rows, classes: Sequence[str]
) -> dict[str, str]:
    """Those networks of one seed that seem to have learnt nothing, by seed and peer, each with the reason."""
    found = {
        f"seed {seed}, peer {peer}" if peer else f"seed {seed}": run.find_doubt(spec.select, test, classes)
        for peer, run in enumerate(cohort)
    }
    return {which: reason for which, reason in found.items() if reason}


def described(spec: StudentParams, epochs: Sequence[int]) -> dict[str, Any]:
    """What a student's metrics say of its recipe: the terms as the user has written them, and each phase's length."""
    return {
        "losses": _written(spec.losses),
        "pretrain": [_written(phase.losses) for phase in spec.pretrain],
        "phase_epochs": list(epochs),
    }


def phase_epochs(spec: StudentParams, splits: Splits, targets: Mapping[str, CachedField]) -> list[int]:
    """The length of each phase."""
    return [training_options(each).epochs_for(samples_per_epoch(splits, targets, each.reads())) for each in spec.phases]


def _phase(params: PhaseParams, epochs: int, watch: Sequence[Callable[[History], None]], *, what: str) -> Phase:
    part = None if params.trains is None else trainable_part(params.trains)
    terms = recipe(params, epochs)
    terms.refuse_weightless(epochs, what)
    return Phase(terms, training_options(params), watch, part)


def _written(losses: Mapping[str, TermParams]) -> dict[str, Any]:
    """The loss terms as the user has written them; a term says its loss where it is not called so."""
    return {
        name: {
            **({"loss": term.loss} if term.loss != name else {}),
            "weight": term.weight,
            "options": term.chosen(),
        }
        for name, term in losses.items()
    }
