"""Fitting a LoRA to one image, so that a diffusion model knows that image (DiffMorpher 3.1, DragDiffusion 3.2)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..denoise import OnStep
from ..errors import InvalidInput
from ..models.backbone import Backbone
from ..models.text import Text
from ..packages import check_version, numbers
from .low_rank import PREFIX, LoraWeights

FUSED_ON_THE_CPU = [2, 4]  # PyTorch's version


@dataclass(frozen=True)
class LoraFit:
    """How to fit. Defaults are DiffMorpher's; DragDiffusion uses 80 steps at 5e-4."""

    rank: int = 16
    steps: int = 200
    learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "learning_rate"):
            if getattr(self, name) <= 0:
                raise InvalidInput(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class FittedLora:
    """weights: see `lora`. losses: one float a step."""

    weights: LoraWeights
    losses: list[float]


def fit_lora(
    backbone: Backbone, latent: Tensor, text: Text, config: LoraFit | None = None, on_step: OnStep | None = None
) -> FittedLora:
    """Train a LoRA on all attention projections to predict the noise in one latent; the network stays as it was.

    latent: (1, C, H, W), scaled. text: of one prompt. Noise and timestep are drawn anew each step from `config.seed`.
    The loss is the mean square error of the network's own output, whatever it predicts. The network computes in its
    own type, as where it is sampled; LoRA and optimiser are float32 whatever that is. The loss of a float16 network is
    scaled, so that small gradients survive (Micikevicius et al. 2018). Raises `InvalidInput` for a batch and when the
    loss is not finite.
    """
    check_version("torch")
    config = config or LoraFit()
    if len(latent) != 1:
        raise InvalidInput(f"a LoRA is fitted to one image, got a batch of {len(latent)}")
    generator = torch.Generator().manual_seed(config.seed)
    x0, schedule, dtype = latent.float(), backbone.schedule, backbone.dtype
    sigmas = schedule.sigmas.to(latent.device)
    denoise = backbone.denoiser(text)
    losses = []
    with trainable_lora(backbone, config) as updates:
        optimiser = _adamw([matrix for update in updates.values() for matrix in (update.down, update.up)], config)
        scaler = torch.amp.GradScaler(x0.device.type, enabled=dtype == torch.float16)
        for step in range(config.steps):
            noise = torch.randn(x0.shape, generator=generator).to(x0.device)
            sigma = sigmas[int(torch.randint(len(sigmas), (1,), generator=generator))]
            estimate = denoise(schedule.noised(x0, noise, sigma), sigma)
            loss = ((estimate.float() - x0) * schedule.error_scale(sigma)).square().mean()
            optimiser.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            losses.append(loss.item())  # the one time in a step that a GPU is waited for
            if not math.isfinite(losses[-1]):
                raise InvalidInput(_why_not_finite(step, dtype))
            if on_step:
                on_step(step + 1, config.steps)
        return FittedLora(_named_weights(updates, config.rank), losses)


class LayerUpdate:
    """up·down in float32, to be added to what a frozen linear layer computes; 0 at first, as `up` is."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        down = nn.Linear(layer.in_features, rank, bias=False)  # on the CPU
        up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.normal_(down.weight, std=1 / rank)
        nn.init.zeros_(up.weight)
        self.down, self.up = (matrix.to(layer.weight.device).weight for matrix in (down, up))

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook: the layer's output, updated. Queries, keys and values keep one input for their gradients."""
        x = inputs[0]
        return output + linear(linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))


def _adamw(matrices: Sequence[Tensor], config: LoraFit) -> torch.optim.AdamW:
    """In one kernel for all matrices where PyTorch has it: a loop over them is a twentieth of a small fit's time."""
    kind = matrices[0].device.type
    fused = kind == "cuda" or kind == "cpu" and numbers(torch.__version__) >= FUSED_ON_THE_CPU
    return torch.optim.AdamW(
        matrices, config.learning_rate, weight_decay=config.weight_decay, fused=True if fused else None
    )


def _why_not_finite(updates: int, dtype: torch.dtype) -> str:
    precision = "" if dtype == torch.float32 else " or use float32"
    if updates:
        return f"the fit is not finite after {updates} updates: lower learning_rate{precision}"
    return (
        f"the model's output is not finite in {dtype} before the first update: check the model, its prompt and the "
        f"latent{precision}"
    )


@contextmanager
def trainable_lora(backbone: Backbone, config: LoraFit) -> Iterator[dict[str, LayerUpdate]]:
    """A fresh LoRA beside the network's attention projections, by their paths; gone on the way out.

    Its matrices are what PEFT's are for `init_lora_weights="gaussian"`, and alone need gradients meanwhile.
    """
    projections, network = backbone.attention_projections(), backbone.network
    needed_grad = [parameter for parameter in network.parameters() if parameter.requires_grad]
    hooks = []
    network.requires_grad_(False)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # the matrices are made on the CPU
            updates = {path: LayerUpdate(layer, config.rank) for path, layer in projections.items()}
        for path, layer in projections.items():
            hooks.append(layer.register_forward_hook(updates[path]))
        yield updates
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in needed_grad:
            parameter.requires_grad_(True)


def _named_weights(updates: Mapping[str, LayerUpdate], rank: int) -> LoraWeights:
    """The matrices under kohya's names, on the CPU."""
    weights: LoraWeights = {}
    for path, update in updates.items():
        name = PREFIX + path.replace(".", "_")
        weights[f"{name}.lora_down.weight"] = update.down.detach().cpu().clone()
        weights[f"{name}.lora_up.weight"] = update.up.detach().cpu().clone()
        weights[f"{name}.alpha"] = torch.tensor(float(rank))
    return weights
