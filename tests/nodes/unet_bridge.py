"""A UNet in the layout of the original Stable Diffusion code as a diffusers UNet on the very same memory.

An oracle for what the nodes compute with ComfyUI's own network.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.nodes.host.shadow import ordinary_alias

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def diffusers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`UNet2DConditionModel`'s arguments for an original-layout UNet configuration.

    config: `in_channels`, `out_channels`, `model_channels`, `channel_mult`, `num_res_blocks`, `transformer_depth` and
    `transformer_depth_output` (one entry a residual block, from the outermost level in), `transformer_depth_middle`,
    `context_dim`, `use_linear_in_transformer`, `num_heads` or `num_head_channels`, and, of UNets that take a vector
    beside the text as SDXL's do, its width `adm_in_channels`: the diffusers UNet takes it whole, as `class_labels`.
    Raises `UnsupportedModel` for inpainting UNets and for pruned ones, whose depths differ within a level.
    """
    widths = [config["model_channels"] * m for m in config["channel_mult"]]
    depth = _depth_of_levels(config)
    middle = config["transformer_depth_middle"]
    head_width = config.get("num_head_channels", -1)
    heads = [width // head_width if head_width > 0 else config["num_heads"] for width in widths]
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "block_out_channels": tuple(widths),
        "layers_per_block": config["num_res_blocks"][0],
        "cross_attention_dim": config["context_dim"],
        "attention_head_dim": tuple(heads),  # diffusers' name for the number of heads
        "transformer_layers_per_block": tuple(d or middle for d in depth),  # the last one's is the middle block's too
        "use_linear_projection": config["use_linear_in_transformer"],
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depth),
        "up_block_types": tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depth)),
        "class_embed_type": "projection" if config.get("adm_in_channels") else None,
        "projection_class_embeddings_input_dim": config.get("adm_in_channels"),
    }


def _depth_of_levels(config: Mapping[str, Any]) -> list[int]:
    """Transformer blocks in a residual block of each level, outermost first."""
    if config["in_channels"] != config["out_channels"]:
        raise UnsupportedModel(
            f"the model takes {config['in_channels']} channels and returns {config['out_channels']}: an inpainting or "
            "instruction model; load a text-to-image checkpoint"
        )
    levels, blocks = len(config["channel_mult"]), config["num_res_blocks"][0]
    depth = config["transformer_depth"][::blocks]
    whole = {
        "num_res_blocks": [blocks] * levels,
        "transformer_depth": [d for d in depth for _ in range(blocks)],
        "transformer_depth_middle": depth[-1] or max(1, config["transformer_depth_middle"]),
        "transformer_depth_output": [d for d in depth for _ in range(blocks + 1)],
    }
    for name, expected in whole.items():
        if config[name] != expected:
            raise UnsupportedModel(
                f"the model's {name} is {config[name]}, expected {expected}: a pruned UNet (such as SSD-1B); load an "
                "SD 1.x, 2.x or SDXL checkpoint"
            )
    return list(depth)


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
        raise UnsupportedModel(f"the model has weights that an SD 1.x, 2.x or SDXL UNet has not, such as {min(unused)}")
    unet.load_state_dict(aliases, assign=True)
    return unet.requires_grad_(False).eval()
