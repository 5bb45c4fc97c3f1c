"""Writes checkpoints in the single-file formats of Stable Diffusion 1.5, 2.1 and XL, with seeded random weights.

    path = write_checkpoint(tmp_path / "sdxl.safetensors", "sdxl")   # a small UNet that ComfyUI takes for SDXL's
    python tests/checkpoints.py FOLDER [--full] [family ...]         # one file a family; FOLDER is made

ComfyUI's Load Checkpoint reads them as it reads the published files: a genuine MODEL, CLIP and VAE, whose outputs are
finite, of order 1, and noise. `full` files have the published shapes throughout. The others have a UNet of fewer or
narrower levels, as small as ComfyUI still recognises; their text encoders and VAE are of full size.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

FAMILIES = ("sd15", "sd21_base", "sd21_768", "sdxl")  # sd21_base predicts epsilon, sd21_768 v

Shapes = dict[str, tuple[int, ...]]  # by tensor name

RESIDUAL_BLOCKS = 2  # in a level, on the way in
VAE_WIDTHS = (128, 256, 512, 512)
VOCABULARY, TOKENS = 49408, 77
POSITION_IDS = "position_ids"
V_PREDICTION_MARK = "output_blocks.11.1.transformer_blocks.0.norm1.bias"  # ComfyUI reads the prediction off its spread
PIECE = 1 << 14  # values drawn at a time, in float32: what a cache holds


@dataclass(frozen=True)
class _UNet:
    widths: tuple[int, ...]  # of the levels, outermost first
    depths: tuple[int, ...]  # transformer blocks of each attention in a level; the middle has the most
    context: int
    linear: bool  # the projections around the transformers are matrices, not convolutions
    vector: int = 0  # width of the pooled text and sizes


_SD1 = _UNet((320, 640, 1280, 1280), (1, 1, 1, 0), context=768, linear=False)
_SD2 = _UNet((320, 640, 1280, 1280), (1, 1, 1, 0), context=1024, linear=True)
_SDXL = _UNet((320, 640, 1280), (0, 2, 10), context=2048, linear=True, vector=2816)
_SMALL_SD2 = _UNet((320, 320, 320, 320), (1, 1, 1, 0), context=1024, linear=True)

FULL_UNETS = {"sd15": _SD1, "sd21_base": _SD2, "sd21_768": _SD2, "sdxl": _SDXL}
SMALL_UNETS = {
    "sd15": _UNet((320, 320, 640), (1, 1, 0), context=768, linear=False),
    "sd21_base": _SMALL_SD2,
    "sd21_768": _SMALL_SD2,
    "sdxl": _UNet((320, 320, 320), (0, 2, 10), context=2048, linear=True, vector=2816),
}


def write_checkpoint(
    path: Path,
    family: str,
    full: bool = False,
    dtype: torch.dtype = torch.float16,
    text_encoders: bool = True,
    inpainting: bool = False,
) -> Path:
    """Write a checkpoint of one of FAMILIES to `path`, and return it; the same arguments give the same weights.

    text_encoders: False leaves them out, and ComfyUI gives no CLIP.
    inpainting: a UNet that takes a mask and a masked latent too.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in tensor_shapes(family, full, text_encoders, inpainting).items():
        if name.endswith(POSITION_IDS):
            tensors[name] = torch.arange(TOKENS)[None]
        else:
            mean, std = _distribution(name, shape, v_prediction=family == "sd21_768")
            tensors[name] = drawn(shape, mean, std, dtype, generator)
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def tensor_shapes(family: str, full: bool = False, text_encoders: bool = True, inpainting: bool = False) -> Shapes:
    """What `write_checkpoint` would write, without weights."""
    unet = (FULL_UNETS if full else SMALL_UNETS)[family]
    shapes = prefixed("model.diffusion_model.", _unet(unet, in_channels=9 if inpainting else 4))
    shapes |= prefixed("first_stage_model.", vae())
    return shapes | _text_encoders(family) if text_encoders else shapes


def _text_encoders(family: str) -> Shapes:
    if family == "sd15":
        return prefixed("cond_stage_model.transformer.text_model.", _clip(768, layers=12))
    if family == "sdxl":
        clip = prefixed("conditioner.embedders.0.transformer.text_model.", _clip(768, layers=12))
        return clip | prefixed("conditioner.embedders.1.model.", _open_clip(1280, layers=32))
    return prefixed("cond_stage_model.model.", _open_clip(1024, layers=24))


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def affine(name: str, *shape: int, bias: bool = True) -> Shapes:
    """A norm, a matrix or a convolution, by the number of its weight's dimensions."""
    weight = {f"{name}.weight": shape}
    return weight | {f"{name}.bias": shape[:1]} if bias else weight


