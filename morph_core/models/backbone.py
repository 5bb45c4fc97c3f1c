"""What methods need of a denoising network, whoever built it."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from ..denoise import Denoise
from ..sampling.schedule import NoiseSchedule, SamplingSchedule
from .layers import AttentionLayer
from .text import Text


class Backbone(Protocol):
    """A frozen network, its noise schedule and the layers that fitting and dragging act on."""

    @property
    def network(self) -> nn.Module:
        """Whose parameters are the weights."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; latents and estimates are float32 all the same."""

    @property
    def schedule(self) -> NoiseSchedule:
        """How its training added noise."""

    def denoiser(self, text: Text) -> Denoise:
        """The network with this text, as a `Denoise`."""

    def attention_projections(self) -> dict[str, nn.Linear]:
        """The layers that make queries, keys, values and outputs, by the paths that LoRA files name them by."""

    def up_blocks(self) -> Sequence[nn.Module]:
        """Of a UNet's decoder, the coarsest first."""

    def enable_gradient_checkpointing(self) -> None:
        """Keep less of what gradients need, and compute it twice."""


class EditableBackbone(Backbone, Protocol):
    """A backbone of the library: its attention can be edited while it runs, and it says at which sigmas to sample."""

    @property
    def schedule(self) -> SamplingSchedule:
        """How its training added noise."""

    def attention_layers(self) -> Sequence[AttentionLayer]:
        """In the order in which the network has them."""
