"""What an exported student says of itself: `card.json`, and `card.md`, the same for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline import __version__
from pipeline.base.plain_text import escape_cell, escape_code, escape_markdown
from pipeline.models import MODELS
from pipeline.models.cost import ImageCost
from pipeline.training.result import RULES

FORMAT, VERSION = "teachercache student", 1
WEIGHTS, CARD, PAGE, GRAPH = "weights.safetensors", "card.json", "card.md", "student.onnx"
COLOURS = {1: "grey", 3: "RGB"}
# Entries that the page words itself; whatever else a card holds is shown as it stands.
WORDED = {
    *("name", "seed_number", "model", "shape", "classes", "dataset", "select", "epoch", "rule", "consumed", "onnx"),
    *("test_accuracy", "test_accuracy_per_class", "weights_sha256", "format", "version", "package"),
    *("preprocessing", "parameters", "multiply_adds", "activation_bytes", "peers_sha256"),
}


def build_card(
    card: Mapping[str, Any], parameters: int, cost: ImageCost, onnx: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The entries of an exported card: all that the student's own card says, and what a stranger needs beside it.

    Args:
        card: of the student in its study; entries that are not known here (where it started from, its
            peers) are handed on.
        parameters: trainable numbers.
        cost: of an image.
        onnx: how the graph was checked, where there is one.
    """
    return {
        **card,
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "parameters": parameters,
        **asdict(cost),
        "preprocessing": describe_preprocessing(card["model"], card["shape"]),
        "rule": RULES.get(card.get("select", ""), str(card.get("select"))),
        **({"onnx": dict(onnx)} if onnx else {}),
    }


