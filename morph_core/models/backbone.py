"""What the methods need of a denoising network, whoever built it; and diffusers' UNets in that form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..denoise import Denoise, Prediction, unet_denoiser
from ..errors import InvalidInput
from ..sampling.schedule import sigmas_of

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

ATTENTION_PROJECTIONS = (".to_q", ".to_k", ".to_v", ".to_out.0")


@dataclass(frozen=True)
class Text:
    """What a network is told: context, the text embeddings (B or 1, T, D), and what else it is called with.

    added: for a diffusers UNet keyword arguments, as SDXL's `added_cond_kwargs`; another backbone has other names.
    """

    context: Tensor
    added: Mapping[str, Any] = field(default_factory=dict)


class Backbone(Protocol):
    """A frozen network, its noise schedule and the layers that methods act on."""

    @property
    def network(self) -> nn.Module:
        """Whose parameters are the weights."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; latents and estimates are float32 all the same."""

    @property
    def sigmas(self) -> Tensor:
        """(T,) of the training timesteps, rising."""

    def denoiser(self, text: Text) -> Denoise:
        """The network, told this, as a `Denoise`."""

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """A latent with noise of this level: what `denoiser` takes; x0 and noise (B, C, H, W) of unit variance."""

    def error_scale(self, sigma: Tensor) -> Tensor:
        """By how much an error of the network's own output is greater than that of its estimate of x0."""

    def attention_projections(self) -> dict[str, nn.Linear]:
        """The layers that make queries, keys, values and outputs, by the paths that LoRA files name them by."""

    def up_blocks(self) -> Sequence[nn.Module]:
        """Of a UNet's decoder, the coarsest first."""

    def enable_gradient_checkpointing(self) -> None:
        """Keep less of what gradients need, and compute it twice."""


class UnetBackbone:
    """A diffusers `UNet2DConditionModel`. train_alphas: (T,) ᾱ of the training timesteps, falling."""

    def __init__(self, unet: "UNet2DConditionModel", train_alphas: Tensor, prediction: Prediction = "epsilon") -> None:
        self.network, self.prediction = unet, prediction
        self.sigmas = sigmas_of(train_alphas).to(unet.device)

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype  # type: ignore[no-any-return]

    def denoiser(self, text: Text) -> Denoise:
        return unet_denoiser(self.network, text.context, self.sigmas, self.prediction, text.added)

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return x0 + sigma * noise

    def error_scale(self, sigma: Tensor) -> Tensor:
        return 1 / sigma if self.prediction == "epsilon" else (sigma**2 + 1) ** 0.5 / sigma

    def attention_projections(self) -> dict[str, nn.Linear]:
        if getattr(self.network, "peft_config", None):
            raise InvalidInput("the UNet carries an adapter already; fuse or unload it before fitting a LoRA")
        return {path: layer for path, layer in self.network.named_modules() if path.endswith(ATTENTION_PROJECTIONS)}

    def up_blocks(self) -> Sequence[nn.Module]:
        return list(self.network.up_blocks)

    def enable_gradient_checkpointing(self) -> None:
        self.network.train().enable_gradient_checkpointing()  # training mode, which changes nothing else: no dropout
