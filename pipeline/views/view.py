"""Which view of each sample an epoch shows, and the pixels of a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.base.registry import NestedError, Section
from pipeline.views import POLICIES
from pipeline.views.counter_random import random_words, stream_words, uniform_integers
from pipeline.views.view_limits import IDENTITY, refuse_impossible_views

if TYPE_CHECKING:
    from pipeline.cache import Cache

DRAW = 0xFFFFFFFF  # the stream that an epoch's draw of views reads, far beyond those of the policies


@dataclass(frozen=True)
class Views:
    """The views of a data set: `count` versions of each sample, none of them stored.

    Attributes:
        policy: of `POLICIES`.
        count: the number of views of each sample.
        seed: of all random words, in [0, 2^64).
        options: the policy's own parameters.
        order: an epoch shows one view of all samples, each in turn ("cycle"), or draws one for each sample ("draw").

    Raises:
        InputError: the policy is unknown, the count is below 1 or above 1 for "none", or the seed is out of range.
    """

    policy: str
    count: int
    seed: int
    options: Mapping[str, Any]
    order: Literal["cycle", "draw"] = "cycle"

    def __post_init__(self) -> None:
        refuse_impossible_views(self.policy, self.count, self.seed)

    @classmethod
    def from_cache(cls, cache: Cache, order: Literal["cycle", "draw"] = "cycle") -> Views:
        """The views that a cache was made with.

        Args:
            cache: opened.
            order: of the epochs, which no cache knows.

        Raises:
            InputError: a policy, or options of one, that this version does not have.
        """
        made = cache.manifest.views
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in made.parameters.items()}
        try:
            policy = POLICIES.parse({**given, "policy": made.policy}, tag="policy", base=_Policy)
        except NestedError as error:
            (place, text), *_ = error.errors
            raise InputError(f"cache {cache.folder.name}: {'.'.join(('views', *map(str, place)))}: {text}") from None
        options = {key: value for key, value in policy.extra_options(_Policy).items() if key in given}
        return cls(made.policy, made.count, made.seed, options, order)

    @property
    def is_identity(self) -> bool:
        """Whether the images stay as they are."""
        return self.policy == IDENTITY

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the pixels, as plain values for a manifest; the order decides none."""
        options = {key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()}
        return {"policy": self.policy, "count": self.count, "seed": self.seed, "parameters": options}

    def epoch_views(self, ids: Tensor, epoch: int) -> Tensor:
        """The view that an epoch shows of each sample, (n,) int64 in [0, count).

        Args:
            ids: (n,) integers, the samples.
            epoch: from 0.
        """
        if self.order == "cycle":
            return torch.full_like(ids, epoch % self.count, dtype=torch.int64)
        epochs = torch.full_like(ids, epoch, dtype=torch.int64)
        return uniform_integers(stream_words(self.seed, epochs, ids, DRAW)[:, 0], self.count)

    def words(self, ids: Tensor, views: Tensor) -> Tensor:
        """The random words of each (sample, view), (n, 8) int64 in [0, 2^32).

        Hundreds of small operations: call it once an epoch, not once a step.

        Args:
            ids: (n,) integers, the samples.
            views: (n,) integers in [0, count).
        """
        return random_words(self.seed, views, ids)

    def apply(self, images: Tensor, words: Tensor) -> Tensor:
        """The views (B, C, H, W) uint8 of images (B, C, H, W) uint8 with their words (B, 8), on their device."""
        return self._bound(images, words)

    @cached_property
    def _bound(self) -> Callable[[Tensor, Tensor], Tensor]:
        return partial(POLICIES.import_function(self.policy), **self.options)


class _Policy(Section):
    """A policy by its name; further keys are its options."""

    implied_keys = frozenset({"policy"})

    policy: str


PLAIN = Views("none", 1, 0, {})
