"""Every loss with every value of every option: the table that the tests of losses walk over.

A new loss is a line in `FORMULAS` (its two references), its rows in `CASES`, and what they are shown (a `Scene`).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.losses import TERMS
from pipeline.losses.discriminator import Discriminator
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.outputs import Outputs
from pipeline.models.heads import CHANNELS
from tests import reference

Options = Mapping[str, Any]
CLASSES = 5


@dataclass(frozen=True)
class Scene:
    """What a loss is shown, in float64.

    Attributes:
        student: what the loss reads of it: logits (B, C), features (B, ...) or channel scores (B, C, K).
        tap: where that is; None: the logits.
        labels: (B,).
        target: what the loss takes as such.
        teacher: what the references take instead.
        beside, peers: `module` and `peers` of `Outputs`.
        k: of top-k logits.
        alike: a student that is as its teacher is, where that can be.
    """

    student: Tensor
    tap: str | None
    labels: Tensor
    target: Any = None
    teacher: Any = None
    beside: nn.Module | None = None
    peers: Tensor | None = None
    k: int | None = None
    alike: Tensor | None = None

    def outputs(self, student: Tensor) -> Outputs:
        """A student's outputs that say this; what the loss must not read says something else."""
        other = normal(len(student), 3, seed=99).to(student.dtype)
        taps = {"other": other, **({} if self.tap is None else {self.tap: student})}
        return Outputs(student if self.tap is None else other, self.labels, taps, self.beside, self.peers)

    def single(self) -> Scene:
        """The same in float32, as a training is."""
        beside = copy.deepcopy(self.beside)
        return replace(
            self,
            student=self.student.float(),
            target=_single(self.target),
            beside=None if beside is None else beside.float(),
            peers=_single(self.peers),
            alike=_single(self.alike),
        )


def _single(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _single(item) for key, item in value.items()}
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


# From rows, a seed, a factor on all numbers and the loss's options to what it is shown.
Maker = Callable[[int, int, float, Any], Scene]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(rows: int, seed: int) -> Tensor:
    return torch.randint(CLASSES, (rows,), generator=torch.Generator().manual_seed(seed))


def logits(rows: int, seed: int, scale: float, options: Any) -> Scene:
    student, teacher = (scale * 3 * normal(rows, CLASSES, seed=seed + each) for each in range(2))
    return Scene(student, None, labels_of(rows, seed), teacher, teacher, alike=teacher)


def untaught(rows: int, seed: int, scale: float, options: Any) -> Scene:
    """Logits and labels alone."""
    return replace(logits(rows, seed, scale, options), target=None)


def top(k: int) -> Maker:
    """The teacher's k largest logits, in float64, without the dump's rounding."""

    def made(rows: int, seed: int, scale: float, options: Any) -> Scene:
        scene = logits(rows, seed, scale, options)
        values, indices = scene.teacher.topk(k, dim=1)
        others = torch.scatter(scene.teacher / options.temperature, 1, indices, -math.inf)
        target = {"values": values, "indices": indices.to(torch.int16), "tail": others.logsumexp(1, keepdim=True)}
        return replace(scene, target=target, k=k)

    return made


def cohort(peers: int, twins: bool = False) -> Maker:
    """Other students' logits; twins all say the same."""

    def made(rows: int, seed: int, scale: float, options: Any) -> Scene:
        scene = untaught(rows, seed, scale, options)
        said = torch.stack([scale * 3 * normal(rows, CLASSES, seed=seed + 1 + each) for each in range(peers)])
        said = said[:1].expand(said.shape) if twins else said
        return replace(scene, teacher=said, peers=said, alike=said[0] if twins or peers == 1 else None)

    return made


def hints(ours: Sequence[int], theirs: Sequence[int]) -> Maker:
    """Activations of these shapes at the tap that the options name; the dump has several if they name its tap too."""

    def made(rows: int, seed: int, scale: float, options: Any) -> Scene:
        student, teacher = scale * normal(rows, *ours, seed=seed), scale * normal(rows, *theirs, seed=seed + 1)
        target = {"last": teacher + 1, options.hint: teacher, "first": teacher - 1} if options.hint else teacher
        width = min(ours[0], theirs[0])
        alike = torch.cat([teacher[:, :width], student[:, width:]], dim=1)
        return Scene(student, options.tap, labels_of(rows, seed), target, teacher, alike=alike)

    return made


