"""Prompt-to-Prompt (Hertz et al., ICLR 2023): an edited prompt that keeps the layout of the source prompt's image.

Row 0 of a batch is sampled with the source prompt, the other rows with the edited one. In the first share of the
steps the edited rows' attention maps are made from the source row's.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from ..errors import InvalidInput, UnsupportedModel
from ..models.layers import AttentionEdit, AttentionLayer, edited_attention
from ..sampling.ddim import step, x0_leading_to
from ..sampling.schedule import check_share, sigma_after
from .token_alignment import WordControl, controlled_maps

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
            check_share(getattr(self, name), name)
        for name, tokens in zip(("source_blend", "edited_blend"), self.control.mapper.shape, strict=True):
            outside = [position for position in getattr(self, name) if not 0 <= position < tokens]
            if outside:
                raise InvalidInput(f"{name} has position {outside[0]}, but the prompt has {tokens} tokens, from 0 on")

    @property
    def blends(self) -> bool:
        """Whether the image may change only where the named tokens are."""
        return bool(self.source_blend or self.edited_blend)


def from_source(rows: Tensor) -> Tensor:
    """Row 0 in the place of every row of one repeat of the rows, (F, ...) in and out.

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

    sigmas: (S + 1,), falling; a share of the steps ends as `sigma_after` has it. size: (h, w) of the latents.
    "Coarse" layers are those at half of the latents' resolution or less.
    """

    def __init__(self, edit: Edit, sigmas: Tensor, size: tuple[int, int]) -> None:
        self.edit = edit
        self._size = size
        sigmas = sigmas.cpu()
        self._cross_until = sigma_after(sigmas, edit.cross_steps)
        self._self_until = sigma_after(sigmas, edit.self_steps)
        self._unblended_until = sigma_after(sigmas, edit.blend_after)
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

    def cross_attention(self, query: Tensor, key: Tensor, value: Tensor, sigma: Tensor) -> Tensor:
        """The edited rows' attention under `cross`, (F − 1, heads, N, D) in float32.

        query: (F, heads, N, D) and key, value: (F, heads, T, D) of the rows of one repeat. T may be a multiple of the
        prompts' tokens, each prompt repeated whole: a token's repeats count as one.
        """
        q, k, v = (x.float() for x in (query, key, value))
        maps = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)  # (F, heads, N, T)
        tokens = len(self.edit.control.own)
        maps = maps.unflatten(-1, (-1, tokens)).sum(-2)
        return self.cross(maps[:1], maps[1:], sigma) @ v[1:, :, :tokens]

    def shares_self(self, sigma: Tensor, tokens: int) -> bool:
        """Whether a self-attention layer of so many tokens uses the source's maps: coarse ones do."""
        return bool(sigma > self._self_until) and self._is_coarse(tokens)

    def blend(self, x0: Tensor, x: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
        """The local blend, a `ddim.Correction`: the step leads edited rows to the source's row outside `blend_mask`."""
        if not self.edit.blends or sigma > self._unblended_until:
            return x0
        if self._maps is None:
            raise UnsupportedModel(
                "the local blend has seen no cross-attention at half of the latents' resolution or less: this model "
                "has none there, so leave the words to blend empty"
            )
        after = step(x, x0, sigma, next_sigma)
        wanted = torch.where(blend_mask(self._maps, self.edit.blend_threshold), after[1:], after[:1])
        return torch.cat([x0[:1], x0_leading_to(wanted, x[1:], sigma, next_sigma)])

    def _is_coarse(self, tokens: int) -> bool:
        height, width = self._size
        return tokens <= ((height + 1) // 2) * ((width + 1) // 2)

    def _keep(self, source: Tensor, edited: Tensor) -> None:
        chosen = (source[..., list(self.edit.source_blend)], edited[..., list(self.edit.edited_blend)])
        seen = torch.cat([maps.float().sum(-1).mean(1) for maps in chosen])  # (F, N)
        grids = seen.unflatten(-1, layer_grid(seen.shape[-1], self._size))
        resized = interpolate(grids[:, None], self._size, mode="bilinear")[:, 0]
        self._maps = resized if self._maps is None else self._maps + resized


def check_layers(layers: Iterable[AttentionLayer]) -> None:
    """Raise `UnsupportedModel` unless text comes in by cross-attention, whose maps are what is controlled."""
    if not any(layer.kind == "cross" for layer in layers):
        raise UnsupportedModel(
            "Prompt-to-Prompt controls the maps of cross-attention, and this network has none: use a UNet"
        )


@contextmanager
def prompt_to_prompt(layers: Iterable[AttentionLayer], run: PromptToPrompt, sigma: Tensor) -> Iterator[None]:
    """Within this context the layers' network, called at this sigma with the F rows of one run, is under its control.

    Row 0 is the source's. Only the conditional pass belongs here; make the unconditional one outside.
    """
    sigma = sigma.cpu()  # to wait for the device once, not in each layer

    def inputs(x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shares = run.shares_self(sigma, x.shape[1])
        return (from_source(x), from_source(context), context) if shares else (x, context, context)

    def maps(rows: Tensor) -> Tensor:
        return torch.cat([rows[:1], run.cross(rows[:1], rows[1:], sigma)])

    def edit_of(layer: AttentionLayer) -> AttentionEdit | None:
        if layer.kind == "self":
            return AttentionEdit(inputs=inputs)
        return AttentionEdit(maps=maps) if run.needs_maps(sigma) else None

    with edited_attention(layers, edit_of):
        yield
