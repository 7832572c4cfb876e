"""Binary layers: one bit a weight (Binary-Weight-Networks), or weights and inputs of one bit (XNOR-Networks).

Source: Rastegari et al. 2016, "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks".
What this is for is accuracy against size (`pipeline.models.size.count_bits`): no layer here is faster than the real
one, on a CPU or a GPU, since it computes with real numbers that have few values. Speed needs special kernels.

Where the paper leaves a choice, or its authors' code does otherwise than the paper:

- Padding is zeros, put on after the sign, as in their code: at a map's border some terms are 0, not +1 or -1.
- The real weights behind the signs are neither clipped to [-1, 1] nor centred, as the paper has it (their code does
  both before each step): a weight beyond 1 loses the sign's share of its gradient.
- Their code multiplies gradients by n for SGD; this one does not. They are about mean |W| times those of a real
  layer: Adam does not notice, SGD wants a larger rate.
- Batch norm before the sign has its scale and shift, so that thresholds are learnt (theirs has none).
- The gradient passes through the scale map K too: it is a mean of |inputs|.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from torch import Tensor, nn

Form = Literal["weights", "xnor"]
Gradient = Literal["paper", "exact"]


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1 (NaN stays NaN); its gradient is straight-through: 1 where |x| <= 1, else 0."""
    value = x.detach()
    # Exactly 0, and its gradient is the sign's. (`clamp` would do, but for +-1 itself, where its gradient is 0.)
    nothing = (x - value).masked_fill(value.abs() > 1, 0)
    return ((value >= 0).to(x.dtype) * 2 - 1) + nothing


def binary_weights(weight: Tensor, gradient: Gradient) -> Tensor:
    """W~ = alpha sign(W), alpha = mean |W| of each filter, for weights (filters, ...) of n numbers a filter.

    With g = dC/dW~ the gradient dC/dW_i is one of

        paper: g_i (1/n + alpha [|W_i| <= 1])
        exact: (1/n) sign(W_i) sum_j g_j sign(W_j) + g_i alpha [|W_i| <= 1]

    The first stands in the paper and in its authors' code; the second is what the chain rule gives once the sign's
    derivative is [|W_i| <= 1].
    """
    alpha = weight.abs().mean(tuple(range(1, weight.ndim)), keepdim=True)
    if gradient == "exact":
        return sign(weight) * alpha
    nothing = (weight - weight.detach()) / weight[0].numel()  # exactly 0, and its gradient is 1/n
    return sign(weight) * alpha.detach() + nothing


class _BinaryLayer(nn.Module):
    """What both layers share: binary weights W~ and, where there is a `norm`, binary inputs.

    op(sign(I), W~) K + bias, with I the normalised inputs and K their mean size; without a norm op(inputs, W~) + bias.

    Attributes:
        norm: in front of the inputs' sign; None where the inputs stay real.
        scale_map: multiply by K.
        gradient: of the real weights, see `binary_weights`.
    """

    weight: Tensor
    bias: Any  # a tensor or None; torch declares it in two ways
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None
    scale_map: bool
    gradient: Gradient

    def forward(self, inputs: Tensor) -> Tensor:
        """The outputs, of the shape that the real layer gives."""
        weight = binary_weights(self.weight, self.gradient)
        if self.norm is None:
            return self._multiply(inputs, weight, self.bias)
        normed = self._normalise(inputs, self.norm)
        sums = self._multiply(sign(normed), weight)
        if self.scale_map:
            sums = self._scale(sums, normed)
        if self.bias is None:
            return sums
        shifted: Tensor = sums + self.bias.to(sums.dtype).view(
            -1, *[1] * (self.weight.ndim - 2)
        )  # a convolution's: one a channel
        return shifted

    @property
    def stored_bits(self) -> dict[str, int]:
        """What a parameter takes when deployed: here one bit a weight, 32 for each filter's alpha."""
        return {"weight": self.weight.numel() + 32 * len(self.weight)}

    def _multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The real layer's own operation."""
        raise NotImplementedError

    def _normalise(self, inputs: Tensor, norm: nn.Module) -> Tensor:
        raise NotImplementedError

    def _scale(self, sums: Tensor, normed: Tensor) -> Tensor:
        """The sums times K."""
        raise NotImplementedError


class BinaryConv2d(_BinaryLayer, nn.Conv2d):
    """A convolution of maps (B, C, H, W) to (B, out_channels, H', W') with binary weights.

    K (B, groups, H', W') is the mean of |I| over the group's channels, box-filtered over what the kernel covers (with
    the convolution's stride, padding and dilation).
    """

    def _multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        maps: Tensor = self._conv_forward(inputs, weight, bias)
        return maps

    def _normalise(self, inputs: Tensor, norm: nn.Module) -> Tensor:
        normed: Tensor = norm(inputs)
        return normed

    def _scale(self, sums: Tensor, normed: Tensor) -> Tensor:
        means = _split_groups(normed.abs(), self.groups).mean(2)
        box = means.new_ones((self.groups, 1, *self.kernel_size))
        scales = self._multiply(means, box / box[0].numel())
        return (_split_groups(sums, self.groups) * scales[:, :, None]).flatten(1, 2)


def _split_groups(maps: Tensor, groups: int) -> Tensor:
    """Maps (B, C, ...) as (B, groups, C / groups, ...); `len(maps)` would fix the batch of a graph that is exported."""
    return maps.reshape(-1, groups, maps.shape[1] // groups, *maps.shape[2:])


class BinaryLinear(_BinaryLayer, nn.Linear):
    """A linear layer of vectors (B, ..., D) to (B, ..., out_features) with binary weights; K is the mean of |I|."""

    def _multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return nn.functional.linear(inputs, weight, bias)

    def _normalise(self, inputs: Tensor, norm: nn.Module) -> Tensor:
        normed: Tensor = norm(inputs.flatten(0, -2))
        return normed.reshape(inputs.shape)

    def _scale(self, sums: Tensor, normed: Tensor) -> Tensor:
        return sums * normed.abs().mean(-1, keepdim=True).to(sums.dtype)


def binarise_layer(layer: nn.Conv2d | nn.Linear, *, form: Form, scale_map: bool, gradient: Gradient) -> None:
    """Make a layer binary in place, with its weights, paths and hooks; no random number is drawn.

    The object stays, as with `torch.nn.utils.parametrize`, so that whoever refers to it calls the binary layer.
    """
    if isinstance(layer, nn.Conv2d):
        norm: nn.BatchNorm1d | nn.BatchNorm2d = nn.BatchNorm2d(layer.in_channels)
        layer.__class__ = BinaryConv2d
    else:
        norm = nn.BatchNorm1d(layer.in_features)
        layer.__class__ = BinaryLinear
    made = cast("BinaryConv2d | BinaryLinear", layer)
    made.norm = norm.to(layer.weight).train(layer.training) if form == "xnor" else None
    made.scale_map, made.gradient = scale_map, gradient
