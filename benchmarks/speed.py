"""What the methods cost beside their networks, as ratios of one run: python -m benchmarks.speed

Each row has a process of its own, one after the other, of one thread where nothing else is said. The larger UNet is
Stable Diffusion 1.5's but for its widths and has random weights. With ComfyUI (COMFYUI_PATH) the nodes are measured
too, and with a GPU networks of the published shapes (`benchmarks.gpu`).
"""

from functools import partial

from benchmarks.comfyui import find_comfyui
from benchmarks.gpu import NO_COMFYUI
from benchmarks.runner import arguments
from benchmarks.speed_comfyui import over_the_bare_sampler
from benchmarks.speed_morph import over_the_bare_network
from benchmarks.speed_networks import NETWORKS
from morph_core.recipes.morph import Morph

ROWS = (2, 8, 16)
THREADS = (1, 2)
FRAMES = (8, 16, 32, 64)
PART = 8
OVERHEAD = ["network", "rows", "threads", "LoRA blend", "attention", "both"]
MORPHS = {
    "two passes": Morph(),
    "two passes, exact ends": Morph(exact_ends=True),
    "first pass of every fifth step": Morph(first_pass_stride=5),
    "eight frames at a time": Morph(frames_per_batch=PART),
    "one pass": Morph(reschedule=False),
}


def main() -> None:
    given = arguments(__doc__, parallel=False, repeats=9, units=10, rows=16, frames=64, steps=50)
    comfyui = find_comfyui()
    cases = [(network, rows, threads) for threads in THREADS for network in NETWORKS for rows in ROWS]
    cases = [case for case in cases if case[1] <= given.rows]
    title("Over the bare network, in the library")
    print_rows(OVERHEAD, cases, lambda *case: partial(over_the_bare_network, *case[:2], given.repeats, case[2]))
    title("Over KSampler without them, in ComfyUI")
    if comfyui is None:
        print(NO_COMFYUI)
    else:
        print_rows(
            OVERHEAD, cases, lambda *case: partial(over_the_bare_sampler, comfyui, *case[:2], given.repeats, case[2])
        )


def title(text: str) -> None:
    print(f"\n{text}\n", flush=True)
