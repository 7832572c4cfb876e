"""Dumps: one field a file, each a function (teacher, samples, *, options) -> Field.

Its module also has `plan_arrays(parameters, classes)`, what a cache of the field must hold. It may have

- `check_options(**options)`, which raises ValueError for options that contradict each other;
- `count_rows(parameters, samples)`, the length of the second axis where that is not the number of samples;
- `select_plan_options(parameters)`, the options that decide the batch plan of its rows (`batch_size` among them);
- `DERIVED`, the manifest's parameters that the network decides;
- `list_taps(parameters)`, what it reads inside of the network;
- `NEEDS_HEAD`, True where it asks for channels, which only networks with a head have.
"""

from pipeline.base.registry import Registry

__all__ = ["FIELDS"]

FIELDS = Registry(
    "field",
    {
        "logits": "pipeline.dumps.logits:logits",
        "hints": "pipeline.dumps.hints:hints",
        "affinities": "pipeline.dumps.affinities:affinities",
        "multichannel": "pipeline.dumps.multichannel:multichannel",
    },
)
