"""The toy model: a Stable-Diffusion-shaped latent diffusion model of a few million parameters.

It is trained by `scripts/train_toy.py` on `drawing.py` and bundled, so that everything in this package can be
run and tested with nothing downloaded.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..models.flux import FluxBackbone
from ..models.text import Text
from ..models.unet import UnetBackbone
from ..packages import needed
from ..sampling.schedule import FlowMatching, VariancePreserving, alphas_cumprod, flow_train_sigmas, sigmas_of
from .transformer import new_transformer
from .words import END, MAX_TOKENS, WORDS, tokenize, word_tokens

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

WEIGHTS = Path(__file__).parent / "weights"
IMAGE_SIZE = 64  # side of a drawing in pixels
SCALE_FACTOR = 1.0  # latents have unit variance: the training folds the scale into the autoencoder
TEXT_WIDTH = 64
UNET_WIDTHS = (64, 128, 128)
HEAD_WIDTH = 32
AUTOENCODER_WIDTHS = (32, 64, 64)
Network = Literal["UNet", "transformer"]
Loaded = TypeVar("Loaded", bound=nn.Module)


class _TextAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in self._projections())
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, heads, T, D)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _projections(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.q_proj, self.k_proj, self.v_proj


class _TextLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = _TextAttention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 2 * width), "fc2": nn.Linear(2 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        hidden = nn.functional.gelu(self.mlp["fc1"](self.layer_norm2(x)))
        return x + self.mlp["fc2"](hidden)


class _TextEmbeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(len(WORDS), TEXT_WIDTH)
        self.position_embedding = nn.Embedding(MAX_TOKENS, TEXT_WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class _TextModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _TextEmbeddings()
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList([_TextLayer(TEXT_WIDTH, heads=2)])})
        self.final_layer_norm = nn.LayerNorm(TEXT_WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embeddings(tokens)
        for layer in self.encoder["layers"].children():
            x = layer(x)
        return self.final_layer_norm(x)


class TextEncoder(nn.Module):
    """A one-layer CLIP text encoder (Radford et al. 2021): causal, pre-norm, final layer norm.

    Parameter names are those of CLIP's text model, so that any CLIP implementation can load the weights.
    """

    config = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "max_position_embeddings": MAX_TOKENS,
        "vocab_size": len(WORDS),
    }

    def __init__(self) -> None:
        super().__init__()
        self.text_model = _TextModel()

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) integers, T <= MAX_TOKENS. Returns (B, T, TEXT_WIDTH)."""
        return self.text_model(tokens)

    def text(self, tokens: Tensor) -> Text:
        """What it makes of the tokens; pooled is, as CLIP has it, what stands at the first <end>."""
        context = self(tokens)
        ends = (tokens == END).int().argmax(1)
        return Text(context, context[torch.arange(len(context)), ends])


def new_autoencoder() -> "AutoencoderKL":
    """The toy autoencoder with random weights: 4 latent channels at a quarter of the picture's side."""
    with needed("diffusers"):
        from diffusers import AutoencoderKL

    blocks = len(AUTOENCODER_WIDTHS)
    return AutoencoderKL(
        block_out_channels=AUTOENCODER_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        norm_num_groups=32,
        scaling_factor=SCALE_FACTOR,
        sample_size=IMAGE_SIZE,
    )


def new_unet() -> "UNet2DConditionModel":
    """The toy UNet with random weights: attention on the two finer of three resolutions, as in SD 1.5."""
    with needed("diffusers"):
        from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        block_out_channels=UNET_WIDTHS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        # diffusers' name for the number of heads (its own documentation calls this a misnomer)
        attention_head_dim=tuple(width // HEAD_WIDTH for width in UNET_WIDTHS),
    )


@dataclass(frozen=True)
class ToyModel:
    """A denoising network, an autoencoder and a text encoder, frozen, in eval mode."""

    backbone: UnetBackbone | FluxBackbone
    autoencoder: "AutoencoderKL"
    text_encoder: TextEncoder

    @torch.no_grad()
    def encode_text(self, captions: Iterable[str], size: tuple[int, int] | None = None) -> Text:
        """Embeddings (B, MAX_TOKENS, TEXT_WIDTH) of B captions; an empty caption is the unconditional one.

        For the transformer they have what is pooled, (B, TEXT_WIDTH), beside them.
        """
        weight = self.text_encoder.text_model.final_layer_norm.weight
        text = self.text_encoder.text(torch.tensor(tokenize(captions), device=weight.device))
        return text if isinstance(self.backbone, FluxBackbone) else Text(text.context)

    def tokenize(self, captions: Iterable[str]) -> list[list[int]]:
        """MAX_TOKENS for each caption; raises `InvalidInput` for a word that the model does not know."""
        return tokenize(captions)

    def word_tokens(self, word: str) -> list[int]:
        """Without start and end."""
        return word_tokens(word)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to scaled latents (B, 4, H/4, W/4)."""
        pixels = (images * 2 - 1).to(self.autoencoder.device)
        return self.autoencoder.encode(pixels).latent_dist.mode() * SCALE_FACTOR

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) to images (B, 3, 4h, 4w) in 0..1."""
        scaled = (latents / SCALE_FACTOR).to(self.autoencoder.device)
        return (self.autoencoder.decode(scaled).sample / 2 + 0.5).clamp(0, 1)


def load_toy_model(network: Network = "UNet", weights: Path = WEIGHTS, device: torch.device | str = "cpu") -> ToyModel:
    """The bundled toy model in float32.

    network: the UNet was trained to predict epsilon on Stable Diffusion's schedule, the transformer by flow matching.
    weights: a folder with the safetensors files. Raises `InvalidInput` for another network.
    """
    from safetensors.torch import load_file

    def loaded(name: str, network: Loaded) -> Loaded:
        state = load_file(weights / f"{name}.safetensors")
        network.load_state_dict({key: value.float() for key, value in state.items()})
        return network.requires_grad_(False).eval().to(device)

    if network not in get_args(Network):
        raise InvalidInput(f"network must be one of {', '.join(get_args(Network))}; got {network!r}")
    backbone: UnetBackbone | FluxBackbone
    if network == "UNet":
        backbone = UnetBackbone(loaded("unet", new_unet()), VariancePreserving(sigmas_of(alphas_cumprod())))
    else:
        schedule = FlowMatching(flow_train_sigmas())
        backbone = FluxBackbone(loaded("transformer", new_transformer(TEXT_WIDTH)), schedule)
    return ToyModel(backbone, loaded("autoencoder", new_autoencoder()), loaded("text_encoder", TextEncoder()))


def preview_factors(weights: Path = WEIGHTS) -> tuple[list[list[float]], list[float]]:
    """The best linear guess of a latent cell's colour: (4, 3) factors and (3,) bias, colours in -1..1."""
    saved = json.loads((weights / "preview.json").read_text())
    return saved["factors"], saved["bias"]
