"""The teacher: fitted once, then run over fixed batches. The only room that runs one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.base.errors import InputError
from pipeline.base.files import hash_json, read_json
from pipeline.base.ranks import ALONE, Ranks
from pipeline.base.seeds import derive_seed
from pipeline.datasets.dataset import Dataset, Images
from pipeline.models.build import build_network, draw_network
from pipeline.models.foreign_weights import load_foreign_weights
from pipeline.models.network import Network
from pipeline.models.network_files import load_network
from pipeline.training.batches import Batch
from pipeline.training.consecutive_images import show_images
from pipeline.training.fit import fit
from pipeline.training.network_trainer import FitResult, History
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Splits
from pipeline.views.view import PLAIN, Views

Average = Literal["logits", "probabilities"]


class Ensemble(nn.Module):
    """Several networks that answer as one; a single teacher is an ensemble of one.

    Args:
        members: networks of the same classes.
        average: of their logits, or of their probabilities (then log of the mean, so that its
            softmax is that mean).
    """

    def __init__(self, members: list[Network], average: Average = "logits") -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.average = average

    def compute_in(self, precision: str, layout: str | None) -> None:
        """How the networks are computed from now on; see `Network.compute_in`."""
        for member in self.members:
            member.compute_in(precision, layout)  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of uint8 images (B, C, H, W)."""
        answers = [member(images) for member in self.members]
        if len(answers) == 1:
            return answers[0]  # type: ignore[no-any-return]
        if self.average == "logits":
            return torch.stack(answers).mean(0)
        stacked = torch.stack([functional.log_softmax(answer, dim=1) for answer in answers])
        return stacked.logsumexp(0) - float(np.log(len(answers)))

    def forward_with_taps(self, images: Tensor, names: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and activations of a single network; see `Network.forward_with_taps`.

        Raises:
            InputError: there are several, or it has no such tap.
        """
        if len(self.members) > 1:
            raise InputError(
                f"tap {next(iter(names))!r}",
                expected="one network",
                found=f"an ensemble of {len(self.members)}",
                fix="name one of its members",
            )
        only: Network = self.members[0]  # type: ignore[assignment]
        return only.forward_with_taps(images, names)


@dataclass(frozen=True)
class Samples:
    """The samples that a teacher answers for, and the fixed batches that it sees them in.

    Attributes:
        images: (rows or more, C, H, W) uint8, in memory or in a file; row i is sample id i.
        rows: the first so many.
        batch: rows a forward pass.
        views: the augmentation that they are shown in.
    """

    images: Images
    rows: int
    batch: int
    views: Views = PLAIN

    def batches(
        self, view: int, start: int, stop: int, device: torch.device
    ) -> Generator[tuple[Tensor, int], None, None]:
        """Batches of exactly `batch` rows, the last padded with zeros, each with its number of real rows."""
        ids = range(start, stop, self.batch)
        with closing(show_images(self.images, self.views, view=view, ids=ids, device=device)) as shown:
            for rows in shown:
                padding = rows.new_zeros((self.batch - len(rows), *rows.shape[1:]))
                yield torch.cat([rows, padding]) if len(padding) else rows, len(rows)


@dataclass(frozen=True)
class TeacherOutputs:
    """A network's outputs for consecutive samples in one view.

    Attributes:
        view: which augmentation of them.
        start, stop: their ids, [start, stop).
        values: by what was asked for, (stop - start, ...) on the device.
    """

    view: int
    start: int
    stop: int
    values: Mapping[str, Tensor]

    def numpy(self, read: str) -> NDArray[np.float32]:
        """The values of one read (n, ...), as float32 in memory."""
        values: NDArray[np.float32] = self.values[read].to(torch.float32).cpu().numpy()
        return values

    def split(self, size: int) -> Iterator[TeacherOutputs]:
        """The same in parts of so many samples, the last with what is left."""
        for first in range(0, self.stop - self.start, size):
            values = {read: rows[first : first + size] for read, rows in self.values.items()}
            start = self.start + first
            yield TeacherOutputs(self.view, start, min(start + size, self.stop), values)


class TeacherLike(Protocol):
    """What a dump needs of a teacher: its card, and its outputs for rows of samples."""

    @property
    def card(self) -> Mapping[str, Any]: ...

    @property
    def device(self) -> torch.device: ...

    def shapes(self, reads: Iterable[str]) -> dict[str, tuple[int, ...]]: ...

    def compute_outputs(
        self, samples: Samples, reads: Iterable[str], view: int, start: int, stop: int
    ) -> Iterator[TeacherOutputs]: ...


@dataclass(frozen=True)
class Teacher:
    """A trained teacher and its card."""

    network: Ensemble
    card: Mapping[str, Any]
    device: torch.device

    @torch.no_grad()
    def shapes(self, reads: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The shape of one sample's values of each read.

        Raises:
            InputError: the network has no such tap.
        """
        probe = torch.zeros((2, *self.card["shape"]), dtype=torch.uint8, device=self.device)
        return {read: tuple(values.shape[1:]) for read, values in self._values(probe, tuple(reads)).items()}

    @torch.no_grad()
    def compute_outputs(
        self, samples: Samples, reads: Iterable[str], view: int, start: int, stop: int
    ) -> Generator[TeacherOutputs, None, None]:
        """The network's outputs for rows [start, stop) in one view, a batch of the fixed partition at a time.

        The network only ever sees batches of exactly `samples.batch` rows that begin at a multiple
        of it, the last one padded: smaller batches differ in their last bits. So every run,
        resumed or not, in one process or many, gives the same bytes.

        Args:
            samples: what the dump is of.
            reads: "logits", "pixels" (as shown to the network), or taps.
            view: which augmentation of them.
            start, stop: multiples of the batch, except for `stop` at the end of the rows.
        """
        wanted = tuple(reads)
        with closing(samples.batches(view, start, stop, self.device)) as batches:
            for rows, real in batches:
                values = {read: answer[:real] for read, answer in self._values(rows, wanted).items()}
                yield TeacherOutputs(view, start, start + real, values)
                start += real

    def _values(self, images: Tensor, reads: tuple[str, ...]) -> dict[str, Tensor]:
        self.network.eval()
        values = {"pixels": images} if "pixels" in reads else {}
        if asked := [read for read in reads if read != "pixels"]:
            taps = [read for read in asked if read != "logits"]
            logits, activations = self.network.forward_with_taps(images, taps) if taps else (self.network(images), {})
            values |= {"logits": logits, **activations}
        return {read: values[read] for read in reads}


def train_teacher(
    splits: Splits,
    *,
    model: Mapping[str, Any],
    options: TrainingOptions,
    seed: int,
    what: str,
    views: Views = PLAIN,
    checkpoint: Path | None = None,
    checkpoint_seconds: float | None = None,
    on_epoch: Callable[[History], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> tuple[Network, FitResult]:
    """Fit a teacher on the true labels; the network returned is that of the best validation accuracy.

    The loss is the mean cross-entropy H(y, P_T); L1 and L2 penalties are in `options`.
    Arguments as for `training.fit`.
    """
    device = splits.train.labels.device
    network = draw_network(model, splits.shape, splits.classes, seed=derive_seed(seed, "init"), device=device)

    fitted = fit(
        network,
        splits.train,
        splits.validation,
        CrossEntropy(),
        options=options,
        seed=seed,
        what=what,
        views=views,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        on_epoch=on_epoch,
        ranks=ranks,
    )
    network.load_state_dict(fitted.best)
    return network, fitted


class CrossEntropy:
    """The mean cross-entropy of the true labels, as a `training.stack.Stackable`."""

    def __call__(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        return self.values(network, batch.images, batch.labels, {}, ["ce"])

    def read_targets(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002 - the labels are all that there is
        return {}

    def weights(self, epoch: int) -> dict[str, float]:  # noqa: ARG002 - always the same
        return {"ce": 1.0}

    def values(
        self, network: Network, images: Tensor, labels: Tensor, targets: Mapping[str, Any], names: Collection[str]
    ) -> dict[str, Tensor]:
        """The only term, where it is asked for; there are no targets but the labels."""
        del targets
        return {"ce": functional.cross_entropy(network(images), labels)} if names else {}


def load_foreign_teacher(path: Path, *, model: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Network:
    """A ready teacher: the architecture with the weights of a file as `load_foreign_weights` reads it.

    Raises:
        InputError: the file is missing, damaged, holds NaN, or is of another architecture.
    """
    network = build_network(model, shape, classes, files=False)
    # Another file than this tool's names the tensors of the body; the whole network's begin with `body.`.
    load_foreign_weights([network.body, network], path)
    return network


def join_teachers(
    folders: Mapping[str, Path], average: Average, device: torch.device, dataset: Dataset | None = None
) -> tuple[Ensemble, dict[str, Any]]:
    """An ensemble of trained teachers, and its card's entries.

    Args:
        folders: by member name.
        average: see `Ensemble`.
        device: where it will run.
        dataset: that it will be measured on.

    Raises:
        InputError: a member is missing or damaged, or was trained on other images or classes.
    """
    networks, digests, doubts, first = [], {}, [], None
    for name, folder in folders.items():
        network, card = load_network(folder, device, f"run `teachercache train-teacher {name}`")
        first = first or card
        for key in ("shape", "classes"):
            if card[key] != first[key]:
                raise InputError(
                    f"member {name!r}: {key}",
                    expected=str(first[key]),
                    found=str(card[key]),
                    fix="join teachers of the same data",
                )
        if dataset is not None:
            refuse_other_images(card, dataset, f"member {name!r}")
        networks.append(network)
        digests[name] = card["weights_sha256"]
        doubts += [f"averages {name!r}, which {card['doubt']}"] if "doubt" in card else []
    ensemble = Ensemble(networks, average)
    entries = {"members": digests, "average": average, "weights_sha256": hash_json([digests, average])}
    return ensemble, {**entries, **({"doubt": "; ".join(doubts)} if doubts else {})}


def load_teacher(folder: Path, device: torch.device, fix: str) -> Teacher:
    """The teacher in a folder: one network, or the members beside it that its card names.

    Raises:
        InputError: missing or damaged files, or members that have changed since.
    """
    card = read_json(folder / "card.json", fix)
    if "members" not in card:
        network, card = load_network(folder, device, fix)
        return Teacher(Ensemble([network]), card, device)
    ensemble, now = join_teachers({name: folder.parent / name for name in card["members"]}, card["average"], device)
    if now["members"] != card["members"]:
        raise InputError(f"ensemble {folder}", expected="the members that it was joined from", found="others", fix=fix)
    return Teacher(ensemble, card, device)


def refuse_other_images(card: Mapping[str, Any], dataset: Dataset, what: str) -> None:
    """Raise InputError where a network's card does not suit a data set's images or classes."""
    if tuple(card["shape"]) != dataset.shape:
        raise InputError(
            what,
            expected=f"images of {tuple(card['shape'])}, as it was trained on",
            found=f"data set {dataset.name!r} with {dataset.shape}",
            fix="give the data set the same size and grey",
        )
    if tuple(card["classes"]) != dataset.classes:
        raise InputError(
            what,
            expected=f"its {len(card['classes'])} classes ({', '.join(card['classes'][:3])}, ...)",
            found=f"data set {dataset.name!r} with {len(dataset.classes)} ({', '.join(dataset.classes[:3])}, ...)",
            fix="use a data set of the same classes",
        )