def describe_preprocessing(model: Mapping[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    """From an image file to the network's input, as JSON. `mean` and `std` are null where nothing is subtracted."""
    channels, height, width = shape
    return {
        "input": "uint8 (B, C, H, W)",
        "channels": COLOURS.get(channels, str(channels)),
        "size": [height, width],
        "transparency": "laid over white",
        "orientation": "as the pixels are stored; EXIF is not read",
        "resize": "bilinear, until it just covers the size; then cropped around the centre",
        "scaling": "pixel / 255, then (x - mean) / std, channel by channel; inside the network",
        "mean": model.get("mean"),
        "std": model.get("std"),
    }


def is_own_code(name: str) -> bool:
    """Whether an architecture is its author's own function: such code is never part of a folder."""
    return name not in MODELS.entries and not name.startswith(("torchvision:", "timm:"))


def format_card(card: Mapping[str, Any]) -> str:
    """The page for people: what it is, how right it is, how to load it, what taught it."""
    parts = [
        _describe_student(card),
        _list_accuracies(card),
        _explain_loading(card),
        *([_describe_onnx(card["onnx"], card["shape"])] if "onnx" in card else []),
        _describe_provenance(card),
    ]
    return "\n\n".join(parts) + "\n"


def _describe_student(card: Mapping[str, Any]) -> str:
    seen, model = card["preprocessing"], card["model"]["name"]
    high, wide = seen["size"]
    scaling = "" if seen["mean"] is None and seen["std"] is None else f", mean {seen['mean']}, std {seen['std']}"
    own = (
        f"\n- its architecture, `{escape_code(model)}`, is code of its author's own and not in this folder: whoever"
        " loads\n  the weights needs that module on PYTHONPATH, trusts it, and says `--own-code` (`own_code=True`)"
        if is_own_code(model)
        else ""
    )
    name, data = escape_markdown(card["name"]), escape_markdown(_dataset_name(card))
    return f"""# {name}, seed {card.get("seed_number", 0)}: a student that knows {data}

A network ({escape_markdown(model)}) of {card["parameters"]:,} parameters for {len(card["classes"])} classes, written \
by teachercache {escape_markdown(card["package"])}.

- input: {seen["input"]}, here (B, {", ".join(map(str, card["shape"]))}): {seen["channels"]}, {high} high, {wide} wide
- scaling: {seen["scaling"]}{scaling}
- an image of another size: {seen["resize"]}
- transparent parts: {seen["transparency"]}; orientation: {seen["orientation"]}
- output: logits (B, {len(card["classes"])}); their softmax is the probability of each class
- an image takes {card["multiply_adds"]:,} multiply-adds, and at most {card["activation_bytes"]:,} bytes for activations
- weights: those after epoch {card.get("epoch")} ({escape_markdown(card["rule"])}){own}"""


def _list_accuracies(card: Mapping[str, Any]) -> str:
    each = card.get("test_accuracy_per_class") or [None] * len(card["classes"])
    rows = [("**all**", card.get("test_accuracy")), *zip(map(escape_cell, card["classes"]), each, strict=True)]
    return "\n".join(["| class | test accuracy (%) |", "|---|---:|", *(f"| {n} | {_percent(a)} |" for n, a in rows)])


def _explain_loading(card: Mapping[str, Any]) -> str:
    own = ", own_code=True" if is_own_code(card["model"]["name"]) else ""
    flag = " --own-code" if own else ""
    return f"""## Load it

In this folder, with teachercache installed: `teachercache predict .{flag} IMAGES`, or in Python

```python
from pathlib import Path

import torch

from pipeline.export.folder import load_exported

network, card = load_exported(Path("."), torch.device("cpu"){own})  # checks every byte
images = torch.zeros(({", ".join(map(str, (1, *card["shape"])))}), dtype=torch.uint8)  # yours: (B, C, H, W)
with torch.no_grad():
    probabilities = network(images).softmax(1)
print(card["classes"][int(probabilities[0].argmax())], float(probabilities[0].max()))
```"""


def _describe_onnx(checked: Mapping[str, Any], shape: Sequence[int]) -> str:
    images, batches = escape_markdown(checked["images"]), ", ".join(map(str, checked["batches"]))
    return f"""Without PyTorch, `{GRAPH}` (opset {checked["opset"]}; needs `pip install onnxruntime`):

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{GRAPH}", providers=["CPUExecutionProvider"])
images = np.zeros(({", ".join(map(str, (1, *shape)))}), np.uint8)  # yours: (B, C, H, W)
(logits,) = session.run(["logits"], {{"images": images}})
print(logits.shape, int(logits[0].argmax()))
```

The graph's logits were compared with PyTorch's by onnxruntime {escape_markdown(checked["onnxruntime"])}, on \
{images}, in batches of {batches}: the largest difference was at \
most {checked["largest_difference_at_most"]:g} ({checked["tolerance"]:g} x (1 + the largest logit) was allowed)."""


def _describe_provenance(card: Mapping[str, Any]) -> str:
    caches = [
        f"- cache {escape_markdown(name)}, root digest `{escape_code(root)}`"
        for name, root in _sort_entries(card.get("consumed"))
    ]
    others = {key: value for key, value in card.items() if key not in WORDED}
    fingerprint = escape_code(card.get("dataset", {}).get("fingerprint"))
    lines = [
        f"- data set {escape_markdown(_dataset_name(card))}, fingerprint `{fingerprint}`",
        *(caches or ([] if "peers_sha256" in card else ["- labels alone: it has read no cache"])),
        *(f"- a peer, weights SHA-256 `{escape_code(digest)}`" for digest in card.get("peers_sha256", ())),
        *(
            f"- {escape_markdown(key)}: `{escape_code(json.dumps(value, sort_keys=True))}`"
            for key, value in _sort_entries(others)
        ),
        f"- weights, SHA-256 `{escape_code(card['weights_sha256'])}`",
    ]
    return "\n".join(["## What taught it", "", *lines])


def _dataset_name(card: Mapping[str, Any]) -> Any:
    return card.get("dataset", {}).get("name")


def _sort_entries(entries: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    return sorted((entries or {}).items())


def _percent(accuracy: float | None) -> str:
    return "no test images" if accuracy is None else f"{100 * accuracy:.2f}"
