"""Attention KV Inject's patches: of a UNet's self-attention inputs, and of a transformer's keys and values."""

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...morph_core.attention.end_frames import (
    AlignContexts,
    Ends,
    block_is_chosen,
    first_row_alphas,
    layer_is_chosen,
    mix_end_contexts,
    mix_end_tokens,
)
from ...morph_core.attention.token_grid import TokenMask
from ...morph_core.errors import InvalidInput
from ...morph_core.matching.aligned import AlignedEnds
from ...morph_core.morphing.alphas import Alphas
from ...morph_core.sampling.schedule import sigma_after
from .backbone import unet_config, up_block_of
from .frame_batches import current_alphas, current_frames, parts_first
from .masks import PictureMask
from .named_errors import named

NODE = "Attention KV Inject"
STAGES = {"input": "down", "middle": "mid", "output": "up"}
OVERRIDE = "optimized_attention_override"
CONTEXTS = "morph_drag_contexts"
NUMBERS = itertools.count()
TOKENS = "morph_drag_tokens"
"""In transformer_options during a call of a transformer: its `_Tokens`."""
OF_TEXT = ("context", "siglip")  # how the lists of blocks are named that never see the image


@dataclass(frozen=True)
class EndFrames:
    """What is mixed, how strongly, in which share of the steps and where. alphas: None for a drag's rows.

    mask: where in the picture; None: everywhere. layouts: by which the ends are led to each frame's layout first; of
    UNets alone.
    """

    alphas: Alphas | None
    strength: float
    end_percent: float
    blocks: str
    mask: PictureMask | None = None
    layouts: AlignedEnds | None = None

    def patch(self, model: Any) -> None:
        """Put the patches of its network's kind on a clone of a MODEL."""
        kind = EndContexts if isinstance(model.model.diffusion_model, UNetModel) else EndTokens
        kind.patch(model, self)

    def mix_of(self, x: Tensor, options: dict[str, Any]) -> "EndMix | None":
        """What is to be done in a call with x (B, ..., h, w); None where its step is none of those that they act in."""
        rows = len(x)
        sigma = options["sigmas"].max()
        if not sigma > sigma_after(options["sample_sigmas"].to(sigma), self.end_percent):
            return None
        part = current_frames(rows, options)
        if self.alphas is None:
            alphas = first_row_alphas(len(part.frames))
        else:
            alphas = current_alphas(rows, options, self.alphas)
        mask = None if self.mask is None else self.mask.on(x)
        aligned = self.layouts.contexts_of(x.shape[-2:]) if self.layouts else None
        return EndMix(rows, alphas, self.strength, part.ends, mask, aligned)


@dataclass(frozen=True)
class EndMix:
    """One call's. alphas: of its frames. ends: None where they are its first and last."""

    rows: int
    alphas: Alphas
    strength: float
    ends: Ends | None
    mask: TokenMask | None
    aligned: AlignContexts | None = None

    def contexts(self, layer: Hashable, context: Tensor) -> Tensor:
        """What a UNet's layer makes keys or values of."""
        share = None if self.mask is None else self.mask.of(context.shape[1])
        ends = self._of_ends(layer, context)
        return mix_end_contexts(context, self.alphas, self.strength, ends, share, self.aligned)

    def tokens(self, layer: Hashable, tokens: Tensor, image: "ImageTokens") -> Tensor:
        """A transformer's keys or values, of which the last are the image's."""
        share = None if self.mask is None else self.mask.of(image.each, image.frames, image.padding)
        return mix_end_tokens(tokens, image.count, self.alphas, self.strength, self._of_ends(layer, tokens), share)

    def _of_ends(self, layer: Hashable, made: Tensor) -> Tensor | None:
        if len(made) != self.rows:
            raise InvalidInput(
                f"a layer sees {len(made)} rows of a batch of {self.rows}, so that their frames are not known; leave "
                "out the patch of the model that changes their number"
            )
        return None if self.ends is None else self.ends.of(layer, made, len(self.alphas))


