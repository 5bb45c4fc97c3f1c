"""What a morph is to do."""

from dataclasses import dataclass, field

from ..attention.end_frames import check_blocks
from ..errors import InvalidInput
from ..lora.blend import check_blend
from ..lora.fit import LoraFit
from ..morphing.alphas import alpha_schedule
from ..morphing.blend_text import bump
from ..sampling.schedule import check_share

RESCHEDULINGS = ("path", "search")


@dataclass(frozen=True)
class Morph:
    """DiffMorpher's ingredients, each with a switch.

    Defaults are the published ones, except `metric`: LPIPS needs weights that are not bundled.
    """

    frames: int = 16
    steps: int = 50
    lora: LoraFit | None = field(default_factory=LoraFit)
    """How to fit the LoRA of each image; None leaves LoRAs out."""
    lora_blend: str = "delta"
    """What is interpolated between the two LoRAs, see `lora.blend.StackedLoras`: the paper's "delta", or "factors"."""
    attention: float = 0.6
    """Share of the steps, from the start, with blended self-attention; 0 leaves it out."""
    attention_blocks: str = "up blocks"
    adain: bool = True
    reschedule: bool = True
    rescheduling: str = "path"
    """How: one of `RESCHEDULINGS`. "path", as published, samples a second pass, spaced evenly along the first one's
    path. "search" samples as many frames, each in the middle of the longest steps so far, and shows the most even."""
    first_pass_stride: int = 1
    """How many steps the pass that rescheduling measures takes as one: above 1 it costs less and measures less well."""
    frames_per_batch: int = 0
    """So many frames go through the network at a time, after the first and last; 0: all at once."""
    exact_ends: bool = False
    """Hold the first and last frame to their inversions (Direct Inversion): they are the images then."""
    middle_weight: float = 1.0
    """How far the frame at alpha 0.5 goes to the middle text, where there is one; 0..1."""
    correspondence: bool = False
    """Lead both ends to each frame's layout first, by matches of the model's own features: see `matching`."""
    metric: str = "laplacian pyramid"
    set_alpha_to_one: bool = True
    """The ᾱ of an image: 1, as in ComfyUI, or, as in the published code, ᾱ_0; see `sampling.schedule.ddim_sigmas`."""

    def __post_init__(self) -> None:
        alpha_schedule(self.frames)
        check_blend(self.lora_blend)
        check_blocks(self.attention_blocks)
        check_share(self.attention)
        if self.rescheduling not in RESCHEDULINGS:
            raise InvalidInput(f"rescheduling must be one of {', '.join(RESCHEDULINGS)}; got {self.rescheduling!r}")
        if self.rescheduling == "search" and self.first_pass_stride > 1:
            raise InvalidInput("a search shows frames of its first pass, too: first_pass_stride must be 1")
        bump((), self.middle_weight)
        if self.first_pass_stride < 1 or self.frames_per_batch < 0:
            raise InvalidInput(
                f"first_pass_stride must be 1 or more and frames_per_batch not negative, got {self.first_pass_stride} "
                f"and {self.frames_per_batch}"
            )


def quick_morph(frames: int = 16) -> Morph:
    """A morph without fits, in 20 steps: a quarter of what the full method asks of the network, see docs/morph.md.

    The ends are held to their inversions, so that they are the images although no LoRA knows them.
    """
    return Morph(frames, steps=20, lora=None, attention=0, adain=False, exact_ends=True)
