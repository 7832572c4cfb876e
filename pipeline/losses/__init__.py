"""Loss terms, one a file; a recipe sums them.

A term is a pure function (outputs, target, *, options) -> scalar. Its module's `READS` names
the cached field that `target` is a batch of, or is None, or (of a term that reads several, or
another one by its options) is a mapping from a role to a field, or a function of the options.
The module may have

- `find_mismatch(options, dump_options)`: why a dump of that field does not serve, or None;
- `taps(options)`: the student's activations that it asks for;
- `build_learned(outputs, target, options)`: a module that is trained beside the student, or None;
- `train_prepared(rows, options, seed, what)`: a module that is trained before the student, on all
  rows of what it reads (by role), and stays as it is; with numbers for the student's metrics.
  Such a term's target is None: it reads nothing while the student trains;
- `PEERS = True`: it learns from the student's peers (`outputs.peers`).
"""

from pipeline.base.registry import Registry

__all__ = ["TERMS"]

TERMS = Registry(
    "loss",
    {
        "ce": "pipeline.losses.ce:ce",
        "soft_targets": "pipeline.losses.soft_targets:soft_targets",
        "logits_mse": "pipeline.losses.logits_mse:logits_mse",
        "probe_rmse": "pipeline.losses.probe_rmse:probe_rmse",
        "hint_mse": "pipeline.losses.hint_mse:hint_mse",
        "tsne": "pipeline.losses.tsne:tsne",
        "multichannel_bce": "pipeline.losses.multichannel_bce:multichannel_bce",
        "adversarial": "pipeline.losses.adversarial:adversarial",
        "mutual_kl": "pipeline.losses.mutual_kl:mutual_kl",
    },
)