@dataclass(frozen=True)
class EndContexts:
    """A wrapper and ComfyUI's `attn1_patch`, for UNets: sees what self-attention makes keys and values of."""

    frames: EndFrames
    config: dict[str, Any]
    key: str  # of its own in transformer_options; cloning a MODEL copies the patch but not the wrapper

    @staticmethod
    def patch(model: Any, frames: EndFrames) -> None:
        """Put both on a clone of a MODEL."""
        patches = EndContexts(frames, unet_config(model), f"{CONTEXTS}_{next(NUMBERS)}")
        model.set_model_attn1_patch(patches)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, CONTEXTS, patches.call)
        parts_first(model)

    def call(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **others: Any,
    ) -> Tensor:
        """Around one call of the network: decides once for all its layers."""
        with named(NODE):
            mix = self.frames.mix_of(x, transformer_options)
        options = {**transformer_options, self.key: mix}
        return executor(x, t, c_concat, c_crossattn, control, options, **others)  # type: ignore[no-any-return]

    def __call__(
        self, query: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        mix: EndMix | None = options.get(self.key)
        if mix is None or not self._is_chosen(*options["block"]):
            return query, context, value
        with named(NODE):
            layer = (self.key, *options["block"], options["block_index"])
            mixed = mix.contexts((*layer, "context"), context)
            if value is context:
                return query, mixed, mixed
            return query, mixed, mix.contexts((*layer, "value"), value)  # another patch has changed one of them

    def _is_chosen(self, stage: str, number: int) -> bool:
        block, count = up_block_of(number, self.config), len(self.config["channel_mult"])
        return block_is_chosen(self.frames.blocks, STAGES[stage], block, count)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ImageTokens:
    """How many tokens an image is: `each` of its frames, and those that the network adds."""

    frames: int
    each: int
    padding: int

    @property
    def count(self) -> int:
        return self.frames * self.each + self.padding


@dataclass
class _Tokens:
    """Of one call of a transformer. text: how many tokens, padding included. layer: of `layers`, the next.

    mix: what is to be done with them, if anything.
    """

    image: ImageTokens
    text: int
    layers: int
    mix: EndMix | None
    layer: int = 0


@dataclass(frozen=True)
class EndTokens:
    """A wrapper and an attention override for transformers, whose image tokens follow the text's in one attention."""

    frames: EndFrames
    previous: Callable[..., Tensor] | None  # an override that was there already, called from ours

    @staticmethod
    def patch(model: Any, frames: EndFrames) -> None:
        """Put both on a clone of a MODEL."""
        options = model.model_options["transformer_options"]
        patches = EndTokens(frames, options.get(OVERRIDE))
        options[OVERRIDE] = patches.attention
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, TOKENS, patches.call)
        parts_first(model)

    def call(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **others: Any,
    ) -> Tensor:
        """Around one call of the network: counts its tokens and layers."""
        network = executor.class_obj.diffusion_model
        with named(NODE):
            if others.get("ref_latents"):
                raise InvalidInput(
                    "the prompt carries reference latents, whose tokens cannot be told from the image's; leave them "
                    "out, or leave out this node"
                )
            text = 0 if c_crossattn is None else c_crossattn.shape[1]
            mix = self.frames.mix_of(x, transformer_options)
            tokens = _Tokens(_image_tokens(network, x), _padded(network, text), _attention_layers(network), mix)
        options = {**transformer_options, TOKENS: tokens}
        output: Tensor = executor(x, t, c_concat, c_crossattn, control, options, **others)
        with named(NODE):
            if not tokens.layer:
                raise InvalidInput(
                    f"another patch of the MODEL replaces the attention of {type(network).__name__}; connect this "
                    "node after it"
                )
        return output

    def attention(self, func: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI's override: mixes the image's keys and values, then attends as it would have."""
        options = kwargs.get("transformer_options") or {}
        tokens: _Tokens | None = options.get(TOKENS)
        if not kwargs.get("skip_reshape"):  # (B, T, heads·D), of which some have (B, T, heads, D)
            q, k, v = (part.flatten(2) for part in (q, k, v))
        if tokens is not None and _has_image(q, k, tokens):
            with named(NODE):
                k, v = self._mixed(k, v, tokens)
        if self.previous:
            return self.previous(func, q, k, v, *args, **kwargs)
        return func(q, k, v, *args, **kwargs)  # type: ignore[no-any-return]

    def _mixed(self, k: Tensor, v: Tensor, tokens: _Tokens) -> tuple[Tensor, Tensor]:
        layer, tokens.layer = tokens.layer, tokens.layer + 1
        if tokens.mix is None or not layer_is_chosen(self.frames.blocks, layer, tokens.layers):
            return k, v
        keys, values = ((id(self), layer, name) for name in ("keys", "values"))
        return tokens.mix.tokens(keys, k, tokens.image), tokens.mix.tokens(values, v, tokens.image)


def _has_image(q: Tensor, k: Tensor, tokens: _Tokens) -> bool:
    """Whether an attention is one of the image's tokens among themselves, with the text's before them or without."""
    count, image = k.shape[-2], tokens.image.count
    return q.shape[-2] == count and count >= image and (count != tokens.text or count == image)


def _image_tokens(network: nn.Module, x: Tensor) -> ImageTokens:
    """Of a latent (B, C, H, W) or (B, C, T, H, W), padded as the network pads it."""
    patch = getattr(network, "patch_size", None)
    if isinstance(patch, (tuple, list)):
        patch = patch[-1]
    if not isinstance(patch, int):
        raise InvalidInput(
            f"model's network, {type(network).__name__}, does not say how many cells a token of the image has; leave "
            "out this node"
        )
    frames, each = math.prod(x.shape[2:-2]), math.prod(-(-side // patch) for side in x.shape[-2:])
    return ImageTokens(frames, each, _padded(network, frames * each) - frames * each)


def _padded(network: nn.Module, tokens: int) -> int:
    """With those that some networks add, to the image's and to the text's."""
    multiple: int = getattr(network, "pad_tokens_multiple", None) or 1
    return tokens + -tokens % multiple


def _attention_layers(network: nn.Module) -> int:
    """How many blocks see the image one after the other: those in its lists, but for lists that refine the text."""
    lists = [
        child
        for name, child in network.named_children()
        if isinstance(child, nn.ModuleList) and len(child) and not name.startswith(OF_TEXT)
    ]
    return sum(len(blocks) for blocks in lists if type(blocks[0]).__name__.endswith("Block"))
