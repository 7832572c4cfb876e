"""Counter-based random words, without a state: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011).

A uint32 is kept in an int64, whose wrap-around product has the same bits on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOW = 0xFFFFFFFF  # the low 32 bits
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Four random words for each counter, (n, 4) int64 in [0, 2^32).

    Args:
        counter: (n, 4) int64 in [0, 2^32).
        key: two numbers in [0, 2^32).
    """
    first, second, third, fourth = counter.unbind(1)
    return torch.stack(mix_counters((first, second, third, fourth), key), dim=1)


Word = Tensor | int


def mix_counters(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Word, Word]) -> tuple[Tensor, ...]:
    """The four words of each counter, whose parts (and the key's) may be of any shapes that broadcast."""
    first, second, third, fourth = counter
    for number in range(ROUNDS):
        low_key, high_key = ((part + number * step) & LOW for part, step in zip(key, WEYL, strict=True))
        left, right = first * MULTIPLIERS[0], third * MULTIPLIERS[1]
        # The shift copies the sign; the mask drops it, so that the upper half is that of the unsigned product.
        first, second, third, fourth = (
            (right >> 32 & LOW) ^ second ^ low_key,
            right & LOW,
            (left >> 32 & LOW) ^ fourth ^ high_key,
            left & LOW,
        )
    return first, second, third, fourth


def stream_words(seed: int, views: Tensor, ids: Tensor, stream: int) -> Tensor:
    """Four random words for each (view, sample), (n, 4) int64 in [0, 2^32).

    Args:
        seed: in [0, 2^64).
        views: (n,) integers in [0, 2^32).
        ids: (n,) integers, the samples.
        stream: in [0, 2^32); each has words of its own.
    """
    ids = ids.long()
    counter = torch.stack([ids & LOW, ids >> 32 & LOW, views.long() & LOW, torch.full_like(ids, stream)], dim=1)
    return philox(counter, (seed & LOW, seed >> 32 & LOW))


def random_words(seed: int, views: Tensor, ids: Tensor, count: int = 8) -> Tensor:
    """Random words for each (view, sample), (n, count) int64 in [0, 2^32), on the device of `ids`.

    Words 0 to 3 are stream 0, words 4 to 7 are stream 1, and so on: a larger `count` adds words and changes none.
    """
    streams = range(-(-count // 4))
    return torch.cat([stream_words(seed, views, ids, stream) for stream in streams], dim=1)[:, :count]


def uniform_integers(word: Tensor, limit: int | Tensor) -> Tensor:
    """Integers in [0, limit), limit <= 2^31, from words in [0, 2^32).

    No number's probability is off 1 / limit by 2^-32 or more: relatively, by limit / 2^32. Removing
    that bias would take a loop over a random number of words.
    """
    return word * limit >> 32


def bernoulli(word: Tensor, probability: float) -> Tensor:
    """True with a probability, rounded to a multiple of 2^-32; bool, of the words' shape."""
    return word < round(probability * 2**32)
