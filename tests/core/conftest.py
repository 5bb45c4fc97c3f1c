"""Shared by the core's tests: published numbers, small real UNets with random weights, LoRAs and their merging.

The UNets are untrained: every statement tested here is about arithmetic, which holds for any weights.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

torch.set_num_threads(1)  # the networks are so small that more threads only cost time

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture(scope="session")
def published() -> dict[str, Tensor]:
    """Outputs of the published implementations on fixed inputs."""
    from safetensors.torch import load_file

    return load_file(Path(__file__).parent / "golden" / "published.safetensors")


@pytest.fixture
def make_unet() -> Callable[..., Any]:
    """A frozen UNet of three 32-channel levels, all with attention; arguments replace `UNet2DConditionModel`'s."""

    def make(seed: int = 0, **overrides: Any) -> Any:
        from diffusers import UNet2DConditionModel

        config = {
            "sample_size": 8,
            "block_out_channels": (32, 32, 32),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3,
            "up_block_types": ("CrossAttnUpBlock2D",) * 3,
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "attention_head_dim": 4,
            "norm_num_groups": 8,  # a group for every channel would cancel the timestep's influence
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return UNet2DConditionModel(**{**config, **overrides}).eval().requires_grad_(False)

    return make


@pytest.fixture
def unet(make_unet: Callable[..., Any]) -> Any:
    return make_unet()


@pytest.fixture
def small_unet(make_unet: Callable[..., Any]) -> Any:
    """As `unet`, of one level: for what takes many steps."""
    return make_unet(
        block_out_channels=(32,), down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",)
    )


@pytest.fixture
def random_lora() -> Callable[..., dict[str, Tensor]]:
    """A LoRA with random, far from small weights, under kohya's names, on the layers whose names end as told."""

    def make(
        unet: nn.Module, seed: int, rank: int = 4, endings: Iterable[str] = ATTENTION, alpha: float | None = None
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for path, module in unet.named_modules():
            if not path.endswith(tuple(endings)):
                continue
            out, *inner = module.weight.shape
            name = "lora_unet_" + path.replace(".", "_")
            fan_in = module.weight[0].numel()
            weights[f"{name}.lora_down.weight"] = torch.randn(rank, *inner, generator=generator) / fan_in**0.5
            weights[f"{name}.lora_up.weight"] = torch.randn(out, rank, *[1] * (len(inner) - 1), generator=generator) / 4
            if alpha is not None:
                weights[f"{name}.alpha"] = torch.tensor(alpha)
        assert weights, f"no layer ends with one of {endings}"
        return weights

    return make


@pytest.fixture
def merged() -> Callable[..., Any]:
    """A copy of the UNet with W + share·(alpha/r)·up·down in the place of W, for each (LoRA, share) in turn."""

    def merge(unet: nn.Module, *loras: tuple[Mapping[str, Tensor], float]) -> Any:
        clone = copy.deepcopy(unet)
        for path, module in clone.named_modules():
            name = "lora_unet_" + path.replace(".", "_")
            for weights, share in loras:
                if f"{name}.lora_down.weight" in weights:
                    down, up = weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"]
                    scale = float(weights.get(f"{name}.alpha", torch.tensor(float(len(down))))) / len(down)
                    update = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
                    module.weight.data += share * scale * update
        return clone

    return merge
