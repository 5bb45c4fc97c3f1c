"""The frames of a morph, each sampled once, however many passes ask for it."""

from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..attention.end_frames import Ends, mixed_self_attention
from ..lora.blend import StackedLoras
from ..matching.aligned import AlignedEnds
from ..models.latent_diffusion import LatentDiffusion
from ..models.text import Text
from ..morphing.adain import adain
from ..morphing.alphas import Alphas
from ..morphing.blend_text import blended
from ..morphing.slerp import slerp
from ..sampling import ddim
from ..sampling.direct_inversion import DirectInversion
from ..sampling.schedule import sigma_after
from ..sampling.trajectory import strided
from .image import lora_layers
from .keyframe import Frame, Keyframe, morph_sigmas
from .layouts import aligned_ends
from .local_mask import LocalMask
from .morph_settings import Morph
from .stages import OnStage, stage_reporter

KEPT_BYTES = 2**30  # of what both keyframes' attention was made of, all steps together

Made = dict[tuple[Any, int], Tensor]
"""What was made of the keyframes in one step, see `Ends`."""


class MorphFrames:
    """What lies between two keyframes. What was sampled is kept, by its alpha.

    What a keyframe's row gave its attention layers is kept with it, for passes without that row, unless it is more than
    `KEPT_BYTES`: then the keyframe is sampled with every pass.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        start: Keyframe,
        end: Keyframe,
        config: Morph,
        on_stage: OnStage | None = None,
        keep: bool = True,
        local: LocalMask | None = None,
        middle: Text | None = None,
    ) -> None:
        """keep: whether there may be another pass, or another segment that begins or ends with one of them.

        local: where the morph takes place; None: everywhere. middle: a third text, see `blend_text`.
        """
        self.model, self.ends, self.config, self.on_stage = model, (start, end), config, on_stage
        self.sigmas = morph_sigmas(model, config, start.image.latent)
        self._texts = (start.image.text, end.image.text)
        self._layers = model.backbone.attention_layers() if config.attention else []
        self._mixed_until = sigma_after(self.sigmas, config.attention)
        of_start, of_end = (lora_layers(model, each.image) for each in self.ends)
        self._loras = StackedLoras(of_start, of_end, config.lora_blend)
        self._frames = {float(which): each.frame for which, each in enumerate(self.ends) if each.frame is not None}
        self._keeps, self._local, self._middle = keep, local, middle

    @cached_property
    def _aligned(self) -> AlignedEnds | None:
        start, end = (keyframe.image for keyframe in self.ends)
        return aligned_ends(self.model, start, end) if self.config.correspondence else None

    def at(self, alphas: Alphas, stride: int = 1) -> list[Frame]:
        """The frames at these alphas, from 0 to 1. stride: see `sample`; other frames than those of 1 are not kept."""
        known = self._frames if stride == 1 else {}
        missing = {alpha for alpha in alphas if alpha not in known}
        if missing:
            missing |= {float(which) for which in self._unkept(stride)}
        frames = known | self._made(tuple(sorted(missing)), stride)
        if stride == 1:
            self._frames = frames
            for which, keyframe in enumerate(self.ends):
                keyframe.frame = frames.get(float(which), keyframe.frame)
        return [frames[alpha] for alpha in alphas]

    def _made(self, alphas: Alphas, stride: int) -> dict[float, Frame]:
        if not alphas:
            return {}
        start, end = (keyframe.trajectory.noise for keyframe in self.ends)
        noises = self._aligned.latents(start, end, alphas) if self._aligned else (start, end)
        cells = None if self._local is None else self._local.cells
        x = slerp(*noises, alphas, cells)
        if self.config.adain:
            x = adain(x, start, end, alphas, mask=cells)
        latents = self.sample(x, alphas, stride)
        pictures = self.model.decode_latents(latents)
        if self._local is not None:
            pictures = self._local.pasted(pictures, self.model.decode_latents(self.ends[0].image.latent))
        return {alpha: Frame(latents[row : row + 1], pictures[row : row + 1]) for row, alpha in enumerate(alphas)}

    @torch.no_grad()
    def sample(self, x: Tensor, alphas: Alphas, stride: int = 1) -> Tensor:
        """Noise (F, C, h, w) of frames at these rising alphas to latents (F, C, h, w).

        They must have the ends, but for those that were sampled and kept. stride: how many steps are taken as one.
        """
        ends = {which: alphas.index(float(which)) for which in self._unkept(stride)}
        parts = parted(len(alphas), self.config.frames_per_batch, sorted(ends.values()))
        alphas_of = [tuple(alphas[row] for row in rows) for rows in parts]
        denoisers = [self.model.backbone.denoiser(self._text(part)) for part in alphas_of]
        order = torch.tensor([row for rows in parts for row in rows], device=x.device).argsort()
        is_plain = len(parts) == 1 and len(ends) == 2 and not self._keeps

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            is_mixed = bool(sigma > self._mixed_until)
            made = self._kept(sigma.item()) if stride == 1 else {}
            outputs = []
            for rows, part, plain in zip(parts, alphas_of, denoisers, strict=True):
                with ExitStack() as patches:
                    patches.enter_context(self._loras.applied(part))
                    if is_mixed:
                        here = {which: rows.index(row) for which, row in ends.items() if row in rows}
                        of_ends = None if is_plain else Ends(0, 1, here, made)
                        patches.enter_context(self._mixed(part, of_ends))
                    outputs.append(plain(x[rows], sigma))
            if stride == 1 and self._keeps:
                self._keep(sigma.item(), made)
            return torch.cat(outputs)[order]

        sigmas = self.sigmas[strided(len(self.sigmas) - 1, stride)]
        corrections = self._corrections(alphas, stride)
        x = ddim.sample(denoise, x, sigmas, stage_reporter(self.on_stage, "sampling frames"), corrections)
        return x / self.model.backbone.schedule.scale(sigmas[-1])

    def _text(self, alphas: Alphas) -> Text:
        return blended(*self._texts, alphas, self._middle, self.config.middle_weight)

    def _mixed(self, alphas: Alphas, ends: Ends | None) -> AbstractContextManager[None]:
        mask = None if self._local is None else self._local.tokens
        size = self.ends[0].image.latent.shape[-2:]
        aligned = self._aligned.contexts_of(size) if self._aligned else None
        return mixed_self_attention(self._layers, alphas, 1.0, self.config.attention_blocks, ends, mask, aligned)

    def _corrections(self, alphas: Alphas, stride: int) -> list[ddim.Correction]:
        if self._local is None and not self.config.exact_ends:
            return []
        start, end = (keyframe.trajectory.every(stride) for keyframe in self.ends)
        if self._local is not None:
            return self._local.corrections(alphas, start, end, self.config.exact_ends)
        pinned = {alphas.index(which): way for which, way in ((0.0, start), (1.0, end)) if which in alphas}
        return [DirectInversion(pinned)]

    def _kept(self, sigma: float) -> Made:
        return {
            (part, which): context
            for which, keyframe in enumerate(self.ends)
            for part, context in keyframe.contexts.get(sigma, {}).items()
        }

    def _keep(self, sigma: float, made: Made) -> None:
        if sum(part.numel() * part.element_size() for part in made.values()) * self._mixed_steps() > KEPT_BYTES:
            self._keeps = False
            return
        for which, keyframe in enumerate(self.ends):
            of_end = {part: context.cpu() for (part, picture), context in made.items() if picture == which}
            if of_end:
                keyframe.contexts.setdefault(sigma, of_end)

    def _unkept(self, stride: int) -> list[int]:
        """The ends that have to be in a pass, whose steps' latents are not those of another stride."""
        steps = self._mixed_steps()
        return [
            which
            for which, keyframe in enumerate(self.ends)
            if steps and (stride > 1 or len(keyframe.contexts) < steps)
        ]

    def _mixed_steps(self) -> int:
        return int((self.sigmas[:-1] > self._mixed_until).sum())


def parted(frames: int, size: int, first: list[int]) -> list[list[int]]:
    """Rows of a batch, so many at a time, some of them before all others; 0: all at once."""
    rows = list(range(frames))
    if not size or frames <= max(len(first), size):
        return [rows]
    others = [row for row in rows if row not in first]
    return [*([first] if first else []), *(others[at : at + size] for at in range(0, len(others), size))]
