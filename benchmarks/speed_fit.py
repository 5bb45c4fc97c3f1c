"""What an update of a LoRA costs beside the same written by hand: in time, and in what is kept for the backward pass.

What is written by hand is the published way, that of diffusers' LoRA attention processors: a forward and a backward
pass in which every projection adds up·down of its input to its output. It draws no noise and has no optimiser.
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from benchmarks.speed_networks import Place, place, saved_bytes, seconds
from morph_core.lora.fit import LoraFit, fit_lora

RANK = LoraFit().rank


def rows(network: str, repeats: int, units: int) -> list[list[str]]:
    """Work; its time and what it keeps for the backward pass, in relation to what is written by hand.

    repeats: rounds in which both run, one after the other. units: updates a round. bfloat16 is set beside the published
    way as it is trained, under autocast.
    """
    where = place(network)
    update_ratio(where, units)
    time = statistics.median(update_ratio(where, units) for _ in range(repeats))
    kept = kept_ratio(where)
    where.backbone.network.to(torch.bfloat16)
    return [
        ["an update of a LoRA", f"{time:.2f}", f"{kept:.2f}"],
        ["an update of a LoRA, bfloat16", "", f"{kept_ratio(where):.2f}"],
    ]


def update_ratio(where: Place, units: int) -> float:
    """Of the times of one update: what a fit begins with is left out."""
    begin = seconds(partial(fit, where, 1))
    return (seconds(partial(fit, where, 1 + units)) - begin) / seconds(partial(by_hand, where, units))


def fit(where: Place, steps: int) -> None:
    fit_lora(where.backbone, where.latent, where.text, LoraFit(rank=RANK, steps=steps))


def by_hand(where: Place, steps: int) -> None:
    """The network's own call, in sigma space as everywhere; of bfloat16 under autocast, as published."""
    schedule, unet, dtype = where.backbone.schedule, where.backbone.network, where.backbone.dtype
    sigma = schedule.sigmas[-1]
    noise = where.noise()
    scaled = (schedule.noised(where.latent, noise, sigma) / schedule.scale(sigma)).to(dtype)
    timestep, context = schedule.timestep(sigma), where.text.context.to(dtype)
    with added_by_hand(where.backbone.attention_projections()) as matrices:
        for _ in range(steps):
            with torch.autocast(noise.device.type, dtype, enabled=dtype != torch.float32):
                predicted = unet(scaled, timestep, context).sample
            (predicted.float() - noise).square().mean().backward()
            for matrix in matrices:
                matrix.grad = None


@contextmanager
def added_by_hand(projections: dict[str, nn.Linear]) -> Iterator[list[Tensor]]:
    """Within this context every projection adds up·down of its input; yields the matrices."""
    matrices = []
    try:
        for layer in projections.values():
            down = (torch.randn(RANK, layer.in_features) / RANK).to(layer.weight.device).requires_grad_()
            up = torch.zeros(layer.out_features, RANK, device=layer.weight.device, requires_grad=True)
            layer.forward = partial(updated, layer.weight, layer.bias, down, up)  # type: ignore[method-assign]
            matrices += [down, up]
        yield matrices
    finally:
        for layer in projections.values():
            layer.__dict__.pop("forward", None)


def updated(weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, x: Tensor) -> Tensor:
    return linear(x, weight, bias) + linear(linear(x, down), up)


def kept_ratio(where: Place) -> float:
    return saved_bytes(where, partial(fit, where, 1)) / saved_bytes(where, partial(by_hand, where, 1))
