"""Optimisers and learning-rate schedules: PyTorch's own, under short names.

Beside one there may be a `check_NAME(**options)`, which raises ValueError for options that contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, ReduceLROnPlateau, StepLR

from pipeline.training.eager_optimizers import SGD, Adam, AdamW

Momentum = Annotated[float, Field(ge=0, lt=1)]
Betas = tuple[Momentum, Momentum]


def check_sgd(*, nesterov: bool, momentum: float, **_: Any) -> None:
    """Nesterov's is a form of momentum."""
    if nesterov and not momentum:
        raise ValueError("Nesterov momentum: expected a momentum above 0, found none")


def sgd(
    parameters: Iterable[Tensor],
    *,
    lr: PositiveFloat = 0.01,
    momentum: Momentum = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Stochastic gradient descent."""
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True)


def adam(
    parameters: Iterable[Tensor],
    *,
    lr: PositiveFloat = 0.001,
    betas: Betas = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adam; `weight_decay` is the L2 penalty inside the gradient."""
    return Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Iterable[Tensor],
    *,
    lr: PositiveFloat = 0.001,
    betas: Betas = (0.9, 0.999),
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay."""
    return AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


def constant(optimizer: Optimizer, epochs: int) -> LRScheduler:
    """The same learning rate throughout."""
    return StepLR(optimizer, step_size=epochs + 1)


def check_step(*, every: int | None, milestones: tuple[int, ...], **_: Any) -> None:
    """Either regular steps, or listed ones."""
    if (every is None) == (not milestones):
        raise ValueError("step: expected exactly one of every and milestones")


def step(
    optimizer: Optimizer,
    epochs: int,
    *,
    every: PositiveInt | None = None,
    milestones: tuple[PositiveInt, ...] = (),
    factor: PositiveFloat = 0.1,
) -> LRScheduler:
    """Multiply by `factor` after each of the epochs in `milestones`, or every `every` epochs."""
    check_step(every=every, milestones=milestones)
    if every is not None:
        return StepLR(optimizer, step_size=every, gamma=factor)
    return MultiStepLR(optimizer, milestones=list(milestones), gamma=factor)


def cosine(optimizer: Optimizer, epochs: int, *, final: NonNegativeFloat = 0.0) -> LRScheduler:
    """Half a cosine from the initial rate, which would reach `final` one epoch after the last."""
    return CosineAnnealingLR(optimizer, T_max=epochs, eta_min=final)


def plateau(
    optimizer: Optimizer,
    epochs: int,
    *,
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    patience: PositiveInt = 10,
) -> ReduceLROnPlateau:
    """Multiply by `factor` when the validation loss (the training loss, where there is no
    validation part) has not fallen for `patience` epochs.
    """
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
