"""The frames of a morph, each sampled once, however many passes ask for it."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..attention.end_frames import mixed_self_attention
from ..lora.blend import StackedLoras
from ..matching.aligned import AlignedEnds
from ..models.latent_diffusion import LatentDiffusion
from ..morphing.adain import adain
from ..morphing.alphas import Alphas
from ..morphing.blend_text import blended
from ..morphing.slerp import slerp
from ..sampling import ddim
from ..sampling.direct_inversion import DirectInversion
from ..sampling.schedule import sigma_after
from ..sampling.trajectory import Trajectory, strided
from .image import PreparedImage, inverted_pair, lora_layers
from .layouts import aligned_ends
from .morph_settings import Morph
from .stages import OnStage, stage_reporter

KEPT_BYTES = 2**30  # of what the ends' attention was made of, all steps together


@dataclass(frozen=True)
class Frame:
    """latent: (1, C, h, w). picture: (1, 3, H, W) in 0..1."""

    latent: Tensor
    picture: Tensor


class MorphFrames:
    """What lies between two prepared images, which are inverted once. What was sampled is kept, by its alpha.

    What the ends' rows gave their attention layers is kept too, for passes without them, unless it is more than
    `KEPT_BYTES`: then the ends are sampled with every pass.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        start: PreparedImage,
        end: PreparedImage,
        config: Morph,
        on_stage: OnStage | None = None,
    ) -> None:
        self.model, self.start, self.end, self.config, self.on_stage = model, start, end, config, on_stage
        self.sigmas = model.backbone.schedule.spaced(config.steps, config.set_alpha_to_one).to(start.latent)
        self._layers = model.backbone.attention_layers() if config.attention else []
        self._mixed_until = sigma_after(self.sigmas, config.attention)
        self._loras = StackedLoras(lora_layers(model, start), lora_layers(model, end), config.lora_blend)
        self._frames: dict[float, Frame] = {}
        self._ends: dict[float, dict[str, Tensor]] = {}  # by sigma
        self._keeps_ends = config.reschedule and config.first_pass_stride == 1

    @cached_property
    def _trajectories(self) -> tuple[Trajectory, Trajectory]:
        return inverted_pair(self.model, self.start, self.end, self.sigmas, self.on_stage)

    @cached_property
    def _aligned(self) -> AlignedEnds | None:
        return aligned_ends(self.model, self.start, self.end) if self.config.correspondence else None

    def at(self, alphas: Alphas, stride: int = 1) -> list[Frame]:
        """The frames at these alphas, from 0 to 1. stride: see `sample`; other frames than those of 1 are not kept."""
        known = self._frames if stride == 1 else {}
        missing = {alpha for alpha in alphas if alpha not in known}
        if missing and not self._has_all_ends(stride):
            missing |= {0.0, 1.0}
        frames = known | self._made(tuple(sorted(missing)), stride)
        if stride == 1:
            self._frames = frames
        return [frames[alpha] for alpha in alphas]

    def _made(self, alphas: Alphas, stride: int) -> dict[float, Frame]:
        if not alphas:
            return {}
        noise = [trajectory.noise for trajectory in self._trajectories]
        ends = self._aligned.latents(noise[0], noise[1], alphas) if self._aligned else noise
        x = slerp(ends[0], ends[1], alphas)
        if self.config.adain:
            x = adain(x, noise[0], noise[1], alphas)
        latents = self.sample(x, alphas, stride)
        pictures = self.model.decode_latents(latents)
        return {alpha: Frame(latents[row : row + 1], pictures[row : row + 1]) for row, alpha in enumerate(alphas)}

    @torch.no_grad()
    def sample(self, x: Tensor, alphas: Alphas, stride: int = 1) -> Tensor:
        """Noise (F, C, h, w) of frames at these alphas to latents (F, C, h, w).

        The first and the last are the ends, unless those were sampled before. stride: how many steps are taken as one.
        """
        parts = parted(len(alphas), self.config.frames_per_batch, has_ends=not self._has_all_ends(stride))
        alphas_of = [tuple(alphas[row] for row in rows) for rows in parts]
        denoisers = [self.model.backbone.denoiser(blended(self.start.text, self.end.text, part)) for part in alphas_of]
        order = torch.tensor([row for rows in parts for row in rows], device=x.device).argsort()

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            is_mixed = bool(sigma > self._mixed_until)
            ends = self._ends.get(sigma.item(), {}) if stride == 1 else {}
            outputs = []
            for rows, part, plain in zip(parts, alphas_of, denoisers, strict=True):
                with ExitStack() as patches:
                    patches.enter_context(self._loras.applied(part))
                    if is_mixed:
                        blocks = self.config.attention_blocks
                        aligned = self._aligned and self._aligned.contexts_of(x.shape[-2:])
                        mixed = mixed_self_attention(self._layers, part, blocks=blocks, ends=ends, aligned=aligned)
                        patches.enter_context(mixed)
                    outputs.append(plain(x[rows], sigma))
            if stride == 1:
                self._keep(sigma.item(), ends)
            return torch.cat(outputs)[order]

        sigmas = self.sigmas[strided(len(self.sigmas) - 1, stride)]
        corrections = [DirectInversion(self._pinned(alphas, stride))] if self.config.exact_ends else []
        x = ddim.sample(denoise, x, sigmas, stage_reporter(self.on_stage, "sampling frames"), corrections)
        return x / self.model.backbone.schedule.scale(sigmas[-1])

    def _pinned(self, alphas: Alphas, stride: int) -> dict[int, Trajectory]:
        ways = zip((0.0, 1.0), self._trajectories, strict=True)
        return {alphas.index(end): way.every(stride) for end, way in ways if end in alphas}

    def _keep(self, sigma: float, ends: dict[str, Tensor]) -> None:
        if not (self._keeps_ends and ends) or sigma in self._ends:
            return
        size = sum(part.numel() * part.element_size() for part in ends.values())
        if size * self._mixed_steps() > KEPT_BYTES:
            self._keeps_ends = False
            return
        self._ends[sigma] = {name: part.cpu() for name, part in ends.items()}

    def _has_all_ends(self, stride: int) -> bool:
        """For a pass, whose steps' latents are not those of another stride."""
        return not self._mixed_steps() or stride == 1 and len(self._ends) == self._mixed_steps()

    def _mixed_steps(self) -> int:
        return int((self.sigmas[:-1] > self._mixed_until).sum())


def parted(frames: int, size: int, has_ends: bool) -> list[list[int]]:
    """Rows of a batch, so many at a time, where it has them the first and last before all others; 0: all at once."""
    rows = list(range(frames))
    if not size or frames <= max(2, size):
        return [rows]
    ends, inner = ([[0, frames - 1]], rows[1:-1]) if has_ends else ([], rows)
    return [*ends, *(inner[first : first + size] for first in range(0, len(inner), size))]
