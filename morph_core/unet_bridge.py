"""A UNet in the layout of the original Stable Diffusion code as a diffusers UNet on the very same memory.

Gradients through a host's own model object are not to be had where the host runs in inference mode; the alias
is an ordinary module. It is frozen, meant for one use, and ends with the host's weights: build it anew after
anything that may move them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import UnsupportedModel

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def diffusers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`UNet2DConditionModel`'s arguments for an original-layout UNet configuration.

    config: `in_channels`, `out_channels`, `model_channels`, `channel_mult`, `num_res_blocks`, `transformer_depth` (one
    entry a residual block), `context_dim`, `use_linear_in_transformer`, and `num_heads` or `num_head_channels`.
    Raises `UnsupportedModel` for UNets with other inputs than a latent, a timestep and text.
    """
    widths = [config["model_channels"] * m for m in config["channel_mult"]]
    blocks = config["num_res_blocks"]
    if len(set(blocks)) != 1 or config["in_channels"] != config["out_channels"] or config.get("adm_in_channels"):
        raise UnsupportedModel(
            "only text-to-image UNets of the SD 1.x and 2.x kind can be used here "
            f"(in_channels {config['in_channels']}, adm_in_channels {config.get('adm_in_channels')})"
        )
    depth = [config["transformer_depth"][level * blocks[0]] for level in range(len(widths))]
    head_width = config.get("num_head_channels", -1)
    heads = [width // head_width if head_width > 0 else config["num_heads"] for width in widths]
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": tuple(widths),
        "layers_per_block": blocks[0],
        "cross_attention_dim": config["context_dim"],
        "attention_head_dim": tuple(heads),  # diffusers' name for the number of heads
        "transformer_layers_per_block": tuple(d or 1 for d in depth),
        "use_linear_projection": config["use_linear_in_transformer"],
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depth),
        "up_block_types": tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depth)),
    }


def build_shared_unet(
    state: Mapping[str, Tensor], config: Mapping[str, Any], key_map: Mapping[str, str]
) -> "UNet2DConditionModel":
    """A frozen diffusers UNet whose parameters alias the tensors in `state`: nothing is copied.

    state: the original layout's tensors, on one device. config: see `diffusers_config`. key_map: diffusers'
    parameter name to the original's. Raises `UnsupportedModel` when a parameter has no counterpart of its shape.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**diffusers_config(config))
    aliases = {}
    for name, parameter in unet.state_dict().items():
        source = state.get(key_map.get(name, ""))
        if source is None or source.shape != parameter.shape:
            found = "missing" if source is None else f"of shape {tuple(source.shape)}"
            raise UnsupportedModel(f"the model's weight for {name} is {found}, expected {tuple(parameter.shape)}")
        aliases[name] = ordinary_alias(source)
    unused = set(state) - {key_map[name] for name in aliases}
    if unused:
        raise UnsupportedModel(f"the model has weights that an SD 1.x or 2.x UNet has not, such as {min(unused)}")
    unet.load_state_dict(aliases, assign=True)
    return unet.requires_grad_(False).eval()


def ordinary_alias(tensor: Tensor) -> Tensor:
    """A tensor on the same memory that autograd accepts even if `tensor` was made in inference mode."""
    with torch.inference_mode(False):
        alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