def regressed(ours: Sequence[int], theirs: Sequence[int]) -> Maker:
    """Activations of different widths, and a regressor between them."""

    def made(rows: int, seed: int, scale: float, options: Any) -> Scene:
        module = nn.Linear(ours[0], theirs[0]) if len(ours) == 1 else nn.Conv2d(ours[0], theirs[0], 1)
        module.double().load_state_dict(
            {name: normal(*its.shape, seed=seed + 2) for name, its in module.state_dict().items()}
        )
        return replace(hints(ours, theirs)(rows, seed, scale, options), beside=module, alike=None)

    return made


def neighbours(rows: int, seed: int, scale: float, options: Any) -> Scene:
    """Features, and a P that is the Q of other features by the loss's own kernel: the loss can reach it."""
    dof = math.inf if options.dof == "infinity" else options.dof
    teacher = normal(rows, 3, seed=seed + 1)
    p = reference.naive_affinities(teacher, dof).nan_to_num()  # a single point has no pairs
    return Scene(scale * normal(rows, 3, seed=seed), options.tap, labels_of(rows, seed), p, p, alike=teacher)


def strangers(rows: int, seed: int, scale: float, options: Any) -> Scene:
    """Features, and a P that is no Q: some pairs are at zero."""
    p = normal(rows, rows, seed=seed + 1).square()
    p[p < 0.05] = 0
    p = (p + p.T).fill_diagonal_(0)
    p = (p / p.sum()).nan_to_num()
    return replace(neighbours(rows, seed, scale, options), target=p, teacher=p, alike=None)


def channels(count: int) -> Maker:
    """Scores of `count` channels for each of 4 classes: 4, 8 or 12 bits, which fill bytes or do not."""

    def made(rows: int, seed: int, scale: float, options: Any) -> Scene:
        scores, theirs = (scale * 3 * normal(rows, 4, count, seed=seed + each) for each in range(2))
        bits = (theirs.flatten(1) > 0).int().tolist()
        target = torch.tensor(reference.packed(bits), dtype=torch.uint8)
        return Scene(scores, CHANNELS, labels_of(rows, seed), target, bits, alike=theirs)

    return made


def judged(rows: int, seed: int, scale: float, options: Any) -> Scene:
    """Logits, and a discriminator of other logits, with weights of no meaning."""
    scene = untaught(rows, seed, scale, options)
    module = Discriminator(3 * normal(20, CLASSES, seed=seed + 3) + 1, options.discriminator.widths).double()
    for number, weights in enumerate(module.parameters()):
        weights.data = normal(*weights.shape, seed=seed + 4 + number)
    linear = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in linear]
    return replace(scene, beside=module.requires_grad_(False), teacher=(module.mean, module.std, layers))


# ------------------------------------------------------------------ references

# By loss: its value for each sample (or for the batch) from a reference, what the student says, the scene, the options.
# The same lines serve the slow form in numpy and the naive one that autograd differentiates.
Formula = Callable[[Any, Any, Scene, Any], Any]

FORMULAS: dict[str, Formula] = {
    "ce": lambda of, s, scene, o: of("ce")(s, scene.labels.tolist()),
    "soft_targets": lambda of, s, scene, o: (
        of("soft_targets")(s, scene.teacher, o.temperature, o.form, scene.k) * (o.temperature**2 if o.scaled else 1)
    ),
    "logits_mse": lambda of, s, scene, o: (
        of("logits_mse")(s, scene.teacher) / (CLASSES if o.over_classes == "mean" else 1)
    ),
    "probe_rmse": lambda of, s, scene, o: of("probe_rmse")(
        *(
            (s, scene.teacher)
            if o.between == "activations"
            else (of("softmax")(each, o.temperature) for each in (s, scene.teacher))
        ),
        o.over_batch,
    ),
    "hint_mse": lambda of, s, scene, o: (
        of("hint_mse")(s if scene.beside is None else of("affine")(s, *scene.beside.parameters()), scene.teacher)
        / (math.prod(scene.teacher.shape[1:]) if o.over_units == "mean" else 1)
    ),
    "tsne": lambda of, s, scene, o: of("tsne")(
        scene.teacher, s, math.inf if o.dof == "infinity" else o.dof, o.floor
    ),
    "multichannel_bce": lambda of, s, scene, o: (
        of("multichannel_bce")(s, scene.teacher) / (math.prod(s.shape[1:]) if o.over_channels == "mean" else 1)
    ),
    "adversarial": lambda of, s, scene, o: of("adversarial")(of("log_odds")(s, *scene.teacher), o.form),
    "mutual_kl": lambda of, s, scene, o: (
        of("mutual_kl")(s, scene.teacher, o.temperature) / (len(scene.teacher) if o.over_peers == "mean" else 1)
    ),
}  # fmt: skip


