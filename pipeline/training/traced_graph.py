"""A function traced into a graph of tensor operations: its replay costs their time alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from pipeline.base.errors import InputError

aten = torch.ops.aten
RESHAPES = (aten.expand.default, aten.view.default, aten._unsafe_view.default)  # noqa: SLF001 - as torch names it
TRANSPOSES = (aten.t.default, aten.transpose.int)
# These change running statistics, and not all of them say so.
NORMS = (
    *(aten.native_batch_norm.default, aten.cudnn_batch_norm.default, aten.miopen_batch_norm.default),
    *(aten._native_batch_norm_legit.default, aten._batch_norm_with_update.default),  # noqa: SLF001
)
COPIES = (aten.alias.default, aten.detach.default)


class NotCompilableError(InputError):
    """A graph cannot be compiled."""


@dataclass(frozen=True)
class Trace:
    """A function as one graph.

    Attributes:
        run: takes and gives what the function does.
        draws: whether it draws random numbers.
    """

    run: Callable[..., Any]
    draws: bool


def trace(function: Callable[..., Any], inputs: Sequence[Tensor], *, compiled: bool = False) -> Trace:
    """The function as one graph for inputs of these shapes; what it does to them in place, the graph does too.

    It runs once while it is traced, on copies.

    Args:
        function: of tensors, in whose course only tensors (no numbers read from them) decide.
        inputs: tensors like those to come.
        compiled: the graph becomes fused kernels (torch's compiler); its numbers differ in the last bits.

    Raises:
        NotCompilableError: it is traced, and not compiled.
        RuntimeError: and others of torch's, where that is not so.
    """
    graph = make_fx(function)(*(tensor.detach().clone() for tensor in inputs))
    for node in list(graph.graph.nodes):
        if _changes_nothing(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif _undoes_its_source(node):
            node.replace_all_uses_with(node.args[0].args[0])
    for node in list(graph.graph.nodes):
        _fuse_product_and_sum(graph.graph, node)
    graph.graph.eliminate_dead_code(_acts)
    graph.recompile()
    # Not the module's call, with its hooks.
    return Trace(_compile(graph, inputs) if compiled else graph.forward, any(map(_draws, graph.graph.nodes)))


def _compile(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """The graph as fused kernels, made now: whoever cannot is told before anything is trained."""
    made: Callable[..., Any] = torch.compile(graph, dynamic=False, fullgraph=True)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler about itself
            made(*(tensor.detach().clone() for tensor in inputs))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # compilers, linkers and file systems have errors of all kinds
        raise NotCompilableError(
            "compile",
            expected="a training that torch's compiler takes, and a C++ compiler for it",
            found=(str(error) or type(error).__name__).splitlines()[0],
            fix="leave `compile` out",
        ) from error
    return made


def _draws(node: fx.Node) -> bool:
    """Whether a node draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _acts(node: fx.Node) -> bool:
    """Whether a node is more than its value."""
    return bool(node.is_impure()) or node.target in NORMS


def _changes_nothing(node: fx.Node) -> bool:
    """Whether a node gives what it is given."""
    source = node.args[0] if node.args else None
    if node.op != "call_function" or not isinstance(source, fx.Node):
        return False
    if node.target in COPIES:
        return True
    if node.target is aten.mul.Scalar:
        return (
            bool(node.args[1] == 1)
            and _layout(node) == _layout(source)
            and not any(map(_writes, (*node.users, *source.users)))
        )
    return node.target in RESHAPES and _layout(node) == _layout(source)


def _undoes_its_source(node: fx.Node) -> bool:
    """Whether a node transposes what was just transposed."""
    source = node.args[0] if node.args else None
    alike = isinstance(source, fx.Node) and source.target is node.target and source.args[1:] == node.args[1:]
    return alike and node.target in TRANSPOSES


def _writes(node: fx.Node) -> bool:
    """Whether a node changes what it is given."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _layout(node: fx.Node) -> tuple[Any, ...]:
    value: Tensor = node.meta["val"]
    return value.shape, value.stride(), value.dtype


def _fuse_product_and_sum(graph: fx.Graph, node: fx.Node) -> None:
    """A batch of products whose sum with a bias is all that is asked for: one operation instead of two."""
    if node.target is not aten.add.Tensor or len(node.args) != 2 or node.kwargs:
        return
    for bias, product in (node.args, node.args[::-1]):
        if not (isinstance(bias, fx.Node) and isinstance(product, fx.Node)):
            continue
        made, value = product.meta["val"], bias.meta["val"]
        alike = value.ndim == 3 and value.dtype == made.dtype and node.meta["val"].shape == made.shape
        if alike and product.target is aten.bmm.default and len(product.users) == 1:
            with graph.inserting_before(node):
                fused = graph.call_function(aten.baddbmm.default, (bias, *product.args))
            fused.meta = dict(node.meta)
            node.replace_all_uses_with(fused)
            graph.erase_node(node)
            graph.erase_node(product)
            return
