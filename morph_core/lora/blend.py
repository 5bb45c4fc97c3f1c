"""Two LoRAs applied to a batch of frames at once, each frame with its own share of both (DiffMorpher 3.1)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from ..errors import InvalidInput
from ..morphing.alphas import Alphas
from .low_rank import LowRank, check_shapes

BLENDS = ("delta", "factors")
Power = tuple[int, int, int]  # (p, q, r): r directions whose share is (1 − α)ᵖ·αᵠ


class StackedLoras:
    """The LoRAs `start` and `end`, stacked along the rank, for any number of calls with any alphas.

    blend "delta": y += (1−αᵢ)·s₀·B₀A₀x + αᵢ·s₁·B₁A₁x on every layer, DiffMorpher's Δθ interpolation (section 3.1).
    "factors": y += ((1−αᵢ)·s₀·B₀ + αᵢ·s₁·B₁)((1−αᵢ)·A₀ + αᵢ·A₁)x, what its published code does; ranks must be equal.
    Layers may be in one LoRA only (the other's factors are 0 then), and of "delta" the ranks may differ. A layer's
    matrices are brought to where and to what it computes in at its first call, and stay there as long as this object.
    Raises `InvalidInput` for another blend, and when a shape or a rank does not fit.
    """

    def __init__(
        self, start: Mapping[nn.Module, LowRank], end: Mapping[nn.Module, LowRank], blend: str = "delta"
    ) -> None:
        check_blend(blend)
        self._updates = {layer: _stacked(layer, start.get(layer), end.get(layer), blend) for layer in {**start, **end}}
        self._frames: dict[tuple[Alphas, int | None], _Frames] = {}

    @contextmanager
    def applied(self, alphas: Alphas, rows: int | None = None) -> Iterator[None]:
        """Within this context frame i of a batch sees (1 − αᵢ) of the LoRA `start` and αᵢ of `end`.

        All frames at once; no weight is changed. A batch of k·len(alphas) rows is k runs of the same frames. rows: how
        many the network's input has, where something cuts rows into tiles on the way: a layer that sees k times as many
        then sees each row's k tiles, row by row. Without it every layer sees the input's rows.
        """
        frames = self._frames.setdefault((tuple(alphas), rows), _Frames(tuple(alphas), rows))
        handles = []
        try:
            for layer, update in self._updates.items():
                handles.append(layer.register_forward_hook(partial(update.add, frames)))
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def blended_loras(
    start: Mapping[nn.Module, LowRank],
    end: Mapping[nn.Module, LowRank],
    alphas: Alphas,
    blend: str = "delta",
    rows: int | None = None,
) -> Iterator[None]:
    """`StackedLoras`, applied once."""
    with StackedLoras(start, end, blend).applied(alphas, rows):
        yield


class _Frames:
    """How much of both LoRAs each row of a call sees; the same tensors for all layers of the same ranks."""

    def __init__(self, alphas: Alphas, rows: int | None) -> None:
        self._alphas, self._rows = alphas, rows
        self._shares: dict[object, Tensor] = {}

    def shares(self, powers: tuple[Power, ...], x: Tensor, axis: int) -> Tensor:
        """To multiply what is computed from x (B, ...) with: (B, 1, ..., r, ...), r at this axis."""
        key = (powers, x.shape[0], x.ndim, x.dtype, x.device)
        if key not in self._shares:
            with torch.inference_mode(False):  # a later call may need gradients
                shares = _shares(self._alphas, self._rows, powers, len(x))
                shape = [1] * x.ndim
                shape[0], shape[axis] = shares.shape
                self._shares[key] = shares.reshape(shape).to(x.device, x.dtype)
        return self._shares[key]


@dataclass
class _StackedLayer:
    """One layer's products whose weighted sum is its update. parts: (down, up) of each, with its scale in up."""

    parts: list[tuple[Tensor, Tensor]]
    powers: tuple[Power, ...]
    down: Tensor | None = None  # (r, in, ...), all of them, once they were needed
    up: Tensor | None = None  # (out, r, ...)

    def add(self, frames: _Frames, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook."""
        x = args[0]
        down, up = self._brought_to(x)
        if isinstance(layer, nn.Conv2d):
            hidden = conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            return output + conv2d(hidden * frames.shares(self.powers, x, axis=1), up)
        hidden = linear(x, down) * frames.shares(self.powers, x, axis=-1)
        is_ours = len(layer._forward_hooks) == 1  # no other hook may have kept the output, or put its own in its place
        return _added(output, hidden, up) if is_ours else output + linear(hidden, up)

    def _brought_to(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.down is None or self.up is None or self.down.dtype != x.dtype or self.down.device != x.device:
            downs, ups = zip(*self.parts, strict=True)
            with torch.inference_mode(False), torch.no_grad():
                self.down, self.up = (
                    torch.cat([part.to(x.device).float() for part in parts], dim=axis).to(x.dtype)
                    for parts, axis in ((downs, 0), (ups, 1))
                )
        return self.down, self.up


def _added(output: Tensor, hidden: Tensor, up: Tensor) -> Tensor:
    """output + up·hidden: in the layer's own new output, where no gradient asks for it as it was."""
    if torch.is_grad_enabled() or not output.is_contiguous() or not output.dtype == hidden.dtype == up.dtype:
        return output + linear(hidden, up)
    output.view(-1, output.shape[-1]).addmm_(hidden.flatten(0, -2), up.t())
    return output


def _stacked(layer: nn.Module, start: LowRank | None, end: LowRank | None, blend: str) -> _StackedLayer:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    weighted = [(update, power) for update, power in ((start, (1, 0)), (end, (0, 1))) if update is not None]
    for update, _ in weighted:
        check_shapes(layer, update)
    parts, powers = [], []
    for of_down, of_up, (p, q) in _terms(weighted, blend):
        down, up = of_down.down, of_up.up if of_up.scale == 1 else of_up.up.float() * of_up.scale
        if weight.ndim == 2:
            down, up = down.flatten(1), up.flatten(1)
        parts.append((down, up))
        powers.append((p, q, of_up.rank))
    return _StackedLayer(parts, tuple(powers))


def _terms(
    weighted: list[tuple[LowRank, tuple[int, int]]], blend: str
) -> list[tuple[LowRank, LowRank, tuple[int, int]]]:
    """The products whose sum is the blend: (whose A, whose B, the powers of 1 − α and α in its share)."""
    if blend == "delta":
        return [(update, update, power) for update, power in weighted]
    ranks = {update.rank for update, _ in weighted}
    if len(ranks) > 1:
        raise InvalidInput(
            f"the factors of LoRAs of ranks {' and '.join(map(str, sorted(ranks)))} cannot be blended; fit both with "
            "one rank, or blend 'delta'"
        )
    return [(a, b, (p + s, q + t)) for (a, (p, q)), (b, (s, t)) in product(weighted, weighted)]


def _shares(alphas: Alphas, rows: int | None, powers: tuple[Power, ...], seen: int) -> Tensor:
    """(seen, r)"""
    frames, rows = len(alphas), rows or seen
    if rows % frames:
        raise InvalidInput(
            f"the LoRA blend is for {frames} frames, the model was given a batch of {rows} rows; "
            "sample as many frames as there are alphas"
        )
    if seen % rows:
        raise InvalidInput(
            f"a layer sees {seen} rows of a batch of {rows}, so that their frames are not known; "
            "leave out the patch of the model that changes their number"
        )
    alpha = torch.tensor(alphas, dtype=torch.float32)[:, None]
    shares = torch.cat([((1 - alpha) ** p * alpha**q).expand(-1, rank) for p, q, rank in powers], dim=1)
    return shares.repeat(rows // frames, 1).repeat_interleave(seen // rows, dim=0)


def check_blend(blend: str) -> None:
    """Raise `InvalidInput` unless `blend` is one of `BLENDS`."""
    if blend not in BLENDS:
        raise InvalidInput(f"the LoRA blend must be one of {', '.join(BLENDS)}; got {blend!r}")
