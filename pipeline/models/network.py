"""The frame around every architecture: pixels in, logits out, activations on request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.base.device import allow_tf32
from pipeline.base.errors import InputError
from pipeline.base.registry import describe_unknown


class Layers(nn.Sequential):
    """Named layers in a row.

    Attributes:
        taps: the points where activations may be read: tap name -> module path.
    """

    def __init__(self, layers: Mapping[str, nn.Module], taps: Mapping[str, str]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.taps = dict(taps)


class Shares(Protocol):
    """How several processes share a batch out; see `training.shared_batches`."""

    def draw_apart(self, device: torch.device) -> AbstractContextManager[None]:
        """While it is open, each process draws for its own rows."""
        ...

    def cut(self, images: Tensor) -> Tensor:
        """One's own rows of a batch."""
        ...

    def join(self, values: Tensor) -> Tensor:
        """The values of the whole batch, of those of one's own rows."""
        ...


Keep = Callable[[str, object], None]  # takes a tap's name and what a module gives
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
FEATURES = "features"  # of a network that names no such tap: what its last linear layer is given


def _tracks_statistics(module: nn.Module) -> bool:
    return getattr(module, "track_running_stats", False) and any(True for _ in module.parameters(recurse=False))


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


class Network(nn.Module):
    """An architecture with its input scaling, which belongs to the weights.

    Args:
        body: float images (B, C, H, W) -> logits (B, classes).
        mean, std: per channel, subtracted and divided after pixels are scaled to [0, 1].

    Attributes:
        precision, layout: see `compute_in`.
    """

    scale: Tensor
    shift: Tensor | None

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.precision: str = "float32"
        self.layout: str | None = None
        self.taps: dict[str, str] = dict(getattr(body, "taps", {}))
        channels = len(mean or std or (0.0,))
        center = torch.tensor(mean or [0.0] * channels, dtype=torch.float32).view(-1, 1, 1)
        spread = torch.tensor(std or [1.0] * channels, dtype=torch.float32).view(-1, 1, 1)
        self.shares: Shares | None = None  # where each of several processes computes its rows of a batch
        self._frozen: list[nn.Module] = []  # batch normalisations whose running statistics a phase leaves alone
        # x / 255 * scale + shift, on the network's device, and no part of its weights.
        self.register_buffer("scale", 1 / (255 * spread), persistent=False)
        self.register_buffer("shift", None if mean is None else -center / spread, persistent=False)

    def compute_in(self, precision: str = "float32", layout: str | None = None) -> None:
        """How the body is computed from now on; its weights, logits and taps stay float32.

        Args:
            precision: of its products: `float32`, `tf32` (factors of 10 bits, on a GPU) or `bfloat16`.
            layout: of the weights of convolutions (`LAYOUTS`); None: as they are.
        """
        self.precision, self.layout = precision, layout
        if layout is not None:
            self.body.to(memory_format=LAYOUTS[layout])

    def set_products(self, device: torch.device) -> None:
        """Have a GPU round factors as `precision` says, until another network is asked: in backward passes, too."""
        if device.type == "cuda":
            allow_tf32(self.precision == "tf32")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of uint8 images (B, C, H, W)."""
        shares = self.shares if self.training else None
        if shares is None:
            return self._compute(images)
        with shares.draw_apart(images.device):
            logits = self._compute(shares.cut(images))
        return shares.join(logits)

    def _compute(self, images: Tensor) -> Tensor:
        inputs = self.scale_pixels(images)
        self.set_products(inputs.device)
        if self.precision != "bfloat16":
            logits: Tensor = self.body(inputs)
            return logits
        # Each weight is cast where it is used: a cast that is kept could outlive an optimiser's step.
        with torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=False):
            logits = self.body(inputs)
        return logits.float()

    def scale_pixels(self, images: Tensor) -> Tensor:
        """Inputs of the weights' type: pixels / 255, then (x - mean) / std where stated."""
        inputs = images.to(self.scale.dtype, copy=True).mul_(self.scale)
        return inputs if self.shift is None else inputs.add_(self.shift)

    def train(self, mode: bool = True) -> Network:
        """Training or evaluation mode; what `train_only` has frozen stays as it is."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def parameters_below(self, tap: str, images: Tensor) -> list[str]:
        """The parameters that the activations at a tap depend on, by name: the part of the network below it.

        Args:
            tap: see `record_taps`.
            images: (B, C, H, W) uint8 to try it on.
        """
        named = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        was = self.training
        try:
            with torch.enable_grad():
                activations = self.eval().forward_with_taps(images, [tap])[1][tap]
                if not activations.requires_grad:
                    return []
                gradients = torch.autograd.grad(activations.sum(), list(named.values()), allow_unused=True)
        finally:
            self.train(was)
        return [name for name, gradient in zip(named, gradients, strict=True) if gradient is not None]

    def parameters_within(self, modules: Iterable[str]) -> list[str]:
        """The parameters of the named modules (paths as for taps), by name.

        Raises:
            InputError: there is no such module, or it has no parameters.
        """
        names = [name.removeprefix("body.") for name, _ in self.named_parameters()]
        found: list[str] = []
        for module in modules:
            path = self.taps.get(module, module)
            inside = [name for name in names if name == path or name.startswith(f"{path}.")]
            if not inside:
                known = dict.fromkeys(name.rpartition(".")[0] for name in names)
                raise InputError(describe_unknown("module with weights", module, known))
            found += [f"body.{name}" for name in inside]
        return found

    @contextmanager
    def train_only(self, names: Collection[str]) -> Iterator[None]:
        """While it is open, the other parameters are frozen, and so are their batch normalisations' statistics."""
        frozen = [parameter for name, parameter in self.named_parameters() if name not in names]
        was = [parameter.requires_grad for parameter in frozen]
        for parameter in frozen:
            parameter.requires_grad_(False)
        self._frozen = [module for module in self.modules() if _tracks_statistics(module) and not _is_trained(module)]
        try:
            yield
        finally:
            for parameter, before in zip(frozen, was, strict=True):
                parameter.requires_grad_(before)
            self._frozen = []

    def forward_with_taps(self, images: Tensor, names: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and the activations (B, ...) at the named taps, in one pass; see `record_taps`."""
        with self.record_taps(names) as activations:
            logits = self(images)
        silent = [name for name in names if name not in activations]
        if silent:  # a module whose weights others use without calling it (`MultiheadAttention.out_proj`)
            raise InputError(f"tap {silent[0]!r}", expected="a module that a pass calls", found="one that it does not")
        return logits, activations

    @contextmanager
    def record_taps(self, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
        """While it is open, each pass leaves the activations (B, ...) at the named taps in the mapping.

        Args:
            names: taps of the architecture, or any module path inside it (`layer3.1`); of a module
                that a pass uses several times the last output is kept. Where the architecture has neither
                a tap nor a module called `features`, that is the input of its last linear layer.

        Raises:
            InputError: the architecture has no such tap, or (in a pass) it gives something else than one
                tensor with a row for each image.
        """
        activations: dict[str, Tensor] = {}
        counted = [0]
        modules = dict(self.body.named_modules())
        paths = {name: self.taps.get(name, name) for name in names}
        linear = self._feature_layers() if FEATURES in paths and paths[FEATURES] not in modules else []
        if linear:
            del paths[FEATURES]
        for name, path in paths.items():
            if path not in modules or not path:
                raise InputError(describe_unknown("tap", name, dict.fromkeys([*self.taps, *filter(None, modules)])))

        def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            counted[0] = len(inputs[0])

        def keep(name: str, output: object) -> None:
            if not isinstance(output, Tensor):
                raise InputError(f"tap {name!r}", expected="a module that gives a tensor", found=type(output).__name__)
            if output.shape[:1] != (counted[0],):  # windows or patches in the place of images
                expected = f"a row for each of {counted[0]} images"
                raise InputError(f"tap {name!r}", expected=expected, found=f"shape {tuple(output.shape)}")
            # A copy: later layers may work in place (`ReLU(inplace=True)`, `+=`).
            own = output.float() if output.dtype == torch.bfloat16 else output.clone()
            activations[name] = self.shares.join(own) if self.shares is not None and self.training else own

        handles = [self.body.register_forward_pre_hook(count), *self._hook_features(linear, keep)]
        for name, path in paths.items():
            handles.append(modules[path].register_forward_hook(lambda _m, _i, output, name=name: keep(name, output)))
        try:
            yield activations
        finally:
            for handle in handles:
                handle.remove()

    def _feature_layers(self) -> list[nn.Module]:
        """The linear layers, the last called of which takes the features; none where no other layer has weights."""
        learning = [module for module in self.body.modules() if any(True for _ in module.parameters(recurse=False))]
        return [module for module in learning if isinstance(module, nn.Linear)] if len(learning) > 1 else []

    def _hook_features(self, linear: Sequence[nn.Module], keep: Keep) -> list[RemovableHandle]:
        """Hooks that keep the input of the last of these layers that a pass calls."""
        given: list[object] = []

        def note(_layer: nn.Module, inputs: tuple[object, ...]) -> None:
            given[:] = inputs[:1]

        def end(*_: object) -> None:
            if given:
                keep(FEATURES, given.pop())

        notes = [layer.register_forward_pre_hook(note) for layer in linear]
        return [*notes, self.body.register_forward_hook(end)] if notes else []

    def parameter_count(self) -> int:
        """Trainable numbers, biases included."""
        return sum(parameter.numel() for parameter in self.parameters())