def _unet(unet: _UNet, in_channels: int) -> Shapes:
    first, embedding = unet.widths[0], 4 * unet.widths[0]
    shapes = affine("time_embed.0", embedding, first) | affine("time_embed.2", embedding, embedding)
    if unet.vector:
        shapes |= affine("label_emb.0.0", embedding, unet.vector) | affine("label_emb.0.2", embedding, embedding)

    shapes |= affine("input_blocks.0.0", first, in_channels, 3, 3)
    skips = [first]
    for level, (width, depth) in enumerate(zip(unet.widths, unet.depths, strict=True)):
        if level:
            shapes |= affine(f"input_blocks.{len(skips)}.0.op", skips[-1], skips[-1], 3, 3)
            skips.append(skips[-1])
        for _ in range(RESIDUAL_BLOCKS):
            shapes |= _unet_block(f"input_blocks.{len(skips)}", skips[-1], width, depth, unet)
            skips.append(width)

    current, deepest = skips[-1], max(unet.depths)
    shapes |= _unet_block("middle_block", current, current, deepest, unet)
    shapes |= _unet_residual("middle_block.2", current, current, embedding)

    block = 0
    for level, (width, depth) in reversed(list(enumerate(zip(unet.widths, unet.depths, strict=True)))):
        for _ in range(RESIDUAL_BLOCKS + 1):
            shapes |= _unet_block(f"output_blocks.{block}", current + skips.pop(), width, depth, unet)
            current = width
            block += 1
        if level:
            shapes |= affine(f"output_blocks.{block - 1}.{2 if depth else 1}.conv", width, width, 3, 3)
    return shapes | affine("out.0", first) | affine("out.2", 4, first, 3, 3)


def _unet_block(name: str, came: int, width: int, depth: int, unet: _UNet) -> Shapes:
    """A residual block and, where the level has attention, its transformer."""
    shapes = _unet_residual(f"{name}.0", came, width, 4 * unet.widths[0])
    return shapes | _transformer(f"{name}.1", width, depth, unet) if depth else shapes


def _unet_residual(name: str, came: int, width: int, embedding: int) -> Shapes:
    shapes = affine(f"{name}.in_layers.0", came) | affine(f"{name}.in_layers.2", width, came, 3, 3)
    shapes |= affine(f"{name}.emb_layers.1", width, embedding)
    shapes |= affine(f"{name}.out_layers.0", width) | affine(f"{name}.out_layers.3", width, width, 3, 3)
    return shapes if came == width else shapes | affine(f"{name}.skip_connection", width, came, 1, 1)


