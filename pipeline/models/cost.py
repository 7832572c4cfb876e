"""What an image costs a network, whatever the device: multiply-adds, and memory for activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.models.network import Network


@dataclass(frozen=True)
class ImageCost:
    """What a pass of one image in evaluation mode takes, of operations and tensors that depend on the image.

    Attributes:
        multiply_adds: of convolutions and matrix products, by the formulas of `torch.utils.flop_counter`: half of its
            FLOPs. Biases, normalisations, activation functions and pooling are left out.
        activation_bytes: the most that lies in memory at a time: each tensor of floats from the operation that makes
            it to the last one that reads it. Weights, integers and a kernel's own workspace are left out.
    """

    multiply_adds: int
    activation_bytes: int


@torch.no_grad()
def measure_image_cost(network: nn.Module, shape: tuple[int, int, int]) -> ImageCost:
    """Follow a black image through a network, always on the CPU, so that all devices count the same.

    What a network was trained in is left out of it: whatever reads the network later computes in float32.

    (Tensors without numbers would compute nothing, but the meta device's first use imports torch's compiler, which
    takes a second; so does `FlopCounterMode`.)

    Args:
        network: uint8 images (B, C, H, W) -> logits (B, classes), on any device.
        shape: (C, H, W) of the images.
    """
    here = all(tensor.device.type == "cpu" for tensor in network.parameters())
    followed = network if here else deepcopy(network).cpu()
    image = torch.zeros((1, *shape), dtype=torch.uint8)
    with _evaluation_mode(followed), _plain_precision(followed), _plain_attention(), _Operations(image) as operations:
        followed(image)
    return ImageCost(operations.flops // 2, operations.find_peak())


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode while it is open; each module's own mode afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


@contextmanager
def _plain_precision(network: nn.Module) -> Iterator[None]:
    """Products of float32 while it is open: casts of weights would count as activations, too."""
    precisions = {module: module.precision for module in network.modules() if isinstance(module, Network)}
    for module in precisions:
        module.precision = "float32"
    try:
        yield
    finally:
        for module, precision in precisions.items():
            module.precision = precision


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products while it is open: of the CPU's kernels for it torch has no formula."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the operations that depend on an image.

    Attributes:
        flops: so far.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Here, since it imports triton where there is one, which little else does.
        from torch.utils.flop_counter import flop_registry

        self._formulas: Mapping[Any, Callable[..., int]] = flop_registry
        self.flops = 0
        self._count = 0
        self._bytes: dict[UntypedStorage, int] = {}  # of all that depends on the image; views share a storage
        self._spans: dict[UntypedStorage, tuple[int, int]] = {}  # the first and the last operation of each
        self._note([image])

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the compiler is imported, only to be told to leave this alone

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        result = func(*args, **named)
        read = _find_tensors((args, named))
        if any(tensor.untyped_storage() in self._bytes for tensor in read):
            self._count += 1
            written = _find_tensors(result)
            self._note([tensor for tensor in read if tensor.untyped_storage() in self._bytes] + written)
            if formula := self._formulas.get(func.overloadpacket):
                self.flops += formula(*args, **named, out_val=result)
        return result

    def _note(self, tensors: Sequence[Tensor]) -> None:
        """The operation of now reads or writes these."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._bytes.setdefault(storage, storage.nbytes() if tensor.is_floating_point() else 0)
            first, _ = self._spans.get(storage, (self._count, self._count))
            self._spans[storage] = first, self._count

    def find_peak(self) -> int:
        """The most bytes of floats at one operation."""
        changes = [0] * (self._count + 2)
        for storage, (first, last) in self._spans.items():
            changes[first] += self._bytes[storage]
            changes[last + 1] -= self._bytes[storage]
        return max(accumulate(changes))


def _find_tensors(values: object) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
