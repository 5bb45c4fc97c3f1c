"""Can a transformer's features lead a drag? python -m benchmarks.transformer_drag [--drags N] [--pictures FOLDER]

The drags of `benchmarks.drag`, by GoodDrag with the toy transformer, once for the output of every block that is asked:
its image tokens, as a map. The UNet's second to last up block, as `benchmarks.drag` uses it, stands beside them.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.drag import GOOD_DRAG, LORA, METHODS, Measured, Task, kinds_of, make_task, measure, rows
from benchmarks.factor_network import load_factor_network
from benchmarks.pictures import sheet
from benchmarks.runner import arguments, measured, table
from morph_core.denoise import Denoise
from morph_core.dragging.latent import drag_latent
from morph_core.lora.merge import whole_lora
from morph_core.models.feature_map import FeatureMap
from morph_core.models.features import CELLS_PER_LATENT_CELL, ReadFeatures
from morph_core.models.transformer import PATCH
from morph_core.recipes.drag import Drag, drag_prepared, sample_beside
from morph_core.recipes.image import inverted, lora_layers, prepare_image
from morph_core.toy.model import ToyModel, load_toy_model

STEPS, STRENGTH = 50, 0.75
BLOCKS = {"first double block": 0, "last double block": 1, "second single block": 3, "fourth single block": 5}
LEARNING_RATES = (0.02, 0.1)  # GoodDrag's, and as much more as moves the transformer's latents


def token_features(block: nn.Module, denoise: Denoise) -> ReadFeatures:
    """The image tokens that a block puts out, as a map of the size of those of `up_block_features`."""

    def read(x: Tensor, sigma: Tensor, wants_x0: bool) -> tuple[FeatureMap, Tensor | None]:
        seen: list[Tensor] = []
        handle = block.register_forward_hook(lambda module, args, output: seen.append(output[1]))
        try:
            x0 = denoise(x, sigma)
        finally:
            handle.remove()
        height, width = x.shape[-2:]
        tokens = seen[0].float().transpose(1, 2).unflatten(-1, (height // PATCH, width // PATCH))
        return FeatureMap(tokens, (CELLS_PER_LATENT_CELL * height, CELLS_PER_LATENT_CELL * width)), x0

    return read


def drag_by_block(model: ToyModel, task: Task) -> dict[str, Tensor]:
    """Block and learning rate -> (1, 3, S, S)."""
    prepared, backbone = prepare_image(model, task.image, task.caption, LORA), model.backbone
    network: Any = backbone.network
    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    sigmas = backbone.schedule.spaced(STEPS)[STEPS - round(STRENGTH * STEPS) :]
    noise = inverted(model, prepared, sigmas).noise
    pictures = {}
    for rate in LEARNING_RATES:
        config = replace(GOOD_DRAG, learning_rate=rate)
        for name, place in BLOCKS.items():
            denoise = backbone.denoiser(prepared.text)
            with whole_lora(lora_layers(model, prepared)):
                read = token_features(blocks[place], denoise)
                result = drag_latent(read, backbone.schedule, noise, sigmas, task.points, config)
                rest = sigmas[result.level :]
                images = sample_beside(model, denoise, result.original, result.dragged, rest, Drag().reference)
            pictures.setdefault("no drag", images[:1])
            pictures[f"{name}, rate {rate:g}"] = images[1:]
    return pictures


def measure_task(place: int, folder: Path | None) -> Measured:
    """The place-th drag, by every block."""
    task, network = make_task(place), load_factor_network()
    pictures = drag_by_block(load_toy_model("transformer"), task)
    unet = load_toy_model()
    beside = prepare_image(unet, task.image, task.caption, LORA)
    pictures["UNet"] = drag_prepared(unet, beside, task.points, METHODS["GoodDrag"]).dragged
    if folder:
        shown = torch.cat([task.image, *pictures.values(), task.answer])
        sheet(shown, folder / f"transformer_drag_{place:02}.png", columns=len(shown))
    values = {name: measure(network, task, picture) for name, picture in pictures.items()}
    return Measured(task.name, task.distances.mean().item(), values)


def main() -> None:
    given = arguments(__doc__, drags=8, pictures="each drag's pictures, a column a block,")
    results = measured([partial(measure_task, place, given.pictures) for place in range(given.drags)], given.workers)
    first, *others = kinds_of(results)
    print(
        table(
            ["features", "distance left", "PSNR outside", "PSNR to the answer", f"left: {first}", *others],
            rows(results),
        )
    )


if __name__ == "__main__":
    main()
