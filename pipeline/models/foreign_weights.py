"""Weight files of other tools: state dicts inside of checkpoints, or with a wrapper's prefix before all names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError, join_names
from pipeline.models.weights import FIX, compare_states, is_state_dict, load_into, read_content, refuse_non_dense

LOG = logging.getLogger(__name__)

# What wraps a network puts before all names, and where training scripts keep the state dict among other things.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
ENTRIES = ("state_dict", "model", "model_state_dict", "ema", "module")
COUNTER = "n_averaged"  # torch's own `AveragedModel` counts in it
DEEPEST = 4  # entries in entries, prefixes before prefixes


@dataclass(frozen=True)
class Reading:
    """One way to read a file.

    Attributes:
        state: the state dict.
        entries: inside of which entries it lies, the outermost first.
        prefix: what all names began with.
        counted: whether a counter of averages was left out.
    """

    state: Mapping[str, Tensor]
    entries: tuple[str, ...] = ()
    prefix: str = ""
    counted: bool = False

    @property
    def entry_path(self) -> str:
        """Where it lies in the file."""
        return "".join(f"[{entry!r}]" for entry in self.entries)

    @property
    def changes(self) -> str:
        """How this reading differs from the file; empty where it does not."""
        parts = [f"its entry {self.entry_path}"] if self.entries else []
        parts += [f"without the prefix {self.prefix!r} of all its {len(self.state)} names"] if self.prefix else []
        parts += [f"without {COUNTER!r}"] if self.counted else []
        return ", ".join(parts)


def load_foreign_weights(modules: Sequence[nn.Module], path: Path, *, new_head: bool = False) -> None:
    """Load the weights of a file that another tool may have written into the one module that they fit.

    The state dict may lie in an entry of a training script's checkpoint, and all its names may begin with what a
    wrapper has put there (`DataParallel`, `torch.compile`, a module around the network). Floats may be of other bits.
    The log says so. Only one reading may fit, name by name and shape by shape.

    Args:
        modules: a network, or parts of it whose names a file may use as well.
        path: of a `.safetensors` file, or of a PyTorch file of tensors and plain values.
        new_head: see `load_into`.

    Raises:
        InputError: see `read_weights` and `load_into`; no reading fits, or several that differ do.
    """
    what = f"weights file {path}"
    content = read_content(path)
    tried = [(reading, module) for reading in _find_readings(content) for module in modules]
    if not tried:
        raise InputError(what, expected="a dict of tensors", found=_describe_content(content), fix=FIX)
    # Where nothing fits, the nearest reading is refused with what it lacks.
    fitting = [each for each in tried if _fits(*each, new_head=new_head)] or [min(tried, key=_count_differing)]
    for reading, _ in fitting:
        refuse_non_dense(reading.state, what)
    _refuse_several([reading for reading, _ in fitting], what)
    reading, module = fitting[0]
    place = f"{what}: {reading.changes}" if reading.changes else what
    converted = load_into(module, reading.state, place, new_head=new_head)
    done = [f"took {reading.changes}"] * bool(reading.changes)
    done += [f"converted its numbers ({', '.join(converted)})"] * bool(converted)
    if done:
        LOG.warning("%s: %s", what, "; ".join(done))


def _describe_content(content: Any) -> str:
    """A description of a file's content that is no state dict."""
    if not isinstance(content, dict):
        return type(content).__name__
    return (
        f"dict with the entries {join_names([str(name) for name in content], most=5)}" if content else "an empty dict"
    )


def _find_readings(content: Any, entries: tuple[str, ...] = ()) -> Iterator[Reading]:
    """Every state dict that a file's content may be read as, with and without the prefixes of its names."""
    if not isinstance(content, Mapping) or not content or len(entries) > DEEPEST:
        return
    if is_state_dict(content):
        yield from _strip_prefixes(Reading(content, entries))
        if COUNTER in content:
            yield from _strip_prefixes(
                Reading({k: v for k, v in content.items() if k != COUNTER}, entries, counted=True)
            )
        return
    for entry in ENTRIES:
        yield from _find_readings(content.get(entry), (*entries, entry))


def _strip_prefixes(reading: Reading) -> Iterator[Reading]:
    yield reading
    for prefix in PREFIXES:
        if (
            reading.state
            and len(reading.prefix.split(".")) <= DEEPEST
            and all(k.startswith(prefix) for k in reading.state)
        ):
            state = {name.removeprefix(prefix): tensor for name, tensor in reading.state.items()}
            yield from _strip_prefixes(Reading(state, reading.entries, reading.prefix + prefix, reading.counted))


def _fits(reading: Reading, module: nn.Module, *, new_head: bool) -> bool:
    differing, reshaped = compare_states(module.state_dict(), reading.state, new_head=new_head)
    return not differing and not reshaped


def _count_differing(reading: tuple[Reading, nn.Module]) -> int:
    """How many names only one of a reading and a module has."""
    each, module = reading
    return len(module.state_dict().keys() ^ each.state.keys())


def _refuse_several(readings: Sequence[Reading], what: str) -> None:
    """Raise InputError where two readings hold different numbers."""
    first = readings[0]
    for other in readings[1:]:
        same = all(
            torch.equal(first.state[name], other.state[name]) for name in first.state.keys() & other.state.keys()
        )
        if not same or first.state.keys() != other.state.keys():
            raise InputError(
                what,
                expected="one state dict that fits the architecture",
                found=f"two that differ: {first.entry_path} and {other.entry_path}",
                fix=f"save the one that you mean alone: torch.save(torch.load(FILE){other.entry_path}, NEW)",
            )
