"""The networks that `benchmarks.speed` measures on, and one time beside another."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.cost import finish
from morph_core.models.text import Text
from morph_core.models.unet import UnetBackbone
from morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, ddim_sigmas, sigmas_of
from morph_core.toy.model import IMAGE_SIZE, TEXT_WIDTH, load_toy_model
from morph_core.toy.words import MAX_TOKENS

STEPS = 50
NETWORKS = ("toy", "larger")
LARGER_WIDTHS = (128, 256, 512, 512)
LARGER_SIDE = 32  # of its latent: 256 pixels
TOKENS, CONTEXT_WIDTH = 77, 768

Work = Callable[[], object]


@dataclass(frozen=True)
class Place:
    """A UNet and what goes into it. latent: (1, C, h, w), scaled. text: of one row. sigmas: (STEPS + 1,), falling."""

    backbone: UnetBackbone
    latent: Tensor
    text: Text
    sigmas: Tensor

    def noise(self, rows: int = 1) -> Tensor:
        """(rows, C, h, w) at sigmas[0], each row another."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((rows, *self.latent.shape[1:]), generator=generator).to(self.latent)
        return self.backbone.schedule.noised(self.latent, noise, self.sigmas[0])


def place(name: str, side: int = 0) -> Place:
    """On the GPU where torch sees one. name: of `NETWORKS`. side: of the latent; 0: the network's own."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    if name == "toy":
        network, own = load_toy_model(device=device).backbone.network, IMAGE_SIZE // 4
        context = torch.randn(1, MAX_TOKENS, TEXT_WIDTH)
    else:
        network, own = larger_unet().to(device), LARGER_SIDE
        context = torch.randn(1, TOKENS, CONTEXT_WIDTH)
    backbone = UnetBackbone(network, VariancePreserving(sigmas_of(alphas_cumprod()).to(device)))
    sigmas = ddim_sigmas(backbone.schedule.sigmas, STEPS)
    latent = torch.randn(1, 4, side or own, side or own)
    return Place(backbone, latent.to(device), Text(context.to(device)), sigmas)


def larger_unet() -> torch.nn.Module:
    """Stable Diffusion 1.5's but for its widths; random weights."""
    from diffusers import UNet2DConditionModel

    return (
        UNet2DConditionModel(  # type: ignore[no-any-return]
            sample_size=LARGER_SIDE, block_out_channels=LARGER_WIDTHS, cross_attention_dim=CONTEXT_WIDTH
        )
        .eval()
        .requires_grad_(False)
    )


def ratios(works: Sequence[Work], floor: Work, repeats: int) -> list[float]:
    """What each work takes in relation to floor: the median over rounds in which all run, one after the other."""
    for work in (floor, *works):
        work()
    rounds = [[seconds(work) for work in (floor, *works)] for _ in range(repeats)]
    return [statistics.median(times[1 + i] / times[0] for times in rounds) for i in range(len(works))]


def seconds(work: Work) -> float:
    """By `now`."""
    start = now()
    work()
    return now() - start


def now() -> float:
    """The processor's time where one thread of it computes, which nothing else that runs counts in; else the clock's.

    Once a GPU has done what it has to do.
    """
    finish()
    one_thread = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if one_thread else time.perf_counter()


def saved_bytes(at: Place, work: Work) -> int:
    """Of all that work saves for backward, each memory once, without what is the backbone's own."""
    own = [*at.backbone.network.parameters(), at.backbone.schedule.sigmas]
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other gets its place
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in known)