def slow(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(reference, name)
    return lambda *arguments: function(*(_numpy(argument) for argument in arguments))


def naive(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(reference, f"naive_{name}")
    return function


def _numpy(value: Any) -> Any:
    if isinstance(value, list | tuple) and not isinstance(value, str):
        return type(value)(_numpy(item) for item in value)
    return value.detach().numpy() if isinstance(value, Tensor) else value


# ------------------------------------------------------------------ the table


def signature(loss: str) -> dict[str, Any]:
    """A loss's options with their defaults."""
    parameters = inspect.signature(TERMS.import_function(loss)).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


@dataclass(frozen=True)
class Case:
    """A row: a loss, options that are not its defaults, and what it is shown.

    Attributes:
        zero: whether a student that is as its teacher is has a loss of zero.
    """

    loss: str
    maker: Maker
    options: Options
    zero: bool
    shown: str

    def __str__(self) -> str:
        return "-".join([self.loss, self.shown, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def whole(self) -> Any:
        """All options, by attribute."""
        return SimpleNamespace(**({**signature(self.loss), **self.options}))

    def scene(self, rows: int = 6, seed: int = 1, scale: float = 1.0) -> Scene:
        """What it is shown."""
        return self.maker(rows, seed, scale, self.whole)

    def __call__(self, scene: Scene, student: Tensor | None = None) -> Tensor:
        """The loss, of the scene's student or another one."""
        outputs = scene.outputs(scene.student if student is None else student)
        value: Tensor = TERMS.import_function(self.loss)(outputs, scene.target, **self.options)
        return value

    def slow(self, scene: Scene) -> float:
        """The loss by loops in float64."""
        made = FORMULAS[self.loss](slow, scene.student.detach().numpy(), scene, self.whole)
        return float(np.asarray(made).mean() if getattr(self.whole, "reduction", "mean") == "mean" else made.sum())

    def naive(self, scene: Scene, student: Tensor) -> Tensor:
        """The loss as the equation stands."""
        made: Tensor = FORMULAS[self.loss](naive, student, scene, self.whole)
        return made.mean() if getattr(self.whole, "reduction", "mean") == "mean" else made.sum()


def rows(
    loss: str, shown: Mapping[str, Maker], zero: bool | Callable[[Any], bool] = False, **values: Sequence[Any]
) -> list[Case]:
    """A row for each scene and each choice of values."""
    made = []
    for (name, maker), chosen in product(shown.items(), product(*values.values())):
        case = Case(loss, maker, dict(zip(values, chosen, strict=True)), False, name)
        made.append(replace(case, zero=zero(case.whole) if callable(zero) else zero))
    return made


OVER = ("mean", "sum")
VECTORS, MAPS = {"vectors": hints((6,), (6,))}, {"maps": hints((2, 3, 3), (2, 3, 3))}
SHARED = {
    "wider mentee": hints((6,), (4,)), "wider mentor": hints((3,), (5,)), "maps": hints((3, 2, 2), (2, 2, 2)),
}  # fmt: skip
REGRESSED = {"regressed vectors": regressed((4,), (6,)), "regressed maps": regressed((2, 3, 3), (4, 3, 3))}
DOF: tuple[Any, ...] = (1.0, 3.7, 10.0, "infinity")


def divergence(options: Any) -> bool:
    return bool(options.form == "kl")


CASES: list[Case] = [
    *rows("ce", {"labels": untaught}, reduction=OVER),
    *rows(
        "soft_targets", {"logits": logits}, divergence,
        temperature=(0.7, 1.0, 4.0, 20.0), form=("ce", "kl"), scaled=(True, False),
    ),
    *rows(
        "soft_targets", {f"top {k}": top(k) for k in (1, 2, 4)}, divergence,
        temperature=(0.7, 4.0, 20.0), form=("ce", "kl"),
    ),
    *rows(
        "soft_targets", {"logits": logits, "top 2": top(2)}, divergence,
        form=("ce", "kl"), scaled=(True, False), reduction=("sum",),
    ),
    *rows("logits_mse", {"logits": logits}, True, over_classes=OVER, reduction=OVER),
    *rows("probe_rmse", SHARED, True, over_batch=("mean", "root")),
    *rows("probe_rmse", SHARED, True, tap=("hidden",), hint=("deep",)),
    *rows(
        "probe_rmse", {"logits": logits}, True,
        between=("softmax",), temperature=(0.7, 1.0, 4.0, 20.0), over_batch=("mean", "root"),
    ),
    *rows("hint_mse", VECTORS | MAPS, True, over_units=OVER, reduction=OVER),
    *rows("hint_mse", REGRESSED, over_units=OVER, reduction=OVER),
    *rows("hint_mse", VECTORS | MAPS, True, tap=("hidden",), hint=("deep",)),
    *rows("tsne", {"neighbours": neighbours}, True, dof=DOF, floor=(0.0, 1e-12)),
    *rows("tsne", {"strangers": strangers}, dof=DOF, floor=(0.0, 1e-12, 1e-3)),
    *rows("tsne", {"neighbours": neighbours}, True, tap=("hidden",)),
    *rows(
        "multichannel_bce", {f"{k} channels": channels(k) for k in (1, 2, 3)}, over_channels=OVER, reduction=OVER
    ),
    *rows("adversarial", {"judged": judged}, form=("fool", "maximise"), reduction=OVER),
    *rows("adversarial", {"judged": judged}, form=("fool", "maximise"), discriminator=(
        DiscriminatorOptions(widths=(3,)), DiscriminatorOptions(widths=(4, 3)), DiscriminatorOptions(widths=()),
    )),
    *rows("mutual_kl", {"one peer": cohort(1)}, True, temperature=(0.7, 1.0, 20.0)),
    *rows("mutual_kl", {"twins": cohort(3, twins=True)}, True, temperature=(1.0, 20.0), over_peers=OVER),
    *rows(
        "mutual_kl", {"three peers": cohort(3)}, temperature=(0.7, 1.0, 20.0), over_peers=OVER, reduction=OVER
    ),
]  # fmt: skip

every_case = pytest.mark.parametrize("case", CASES, ids=str)


# ------------------------------------------------------------------ the table is complete


def tried(loss: str, option: str) -> set[Any]:
    return {str(getattr(case.whole, option)) for case in CASES if case.loss == loss}


def stated(annotation: Any) -> set[Any]:
    """The values that an annotation lists."""
    if annotation is bool:
        return {"True", "False"}
    if get_origin(annotation) is Literal:
        return {str(value) for value in get_args(annotation)}
    return {value for part in get_args(annotation) for value in stated(part)}


def test_annotations_are_read_as_they_are_written() -> None:
    assert stated(float | Literal["infinity"]) == {"infinity"}
    assert stated(Literal["a", "b"]) == {"a", "b"}
    assert stated(str | None) == set()


def test_every_loss_is_in_the_table() -> None:
    assert {case.loss for case in CASES} == FORMULAS.keys() == TERMS.entries.keys()


@pytest.mark.parametrize("loss", TERMS.entries)
def test_every_value_of_every_option_is_in_the_table(loss: str) -> None:
    function = TERMS.import_function(loss)
    hints_of = get_type_hints(function)
    for option, default in signature(loss).items():
        found = tried(loss, option)
        assert stated(hints_of[option]) <= found, option
        assert str(default) in found, option
        assert len(found) > 1, option


def test_no_row_stands_twice() -> None:
    assert len({str(case) for case in CASES}) == len(CASES) > 100
