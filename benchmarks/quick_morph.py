"""Is the quick morph as good as the full one, and how much sooner? python -m benchmarks.quick_morph [--pairs N]

Prints averages over the pairs of benchmarks.morph by its measures, and what a method asks of the network, in rows, and
takes, as shares of the full method's. An update of a LoRA counts as three rows: one forwards, two for its gradients.
"""

from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.factor_network import load_factor_network
from benchmarks.held_out import held_out
from benchmarks.morph import FULL, QUICK, SLERP, measure
from benchmarks.runner import arguments, measured, table
from benchmarks.speed_morph import counted
from morph_core.recipes.morph import Morph, morph
from morph_core.toy.drawing import Drawings
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model

METHODS = {"full": FULL, "latent slerp, rescheduled": SLERP, "quick": QUICK}
BACKWARD_ROWS = 2  # of an update, beside the one that the network is called with


def made(model: ToyModel, drawings: Drawings, pair: int, config: Morph) -> tuple[Tensor, float, float]:
    """Of drawings 2·pair and 2·pair + 1: a method's frames (F, 3, H, W), its rows of the network and its seconds."""
    images = drawings.render(IMAGE_SIZE)[2 * pair : 2 * pair + 2].split(1)
    captions = drawings.captions[2 * pair : 2 * pair + 2]
    with counted(model.backbone.network) as calls:
        start = perf_counter()
        frames = morph(model, (images[0], images[1]), (captions[0], captions[1]), config).frames
        seconds = perf_counter() - start
    updates = len(images) * config.lora.steps if config.lora else 0
    return frames, sum(calls) + BACKWARD_ROWS * updates, seconds


def measure_pair(pair: int, pairs: int) -> dict[str, Tensor]:
    """Method -> `measure` of one pair's frames, rows and seconds."""
    model, network, drawings = load_toy_model(), load_factor_network(), held_out(2 * pairs, offset=2)
    images = drawings.render(IMAGE_SIZE)[2 * pair : 2 * pair + 2]
    ends = model.decode_latents(model.encode_images(images))
    results = {}
    for name, config in METHODS.items():
        frames, rows, seconds = made(model, drawings, pair, config)
        results[name] = torch.cat([measure(network, frames, ends), torch.tensor([rows, seconds])])
    return results


def main() -> None:
    given = arguments(__doc__, parallel=False, pairs=16)
    results = measured([partial(measure_pair, pair, given.pairs) for pair in range(given.pairs)], workers=1)
    means = {name: torch.stack([result[name] for result in results]).mean(0) for name in METHODS}
    rows_of_full, seconds_of_full = means["full"][5:].tolist()
    lines = []
    for name, values in means.items():
        length, variance, longest, error, _, rows, seconds = values.tolist()
        quality = [f"{length:.2f}", f"{variance:.0f}", f"{longest:.2f}", f"{error:.4f}"]
        lines.append([name, *quality, f"{rows / rows_of_full:.2f}", f"{seconds / seconds_of_full:.2f}"])
    measures = ["path length", "variance of steps ×1000", "longest / mean step", "drawing error"]
    print(table(["method", *measures, "rows of the network", "time"], lines))


if __name__ == "__main__":
    main()
