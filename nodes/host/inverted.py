"""Inputs and outputs that are inverted latents, as LATENT or as NOISE: what comes in decides what goes out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...morph_core.errors import InvalidInput
from .adapters import latent_batch
from .noise import InvertedNoise

Outputs = Callable[[Tensor], io.NodeOutput]
"""From latents (B, C, ...) to a node's two outputs, LATENT and NOISE; one of them blocks, and says why."""


def inverted_input(name: str, tooltip: str) -> Any:
    """An input for either."""
    return io.MultiType.Input(io.Latent.Input(name, tooltip=tooltip), types=[io.Noise])


def inverted_outputs(noun: str) -> list[Any]:
    """The two outputs. noun: what they are, for tooltips."""
    return [
        io.Latent.Output("latent", display_name="LATENT", tooltip=f"{noun}, where LATENTs came in."),
        io.Noise.Output("noise", display_name="NOISE", tooltip=f"{noun}, where NOISE came in."),
    ]


def inverted_values(node: str, **values: Any) -> tuple[list[Tensor], Outputs]:
    """The latents of the inputs, which must all be LATENTs or all NOISE of one level, and what to make of others.

    node: display name. values: of the inputs, by their names; what else the first LATENT holds is passed on.
    """
    noises = [value for value in values.values() if isinstance(value, InvertedNoise)]
    if not noises:
        samples = [latent_batch(value, name) for name, value in values.items()]
        first = next(iter(values.values()))
        why = f"{node}: its inputs are LATENTs; for NOISE connect DDIM Invert's NOISE to them"
        return samples, lambda x: io.NodeOutput({**first, "samples": x}, ExecutionBlocker(why))
    if len(noises) < len(values):
        names = ", ".join(name for name, value in values.items() if not isinstance(value, InvertedNoise))
        raise InvalidInput(f"{names} is no NOISE but the others are; connect LATENT to all, or NOISE to all")
    levels = [float(noise.sigma) for noise in noises]
    if max(levels) - min(levels) > 1e-4 * max(levels):
        raise InvalidInput(
            f"the NOISE inputs are of different noise levels, {levels}; invert all with the same settings"
        )
    why = f"{node}: its inputs are NOISE; connect its NOISE to SamplerCustomAdvanced, over an empty latent"
    return [noise.x for noise in noises], lambda x: io.NodeOutput(ExecutionBlocker(why), replace(noises[0], x=x))
