"""Prompt-to-Prompt (Hertz et al., ICLR 2023): an edited prompt that keeps the layout of the source prompt's image.

Row 0 of a batch is sampled with the source prompt, the other rows with the edited one. In the first share of the
steps the edited rows' attention maps are made from the source row's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from ..errors import InvalidInput, UnsupportedModel
from .end_frames import last_mixed_sigma
from .token_alignment import WordControl, controlled_maps

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

POOLED_SHARE = 16  # the published 3x3 pooling of 16x16 maps reaches a sixteenth of their side


@dataclass(frozen=True)
class Edit:
    """What to control, and for how long. Shares are of the steps, from the start; defaults are the published code's."""

    control: WordControl
    cross_steps: float = 0.8
    self_steps: float = 0.4
    source_blend: Sequence[int] = ()
    """Positions of the source prompt's tokens where the image may change; empty in both prompts: everywhere."""
    edited_blend: Sequence[int] = ()
    blend_threshold: float = 0.3
    """Share of a map's maximum above which it marks a place."""
    blend_after: float = 0.2
    """Share of the steps that are left unblended because their maps say little yet."""

    def __post_init__(self) -> None:
        for name in ("cross_steps", "self_steps", "blend_threshold", "blend_after"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name, tokens in zip(("source_blend", "edited_blend"), self.control.mapper.shape, strict=True):
            outside = [position for position in getattr(self, name) if not 0 <= position < tokens]
            if outside:
                raise InvalidInput(f"{name} has position {outside[0]}, but the prompt has {tokens} tokens, from 0 on")

    @property
    def blends(self) -> bool:
        """Whether the image may change only where the named tokens are."""
        return bool(self.source_blend or self.edited_blend)


def as_source(rows: Tensor) -> Tensor:
    """Row 0 in the place of every row of one run, (F, ...) in and out.

    Done to what self-attention's queries and keys are made from, not to its values, it replaces the maps by row 0's.
    """
    return rows[:1].expand_as(rows)


def blend_mask(maps: Tensor, threshold: float) -> Tensor:
    """Where edited rows may differ from the source: (F, h, w) maps, row 0 the source's, to bools (F − 1, 1, h, w).

    A place is marked where the source's or the row's own map, max-pooled, is above `threshold` times its maximum.
    """
    height, width = maps.shape[-2:]
    reach = (max(1, height // POOLED_SHARE), max(1, width // POOLED_SHARE))
    pooled = max_pool2d(maps[:, None], [2 * cells + 1 for cells in reach], stride=1, padding=reach)
    marked = pooled > threshold * pooled.amax((-2, -1), keepdim=True)
    return marked[:1] | marked[1:]


def layer_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """The (h, w) of a layer with h·w = `tokens`: `size`, the latents' (h, w), halved as often as it takes, rounding up.

    Raises `InvalidInput` when no halving has so many.
    """
    height, width = size
    while height * width > tokens:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != tokens:
        raise InvalidInput(
            f"an attention layer has {tokens} positions, which latents of {size[0]}x{size[1]} have at no resolution; "
            "make PromptToPrompt with the size of the latents that are sampled"
        )
    return height, width


class PromptToPrompt:
    """The controls of one sampling run and the attention maps it has seen: make a new one for each run.

    sigmas: (S + 1,), falling; a share of the steps ends as `last_mixed_sigma` has it. size: (h, w) of the latents.
    "Coarse" layers are those at half of the latents' resolution or less.
    """

    def __init__(self, edit: Edit, sigmas: Tensor, size: tuple[int, int]) -> None:
        self.edit = edit
        self._size = size
        sigmas = sigmas.cpu()
        self._cross_until = last_mixed_sigma(sigmas, edit.cross_steps)
        self._self_until = last_mixed_sigma(sigmas, edit.self_steps)
        self._unblended_until = last_mixed_sigma(sigmas, edit.blend_after)
        self._maps: Tensor | None = None  # (F, h, w) sums over the coarse layers and the steps so far

    def needs_maps(self, sigma: Tensor) -> bool:
        """Whether `cross` is to be called at this sigma; else it would do nothing."""
        return self.edit.blends or bool(sigma > self._cross_until)

    def cross(self, source: Tensor, edited: Tensor, sigma: Tensor) -> Tensor:
        """What a layer's maps of the edited rows (F − 1, heads, N, T') become; those of the source: (1, heads, N, T).

        Maps of all coarse layers are kept for `blend`, each resized bilinearly to the latents' size; the published code
        keeps those of 16x16 only.
        """
        if sigma > self._cross_until:
            edited = controlled_maps(source, edited, self.edit.control)
        if self.edit.blends and self._is_coarse(source.shape[-2]):
            self._keep(source, edited)
        return edited

    def shares_self(self, sigma: Tensor, tokens: int) -> bool:
        """Whether a self-attention layer of so many tokens uses the source's maps, see `as_source`: coarse ones do."""
        return bool(sigma > self._self_until) and self._is_coarse(tokens)

    def blend(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The edited rows as the source's row outside `blend_mask`. x: (F, C, h, w) after the step from `sigma`."""
        if not self.edit.blends or sigma > self._unblended_until:
            return x
        if self._maps is None:
            raise UnsupportedModel(
                "the local blend has seen no cross-attention at half of the latents' resolution or less: this model "
                "has none there, so leave the words to blend empty"
            )
        mask = blend_mask(self._maps, self.edit.blend_threshold)
        return torch.cat([x[:1], torch.where(mask, x[1:], x[:1])])

    def _is_coarse(self, tokens: int) -> bool:
        height, width = self._size
        return tokens <= ((height + 1) // 2) * ((width + 1) // 2)

    def _keep(self, source: Tensor, edited: Tensor) -> None:
        chosen = (source[..., list(self.edit.source_blend)], edited[..., list(self.edit.edited_blend)])
        seen = torch.cat([maps.float().sum(-1).mean(1) for maps in chosen])  # (F, N)
        grids = seen.unflatten(-1, layer_grid(seen.shape[-1], self._size))
        resized = interpolate(grids[:, None], self._size, mode="bilinear")[:, 0]
        self._maps = resized if self._maps is None else self._maps + resized


@contextmanager
def prompt_to_prompt(unet: "UNet2DConditionModel", run: PromptToPrompt, sigma: Tensor) -> Iterator[None]:
    """Within this context `unet`, called at this sigma with the F rows of one run, is under its control.

    Row 0 is the source's. Only the conditional pass belongs here; make the unconditional one outside.
    """
    sigma = sigma.cpu()  # to wait for the device once, not in each layer
    layers = [(path.rpartition(".")[2], module) for path, module in unet.named_modules()]
    cross = [module for name, module in layers if name == "attn2" and run.needs_maps(sigma)]
    processors = [module.processor for module in cross]

    def ask_source(projection: torch.nn.Module, args: tuple[Tensor]) -> Tensor:
        return as_source(args[0]) if run.shares_self(sigma, args[0].shape[1]) else args[0]

    handles = []
    try:
        for module in cross:
            module.set_processor(_ControlledCross(run, sigma))
        for name, module in layers:
            if name == "attn1":
                _check_separate(module)
                handles += [layer.register_forward_pre_hook(ask_source) for layer in (module.to_q, module.to_k)]
        yield
    finally:
        for module, processor in zip(cross, processors, strict=True):
            module.set_processor(processor)
        for handle in handles:
            handle.remove()


def _check_separate(attention: Any) -> None:
    if getattr(attention, "fused_projections", False):
        raise UnsupportedModel("the UNet's attention projections are fused; call unet.unfuse_qkv_projections() first")


class _ControlledCross:
    """A cross-attention processor that spells the maps out, for `PromptToPrompt.cross` to change."""

    def __init__(self, run: PromptToPrompt, sigma: Tensor) -> None:
        self.run, self.sigma = run, sigma

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        queries = attn.head_to_batch_dim(attn.to_q(hidden_states))  # (F·heads, N, D)
        keys, values = (attn.head_to_batch_dim(to(encoder_hidden_states)) for to in (attn.to_k, attn.to_v))
        mask = attn.prepare_attention_mask(attention_mask, keys.shape[1], len(hidden_states))
        maps = attn.get_attention_scores(queries, keys, mask).unflatten(0, (-1, attn.heads))  # (F, heads, N, T)
        edited = self.run.cross(maps[:1], maps[1:], self.sigma)
        output = attn.batch_to_head_dim(torch.cat([maps[:1], edited]).flatten(0, 1) @ values)
        for layer in attn.to_out:
            output = layer(output)
        return output
