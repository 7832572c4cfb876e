"""The joint probabilities of t-SNE, batch by batch (van der Maaten and Hinton 2008, equations 1 and 2).

For every row i a search for the width sigma_i at which p_{.|i} has the perplexity that is asked for.
It solves H(u) = log2(perplexity) for u = log beta by Halley's steps inside a bracket; entropy and its
two derivatives come from the sums of one pass over the row. The kernels are compiled by numba at
their first use and kept on disk: `compile_kernels` does that beforehand and says how long it took.

One batch is worked on by one thread from end to end, so no result depends on the number of threads.
"""

from pipeline.perplexity.probabilities import (
    Conditional,
    FloatDType,
    compile_kernels,
    conditional_from_distances,
    conditional_probabilities,
    joint_probabilities,
    squared_distances,
)

__all__ = [
    "Conditional",
    "FloatDType",
    "compile_kernels",
    "conditional_from_distances",
    "conditional_probabilities",
    "joint_probabilities",
    "squared_distances",
]
