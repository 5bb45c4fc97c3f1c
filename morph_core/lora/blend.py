"""LoRAs (Hu et al. 2021) as files name them, and two of them applied to a batch of frames at once.

A LoRA is a dict of tensors under kohya's names, `lora_unet_<module with _ for .>.lora_down.weight`, `.lora_up.weight`
and `.alpha`: the names that ComfyUI, diffusers and kohya's own loaders all read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from ..errors import InvalidInput
from ..morphing.alphas import Alphas

LoraWeights = dict[str, Tensor]
PREFIX = "lora_unet_"
BLENDS = ("delta", "factors")
LAYER_PARTS = ("lora_down.weight", "lora_up.weight", "alpha")  # the last may be absent: then it is the rank


@dataclass(frozen=True)
class LowRank:
    """One layer's update: scale·up·down. down: (r, in, ...), up: (out, r, ...); 1×1 trailing axes for a Linear's."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The number of directions, r."""
        return self.down.shape[0]


def read_lora(weights: Mapping[str, Tensor], unet: nn.Module) -> dict[nn.Module, LowRank]:
    """The layers of a diffusers UNet that a LoRA updates.

    Raises `InvalidInput` when nothing in `weights` fits the UNet, or something does not.
    """
    modules = {PREFIX + name.replace(".", "_"): module for name, module in unet.named_modules()}
    named = sorted({key.split(".", 1)[0] for key in weights})
    if not named:
        raise InvalidInput("the LoRA is empty")
    strangers = [name for name in named if name not in modules]
    if strangers:
        raise InvalidInput(
            f"{len(strangers)} of {len(named)} layers in the LoRA are not in this model, the first is "
            f"{strangers[0]!r}; use a LoRA that was fitted on this model"
        )
    expected = {f"{name}.{part}" for name in named for part in LAYER_PARTS}
    odd = sorted({key for key in expected ^ set(weights) if not key.endswith(".alpha")})
    if odd:
        raise InvalidInput(f"{odd[0]!r} is {'missing' if odd[0] in expected else 'unknown'}; use a plain, whole LoRA")
    layers = {}
    for name in named:
        down, up = weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"]
        layers[modules[name]] = low_rank(down, up, weights.get(f"{name}.alpha"))
    return layers


def low_rank(down: Tensor, up: Tensor, alpha: Tensor | float | None) -> LowRank:
    """A layer's update from the parts that a file has of it. alpha: one number; None is the rank."""
    rank = len(down) if down.ndim else 0
    if not rank:
        raise InvalidInput("a LoRA layer has rank 0; use a whole LoRA")
    if isinstance(alpha, Tensor) and alpha.numel() != 1:
        raise InvalidInput(f"a LoRA layer's alpha has {alpha.numel()} values and must have one; use a whole LoRA")
    return LowRank(down, up, 1.0 if alpha is None else float(alpha) / rank)


def of_part(update: LowRank, first: int, outputs: int) -> LowRank:
    """An update of a layer that is one part of a fused layer, as one of the whole.

    first: the part's first output; outputs: the fused layer's. What lies outside the part is not changed.
    """
    if update.up.ndim != 2 or not 0 <= first <= outputs - len(update.up):
        raise InvalidInput(f"a LoRA layer of {len(update.up)} outputs does not fit into {outputs} from {first} on")
    up = update.up.new_zeros(outputs, update.rank)
    up[first : first + len(update.up)] = update.up
    return LowRank(update.down, up, update.scale)


def joined(first: LowRank, second: LowRank) -> LowRank:
    """Two updates of one layer as one, whose rank is the sum of theirs."""
    ups = [update.up * update.scale for update in (first, second)]
    return LowRank(torch.cat([first.down, second.down]), torch.cat(ups, dim=1), 1.0)


