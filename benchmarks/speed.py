"""How fast the toy model is fitted, dragged, inverted and sampled, and in how much memory: python -m benchmarks.speed

Each row is measured in a process of its own, one after the other, on the GPU where torch sees one, else on one thread:
the median of --repeats runs of --units updates or steps, after a run that does not count. Peak memory is what torch
took of the GPU, else the process's, whose first row shows what importing and loading take.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.cost import peak_memory, timed
from benchmarks.held_out import held_out
from benchmarks.runner import arguments, measured, table
from morph_core.attention.end_frames import first_row_alphas, mixed_self_attention
from morph_core.denoise import Denoise
from morph_core.dragging.latent import drag_latent, published
from morph_core.dragging.points import DragPoints
from morph_core.lora.fit import LoraFit, fit_lora
from morph_core.models.backbone import EditableBackbone
from morph_core.models.features import up_block_features
from morph_core.models.text import Text
from morph_core.sampling import ddim
from morph_core.sampling.schedule import ddim_sigmas
from morph_core.toy.model import IMAGE_SIZE, load_toy_model

STEPS, LEFT = 50, 35  # sampling steps in all, and how many of them are left where a drag begins
POINTS = DragPoints(torch.tensor([[0.3, 0.5]]), torch.tensor([[0.7, 0.5]]))
NEVER = 1e-6  # a reach in which no handle ever is
HALF = torch.ones(1, 1, IMAGE_SIZE, IMAGE_SIZE).triu()  # a mask


@dataclass(frozen=True)
class Scene:
    """The toy model's network and a drawing: latent (1, C, h, w), its caption, noise at sigmas[0], sigmas (S + 1,)."""

    backbone: EditableBackbone
    latent: Tensor
    text: Text
    noise: Tensor
    sigmas: Tensor

    @property
    def denoise(self) -> Denoise:
        return self.backbone.denoiser(self.text)


def scene() -> Scene:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, drawing = load_toy_model(device=device), held_out(1)
    backbone, latent = model.backbone, model.encode_images(drawing.render(IMAGE_SIZE))
    sigmas = ddim_sigmas(backbone.schedule.sigmas, STEPS)[-LEFT - 1 :]
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)).to(latent)
    noised = backbone.schedule.noised(latent, noise, sigmas[0])
    return Scene(backbone, latent, model.encode_text(drawing.captions), noised, sigmas)


def load(scene: Scene, units: int) -> None:
    """Nothing more."""


def fit(scene: Scene, units: int) -> None:
    fit_lora(scene.backbone, scene.latent, scene.text, LoraFit(steps=units))


def drag(scene: Scene, units: int, objective: str, mask: Tensor | None = None) -> None:
    read = up_block_features(scene.backbone.up_blocks(), scene.denoise)
    config = replace(published(objective), iterations=units, levels=1, reach=NEVER)
    drag_latent(read, scene.backbone.schedule, scene.noise, scene.sigmas, POINTS, config, mask)


@torch.no_grad()
def invert(scene: Scene, units: int) -> None:
    sigmas = ddim_sigmas(scene.backbone.schedule.sigmas, units)
    ddim.invert(scene.denoise, scene.latent, sigmas, scene.backbone.schedule)


@torch.no_grad()
def sample(scene: Scene, units: int) -> None:
    """Of two rows, the second of which looks at the first, as a dragged image does at its original."""
    rows, layers = scene.noise.repeat(2, 1, 1, 1), scene.backbone.attention_layers()
    with mixed_self_attention(layers, first_row_alphas(len(rows)), blocks="last two up blocks"):
        ddim.sample(scene.denoise, rows, ddim_sigmas(scene.backbone.schedule.sigmas, units))


WORKS: dict[str, tuple[Callable[[Scene, int], None], str]] = {  # and what a unit of it is
    "loading alone": (load, ""),
    "LoRA fit": (fit, "an update"),
    "drag, DragDiffusion": (partial(drag, objective="DragDiffusion"), "an update"),
    "drag, GoodDrag": (partial(drag, objective="GoodDrag"), "an update"),
    "drag, GoodDrag, mask": (partial(drag, objective="GoodDrag", mask=HALF), "an update"),
    "inversion": (invert, "a step"),
    "sampling beside the original": (sample, "a step"),
}


def measure(name: str, repeats: int, units: int) -> tuple[float, float]:
    """Seconds a unit, median, and the peak memory of this process in MB."""
    work, place = WORKS[name][0], scene()
    seconds = [timed(partial(work, place, units)) / units for _ in range(1 + repeats)]
    return statistics.median(seconds[1:]), peak_memory() / 1e6


def main() -> None:
    given = arguments(__doc__, parallel=False, repeats=5, units=10)
    rows = []
    for name, (_, unit) in WORKS.items():
        [(seconds, memory)] = measured([partial(measure, name, given.repeats, given.units)], workers=1)
        rows.append([name, f"{1000 * seconds:.1f} ms {unit}" if unit else "", f"{memory:.0f} MB"])
    print(table(["work", "time", "peak memory"], rows))


if __name__ == "__main__":
    main()