def _transformer(name: str, width: int, depth: int, unet: _UNet) -> Shapes:
    projection = (width, width) if unet.linear else (width, width, 1, 1)
    shapes = affine(f"{name}.norm", width) | affine(f"{name}.proj_in", *projection)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, context in (("attn1", width), ("attn2", unet.context)):
            shapes |= affine(f"{block}.{attention}.to_q", width, width, bias=False)
            shapes |= affine(f"{block}.{attention}.to_k", width, context, bias=False)
            shapes |= affine(f"{block}.{attention}.to_v", width, context, bias=False)
            shapes |= affine(f"{block}.{attention}.to_out.0", width, width)
        shapes |= affine(f"{block}.ff.net.0.proj", 8 * width, width) | affine(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= affine(f"{block}.{norm}", width)
    return shapes | affine(f"{name}.proj_out", *projection)


def vae(channels: int = 4, quantised: bool = True) -> Shapes:
    """channels: of the latents. quantised: with the projections around them that newer families have left out."""
    inner, outer, last = VAE_WIDTHS[-1], VAE_WIDTHS[0], len(VAE_WIDTHS) - 1

    shapes = affine("encoder.conv_in", outer, 3, 3, 3)
    current = outer
    for level, width in enumerate(VAE_WIDTHS):
        for index in range(RESIDUAL_BLOCKS):
            shapes |= _vae_residual(f"encoder.down.{level}.block.{index}", current, width)
            current = width
        if level < last:
            shapes |= affine(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    shapes |= _vae_middle("encoder.mid", inner)
    shapes |= affine("encoder.norm_out", inner) | affine("encoder.conv_out", 2 * channels, inner, 3, 3)

    shapes |= affine("decoder.conv_in", inner, channels, 3, 3) | _vae_middle("decoder.mid", inner)
    for level, width in reversed(list(enumerate(VAE_WIDTHS))):
        for index in range(RESIDUAL_BLOCKS + 1):
            shapes |= _vae_residual(f"decoder.up.{level}.block.{index}", current, width)
            current = width
        if level:
            shapes |= affine(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    shapes |= affine("decoder.norm_out", outer) | affine("decoder.conv_out", 3, outer, 3, 3)
    if not quantised:
        return shapes
    shapes |= affine("quant_conv", 2 * channels, 2 * channels, 1, 1)
    return shapes | affine("post_quant_conv", channels, channels, 1, 1)


def _vae_residual(name: str, came: int, width: int) -> Shapes:
    shapes = affine(f"{name}.norm1", came) | affine(f"{name}.conv1", width, came, 3, 3)
    shapes |= affine(f"{name}.norm2", width) | affine(f"{name}.conv2", width, width, 3, 3)
    return shapes if came == width else shapes | affine(f"{name}.nin_shortcut", width, came, 1, 1)


def _vae_middle(name: str, width: int) -> Shapes:
    shapes = _vae_residual(f"{name}.block_1", width, width) | _vae_residual(f"{name}.block_2", width, width)
    for projection in ("q", "k", "v", "proj_out"):
        shapes |= affine(f"{name}.attn_1.{projection}", width, width, 1, 1)
    return shapes | affine(f"{name}.attn_1.norm", width)


def _clip(width: int, layers: int) -> Shapes:
    """A text encoder in the names of transformers."""
    shapes: Shapes = {f"embeddings.{POSITION_IDS}": (1, TOKENS)}
    shapes |= affine("embeddings.token_embedding", VOCABULARY, width, bias=False)
    shapes |= affine("embeddings.position_embedding", TOKENS, width, bias=False)
    for index in range(layers):
        layer = f"encoder.layers.{index}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= affine(f"{layer}.self_attn.{projection}", width, width)
        shapes |= affine(f"{layer}.mlp.fc1", 4 * width, width) | affine(f"{layer}.mlp.fc2", width, 4 * width)
        shapes |= affine(f"{layer}.layer_norm1", width) | affine(f"{layer}.layer_norm2", width)
    return shapes | affine("final_layer_norm", width)


def _open_clip(width: int, layers: int) -> Shapes:
    """A text encoder in the names of OpenCLIP."""
    shapes: Shapes = {"positional_embedding": (TOKENS, width), "text_projection": (width, width), "logit_scale": ()}
    shapes |= affine("token_embedding", VOCABULARY, width, bias=False)
    for index in range(layers):
        layer = f"transformer.resblocks.{index}"
        shapes |= {f"{layer}.attn.in_proj_weight": (3 * width, width), f"{layer}.attn.in_proj_bias": (3 * width,)}
        shapes |= affine(f"{layer}.attn.out_proj", width, width)
        shapes |= affine(f"{layer}.mlp.c_fc", 4 * width, width) | affine(f"{layer}.mlp.c_proj", width, 4 * width)
        shapes |= affine(f"{layer}.ln_1", width) | affine(f"{layer}.ln_2", width)
    return shapes | affine("ln_final", width)


def _distribution(name: str, shape: tuple[int, ...], v_prediction: bool) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's weights, by its role: what goes through keeps its size."""
    if not shape:
        return math.log(100), 0.0  # logit_scale, which CLIP is trained to
    if len(shape) > 1:
        return 0.0, 0.02 if "embedding" in name else math.prod(shape[1:]) ** -0.5
    if name.endswith(V_PREDICTION_MARK):
        return 0.0, 0.2 if v_prediction else 0.05
    return (0.0, 0.05) if name.endswith("bias") else (1.0, 0.1)


def drawn(shape: tuple[int, ...], mean: float, std: float, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Weights drawn uniformly: the values do not depend on `dtype`, but for rounding."""
    tensor = torch.empty(shape, dtype=dtype)
    reach = 3**0.5 * std
    for piece in tensor.view(-1).split(PIECE):
        piece.copy_(torch.empty(len(piece)).uniform_(mean - reach, mean + reach, generator=generator))
    return tensor


def main() -> None:
    parser = argparse.ArgumentParser(description="Write checkpoints with random weights, one file a family.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "families", nargs="*", metavar="family", help=f"of {', '.join(FAMILIES)}; all when none is given"
    )
    parser.add_argument("--full", action="store_true", help="UNets of the published size")
    arguments = parser.parse_intermixed_args()  # --full may stand between the folder and the families
    if unknown := set(arguments.families) - set(FAMILIES):
        parser.error(f"unknown family {', '.join(sorted(unknown))}; expected {', '.join(FAMILIES)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for family in arguments.families or FAMILIES:
        name = f"{family}_full" if arguments.full else family
        write_checkpoint(arguments.folder / f"{name}.safetensors", family, arguments.full)


if __name__ == "__main__":
    main()