@contextmanager
def blended_loras(
    start: Mapping[nn.Module, LowRank],
    end: Mapping[nn.Module, LowRank],
    alphas: Alphas,
    blend: str = "delta",
    rows: int | None = None,
) -> Iterator[None]:
    """Within this context frame i of a batch sees (1 − αᵢ) of the LoRA `start` and αᵢ of `end`.

    blend "delta": y += (1−αᵢ)·s₀·B₀A₀x + αᵢ·s₁·B₁A₁x on every layer, DiffMorpher's Δθ interpolation (section 3.1).
    "factors": y += ((1−αᵢ)·s₀·B₀ + αᵢ·s₁·B₁)((1−αᵢ)·A₀ + αᵢ·A₁)x, what its published code does; ranks must be equal.
    All frames at once; no weight is changed. Layers may be in one LoRA only (the other's factors are 0 then), and of
    "delta" the ranks may differ. A batch of k·len(alphas) rows is k runs of the same frames. rows: how many the
    network's input has, where something cuts rows into tiles on the way: a layer that sees k times as many then sees
    each row's k tiles, row by row. Without it every layer sees the input's rows. Raises `InvalidInput` for another
    blend, and when a shape or a rank does not fit.
    """
    check_blend(blend)
    handles = []
    try:
        for layer in {**start, **end}:
            update = _frame_update(layer, start.get(layer), end.get(layer), alphas, blend, rows)
            handles.append(layer.register_forward_hook(update))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _FrameUpdate:
    """Forward hook that adds both LoRAs as one: stacked along the rank, weighted per frame in between."""

    def __init__(self, down: Tensor, up: Tensor, shares: Tensor, rows: int | None) -> None:
        self.down, self.up, self.shares, self.rows = down, up, shares, rows  # shares: (F, r)

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        down, up = self.down.to(x), self.up.to(x)
        shares = self._shares_of(len(x)).to(x)
        if isinstance(layer, nn.Conv2d):
            hidden = conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            return output + conv2d(hidden * shares[:, :, None, None], up)
        hidden = linear(x, down)  # (B, ..., r)
        return output + linear(hidden * shares.reshape(len(x), *[1] * (x.ndim - 2), -1), up)

    def _shares_of(self, seen: int) -> Tensor:
        """(seen, r), the shares of the rows that a layer sees."""
        frames, rows = len(self.shares), self.rows or seen
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
        return self.shares.repeat(rows // frames, 1).repeat_interleave(seen // rows, dim=0)


def _frame_update(
    layer: nn.Module, start: LowRank | None, end: LowRank | None, alphas: Alphas, blend: str, rows: int | None
) -> _FrameUpdate:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    alpha = torch.tensor(alphas, dtype=torch.float32)
    weighted = [(update, share) for update, share in ((start, 1 - alpha), (end, alpha)) if update is not None]
    for update, _ in weighted:
        check_shapes(layer, update)
    downs, ups, shares = [], [], []
    for down_of, up_of, share in _terms(weighted, blend):
        down, up = (_stackable(part.to(weight.device)) for part in (down_of.down, up_of.up))
        if weight.ndim == 2:
            down, up = down.flatten(1), up.flatten(1)
        downs.append(down)
        ups.append(up)
        shares.append((share * up_of.scale)[:, None].expand(-1, up_of.rank))
    return _FrameUpdate(torch.cat(downs), torch.cat(ups, dim=1), torch.cat(shares, dim=1), rows)


def _stackable(part: Tensor) -> Tensor:
    """In a type that others can be joined to, which PyTorch's types of 8 bits are not."""
    return part.float() if part.element_size() == 1 else part


def _terms(weighted: list[tuple[LowRank, Tensor]], blend: str) -> list[tuple[LowRank, LowRank, Tensor]]:
    """The products whose sum is the blend: (whose A, whose B, share of each frame (F,))."""
    if blend == "delta":
        return [(update, update, share) for update, share in weighted]
    ranks = {update.rank for update, _ in weighted}
    if len(ranks) > 1:
        raise InvalidInput(
            f"the factors of LoRAs of ranks {' and '.join(map(str, sorted(ranks)))} cannot be blended; fit both with "
            "one rank, or blend 'delta'"
        )
    return [(a, b, share_a * share_b) for (a, share_a), (b, share_b) in product(weighted, weighted)]


def check_blend(blend: str) -> None:
    """Raise `InvalidInput` unless `blend` is one of `BLENDS`."""
    if blend not in BLENDS:
        raise InvalidInput(f"the LoRA blend must be one of {', '.join(BLENDS)}; got {blend!r}")


def check_shapes(layer: nn.Module, update: LowRank) -> None:
    """Raise `InvalidInput` when an update's shapes are not those of the layer."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    out, *inner = weight.shape
    down, up = list(update.down.shape), list(update.up.shape)
    fitting = [([update.rank, *inner], [out, update.rank] + [1, 1] * (len(inner) > 1))]
    if len(inner) == 1:  # a Linear's matrices may also be written as 1×1 convolutions
        fitting.append(([update.rank, *inner, 1, 1], [out, update.rank, 1, 1]))
    if (down, up) not in fitting:
        raise InvalidInput(
            f"a LoRA layer of shapes {tuple(update.up.shape)} and {tuple(update.down.shape)} does not fit a weight of "
            f"shape {tuple(weight.shape)}; use a LoRA that was fitted on this model"
        )
