"""One seed of a student, with its peers: trained, watched, written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.curves import Curves
from pipeline.models.saved import save_network
from pipeline.parts import TermParams
from pipeline.rows import Rows, Splits
from pipeline.sections import PhaseParams, StudentParams, Study, model_of
from pipeline.seeds import derive
from pipeline.student import Field, Phase, Trains, samples_of, train_cohort
from pipeline.trained import Select, Trained
from pipeline.trainee import History
from stages.run import Workshop, progress, recipe, regime


def trained(
    student: str,
    study: Study,
    number: int,
    *,
    splits: Splits,
    targets: Mapping[str, Field],
    initial: Mapping[str, Tensor] | None,
    work: Workshop,
) -> list[Trained]:
    """Train the student of one seed and its peers, and write their curves.

    Args:
        student: its name in the study.
        number: of the seed.
        splits, targets, initial: see `student.train_cohort`.
        work: where curves and unfinished training go.
    """
    spec, lengths = study.students[student], phase_epochs(study.students[student], splits, targets)
    names = [*(f"pretrain-{place}/curves" for place in range(1, len(lengths))), "curves"]
    folders = [peer_folder(work.out, number, peer) for peer in range(spec.peers)]
    logs = [
        (epochs, [Curves(folder / name) for folder in folders]) for epochs, name in zip(lengths, names, strict=True)
    ]
    with progress(f"student {student} {number + 1}/{spec.seeds}", *logs) as watch:
        phases = [_phase(*each) for each in zip(spec.phases, lengths, watch, strict=True)]
        return train_cohort(
            splits,
            targets,
            phases,
            model=model_of(spec),
            peers=spec.peers,
            initial=initial,
            seed=derive(study.seed, "student", number),
            views=study.views.views(),
            what=f"student {student!r}, seed {number}",
            checkpoint=work.checkpoint(number),
        )


def saved(cohort: Sequence[Trained], about: Mapping[str, Any], select: Select, test: Rows, out: Path) -> list[str]:
    """Write the networks of one seed; the SHA-256 of the weights of each, the student's own first.

    Args:
        cohort: the student and its peers.
        about: what all their cards say, `seed_number` among it.
        select: which epoch's weights.
        test: that they were measured on.
        out: the student's folder.
    """
    digests = []
    for peer, run in enumerate(cohort):
        beside: dict[str, Any] = {"peer": peer} if len(cohort) > 1 else {}
        beside |= {"prepared": run.prepared} if run.prepared else {}
        folder = peer_folder(out, about["seed_number"], peer)
        digests.append(save_network(folder, run.state(select), {**about, **beside, **run.scores(select, test)}))
    return digests


def described(spec: StudentParams, epochs: Sequence[int]) -> dict[str, Any]:
    """What a student's metrics say of its recipe: the terms as the user has written them, and each phase's length."""
    return {
        "losses": _written(spec.losses),
        "pretrain": [_written(phase.losses) for phase in spec.pretrain],
        "phase_epochs": list(epochs),
    }


def phase_epochs(spec: StudentParams, splits: Splits, targets: Mapping[str, Field]) -> list[int]:
    """The length of each phase."""
    return [regime(each).epochs_for(samples_of(splits, targets, each.reads())) for each in spec.phases]


def peer_folder(out: Path, number: int, peer: int) -> Path:
    """Where the network of a seed lies; those of its peers lie inside."""
    folder = out / f"seed-{number}"
    return folder / f"peer-{peer}" if peer else folder


def _phase(params: PhaseParams, epochs: int, watch: Sequence[Callable[[History], None]]) -> Phase:
    trains = None if params.trains is None else Trains(params.trains.up_to, params.trains.only)
    return Phase(recipe(params, epochs), regime(params), watch, trains)


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
