"""Writes files in the single-file formats of the flow-matching transformers, with seeded random weights.

    path = write_flow_checkpoint(tmp_path / "flux.safetensors", "Flux.1")   # ComfyUI takes it for Flux.1 [dev]'s

Names, number formats and prefixes are those of the published files, and so are the shapes, as far as ComfyUI reads a
network's sizes off them: blocks are as few, widths as small as it still recognises. `narrow` is for ComfyUIs that read
the width of Flux.1 too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from morph_tests.checkpoints import Shapes, affine, drawn, prefixed, vae

LATENT, PATCH, FREQUENCIES = 16, 4, 256  # channels, cells of a token, what a timestep becomes
HEAD = 128  # width of an attention head
FLUX_WIDTH, NARROW_WIDTH = 3072, 2 * HEAD
QUIET = ("final_layer.linear.weight", "proj_out.weight")  # what goes out: small, so that fixed points are found soon
QUIET_GAIN = 0.1


@dataclass(frozen=True)
class FlowFile:
    """A family's published file. bundled: it is a checkpoint with a VAE, not a diffusion model alone."""

    shapes: Callable[[bool], Shapes]
    dtype: torch.dtype = torch.bfloat16
    bundled: bool = False


def write_flow_checkpoint(path: Path, family: str, narrow: bool = False) -> Path:
    """Write a file of one of FLOW_FILES to `path`, and return it; the same arguments give the same weights."""
    generator = torch.Generator().manual_seed(0)
    file = FLOW_FILES[family]
    shapes = file.shapes(narrow)
    if file.bundled:
        shapes = prefixed("model.diffusion_model.", shapes)
        shapes |= prefixed("first_stage_model.", vae(LATENT, quantised=False))
    tensors = {name: drawn(shape, *_distribution(name, shape), file.dtype, generator) for name, shape in shapes.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's weights, by its role: what goes through keeps its size."""
    if name.endswith(("pos_embed", "pad_token")):
        return 0.0, 0.5
    if len(shape) > 1:
        fan_in = torch.Size(shape[1:]).numel()
        return 0.0, (QUIET_GAIN if name.endswith(QUIET) else 1.0) * fan_in**-0.5
    return (0.0, 0.05) if name.endswith("bias") else (1.0, 0.1)


def _embedder(name: str, came: int, width: int, bias: bool = True) -> Shapes:
    return affine(f"{name}.in_layer", width, came, bias=bias) | affine(f"{name}.out_layer", width, width, bias=bias)


def _numbered_embedder(name: str, came: int, inner: int, width: int) -> Shapes:
    return affine(f"{name}.mlp.0", inner, came) | affine(f"{name}.mlp.2", width, inner)


def _flux_norms(name: str) -> Shapes:
    return {f"{name}.{part}_norm.scale": (HEAD,) for part in ("query", "key")}


def _flux_blocks(width: int, bias: bool = True, mlp: int = 4, gated: int = 1) -> Shapes:
    """One double and one single block. gated: 2 where half of what a block's MLP makes gates the other."""
    shapes: Shapes = {}
    for stream in ("img", "txt"):
        block = f"double_blocks.0.{stream}"
        shapes |= affine(f"{block}_attn.qkv", 3 * width, width, bias=bias) | _flux_norms(f"{block}_attn.norm")
        shapes |= affine(f"{block}_attn.proj", width, width, bias=bias)
        shapes |= affine(f"{block}_mlp.0", gated * mlp * width, width, bias=bias)
        shapes |= affine(f"{block}_mlp.2", width, mlp * width, bias=bias)
    shapes |= affine("single_blocks.0.linear1", (3 + gated * mlp) * width, width, bias=bias)
    shapes |= affine("single_blocks.0.linear2", width, (1 + mlp) * width, bias=bias)
    return shapes | _flux_norms("single_blocks.0.norm")


def _flux1(narrow: bool) -> Shapes:
    """Of Flux.1 [dev], guidance embedded."""
    width = NARROW_WIDTH if narrow else FLUX_WIDTH
    shapes = affine("img_in", width, PATCH * LATENT) | affine("txt_in", width, 4096) | _flux_blocks(width)
    for name, came in {"time_in": FREQUENCIES, "vector_in": 768, "guidance_in": FREQUENCIES}.items():
        shapes |= _embedder(name, came, width)
    for stream in ("img", "txt"):
        shapes |= affine(f"double_blocks.0.{stream}_mod.lin", 6 * width, width)
    shapes |= affine("single_blocks.0.modulation.lin", 3 * width, width)
    shapes |= affine("final_layer.linear", PATCH * LATENT, width)
    return shapes | affine("final_layer.adaLN_modulation.1", 2 * width, width)


def _flux2(narrow: bool) -> Shapes:
    """Of Flux.2 [dev]: one modulation for all blocks of a kind, no biases, latents of 128 channels."""
    width, latent = NARROW_WIDTH, 128
    shapes = _flux_blocks(width, bias=False, mlp=3, gated=2)
    matrices = {"img_in": (width, latent), "txt_in": (width, 15360), "final_layer.linear": (latent, width)}
    matrices["final_layer.adaLN_modulation.1"] = (2 * width, width)
    for stream in ("img", "txt"):
        matrices[f"double_stream_modulation_{stream}.lin"] = (6 * width, width)
    matrices["single_stream_modulation.lin"] = (3 * width, width)
    for name, shape in matrices.items():
        shapes |= affine(name, *shape, bias=False)
    for name in ("time_in", "guidance_in"):
        shapes |= _embedder(name, FREQUENCIES, width, bias=False)
    return shapes


def _chroma(narrow: bool) -> Shapes:
    """Flux.1's blocks, whose modulations one network makes."""
    width, hidden, layers = FLUX_WIDTH, 5120, 5
    shapes = affine("img_in", width, PATCH * LATENT) | affine("txt_in", width, 4096) | _flux_blocks(width)
    shapes |= affine("final_layer.linear", PATCH * LATENT, width)
    shapes |= affine("distilled_guidance_layer.in_proj", hidden, PATCH * LATENT)
    shapes |= affine("distilled_guidance_layer.out_proj", width, hidden)
    for index in range(layers):
        shapes |= _embedder(f"distilled_guidance_layer.layers.{index}", hidden, hidden)
        shapes |= {f"distilled_guidance_layer.norms.{index}.scale": (hidden,)}
    return shapes


def _sd35(narrow: bool) -> Shapes:
    """Of Stable Diffusion 3.5 Large, whose width says how many blocks there are."""
    depth = 2
    width, positions = 64 * depth, 192 * 192
    shapes: Shapes = {"pos_embed": (1, positions, width)}
    shapes |= affine("x_embedder.proj", width, LATENT, 2, 2) | affine("context_embedder", width, 4096)
    shapes |= _numbered_embedder("t_embedder", FREQUENCIES, width, width)
    shapes |= _numbered_embedder("y_embedder", 2048, width, width)
    for index in range(depth):
        for stream in ("context", "x"):
            shapes |= _sd35_block(f"joint_blocks.{index}.{stream}_block", width, stream == "x" or index + 1 < depth)
    shapes |= affine("final_layer.linear", PATCH * LATENT, width)
    return shapes | affine("final_layer.adaLN_modulation.1", 2 * width, width)


def _sd35_block(name: str, width: int, whole: bool) -> Shapes:
    """whole: False for the last of the text, of which only keys and values are needed."""
    shapes = affine(f"{name}.adaLN_modulation.1", (6 if whole else 2) * width, width)
    shapes |= affine(f"{name}.attn.qkv", 3 * width, width)
    shapes |= {f"{name}.attn.ln_{part}.weight": (64,) for part in ("q", "k")}
    if whole:
        shapes |= affine(f"{name}.attn.proj", width, width)
        shapes |= affine(f"{name}.mlp.fc1", 4 * width, width) | affine(f"{name}.mlp.fc2", width, 4 * width)
    return shapes


def _qwen(narrow: bool) -> Shapes:
    width, text, block = 3072, 3584, "transformer_blocks.0"
    shapes = affine("img_in", width, PATCH * LATENT) | affine("txt_in", width, text)
    shapes |= affine("txt_norm", text, bias=False)
    shapes |= affine("time_text_embed.timestep_embedder.linear_1", width, FREQUENCIES)
    shapes |= affine("time_text_embed.timestep_embedder.linear_2", width, width)
    for stream in ("img", "txt"):
        shapes |= affine(f"{block}.{stream}_mod.1", 6 * width, width)
        shapes |= affine(f"{block}.{stream}_mlp.net.0.proj", 4 * width, width)
        shapes |= affine(f"{block}.{stream}_mlp.net.2", width, 4 * width)
    for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        shapes |= affine(f"{block}.attn.{norm}", HEAD, bias=False)
    for own, text_name in (("to_q", "add_q_proj"), ("to_k", "add_k_proj"), ("to_v", "add_v_proj")):
        shapes |= affine(f"{block}.attn.{own}", width, width) | affine(f"{block}.attn.{text_name}", width, width)
    shapes |= affine(f"{block}.attn.to_out.0", width, width) | affine(f"{block}.attn.to_add_out", width, width)
    return shapes | affine("norm_out.linear", 2 * width, width) | affine("proj_out", PATCH * LATENT, width)


@dataclass(frozen=True)
class _NextDiT:
    """Lumina 2's network and Z-Image's. timestep, inner: width of its embedding, and in between."""

    width: int
    text: int
    keys: int  # heads of keys, and of values
    head: int
    feed_forward: int
    timestep: int
    modulation: str  # of a block


_LUMINA2 = _NextDiT(2304, text=2304, keys=8, head=96, feed_forward=9216, timestep=1024, modulation="1")
_Z_IMAGE = _NextDiT(3840, text=2560, keys=30, head=128, feed_forward=10240, timestep=256, modulation="0")


def _next_dit(net: _NextDiT) -> Shapes:
    width = net.width
    shapes = affine("x_embedder", width, PATCH * LATENT)
    shapes |= affine("cap_embedder.0", net.text, bias=False) | affine("cap_embedder.1", width, net.text)
    shapes |= _numbered_embedder("t_embedder", FREQUENCIES, 1024, net.timestep)
    for block in ("context_refiner.0", "context_refiner.1", "noise_refiner.0", "noise_refiner.1", "layers.0"):
        shapes |= affine(f"{block}.attention.qkv", width + 2 * net.keys * net.head, width, bias=False)
        shapes |= affine(f"{block}.attention.out", width, width, bias=False)
        for norm in ("q_norm", "k_norm"):
            shapes |= affine(f"{block}.attention.{norm}", net.head, bias=False)
        for norm in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"):
            shapes |= affine(f"{block}.{norm}", width, bias=False)
        for matrix, shape in {"w1": (net.feed_forward, width), "w2": (width, net.feed_forward)}.items():
            shapes |= affine(f"{block}.feed_forward.{matrix}", *shape, bias=False)
        shapes |= affine(f"{block}.feed_forward.w3", net.feed_forward, width, bias=False)
        if not block.startswith("context"):
            shapes |= affine(f"{block}.adaLN_modulation.{net.modulation}", 4 * width, net.timestep)
    shapes |= affine("final_layer.linear", PATCH * LATENT, width)
    return shapes | affine("final_layer.adaLN_modulation.1", width, net.timestep)


def _lumina2(narrow: bool) -> Shapes:
    return _next_dit(_LUMINA2) | affine("norm_final", _LUMINA2.width, bias=False)  # which nothing uses


def _z_image(narrow: bool) -> Shapes:
    return _next_dit(_Z_IMAGE) | {name: (1, _Z_IMAGE.width) for name in ("x_pad_token", "cap_pad_token")}


FLOW_FILES = {
    "Flux.1": FlowFile(_flux1),
    "Flux.2": FlowFile(_flux2),
    "SD 3.5": FlowFile(_sd35, torch.float16, bundled=True),
    "Qwen-Image": FlowFile(_qwen),
    "Lumina 2": FlowFile(_lumina2),
    "Z-Image": FlowFile(_z_image),
    "Chroma": FlowFile(_chroma),
}
