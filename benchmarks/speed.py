"""What the methods cost beside their networks, as ratios of one run: python -m benchmarks.speed

Each row has a process of its own, one after the other, of one thread where nothing else is said. The larger UNet is
Stable Diffusion 1.5's but for its widths, and random. With ComfyUI (COMFYUI_PATH) the nodes are measured too, and with
a GPU networks of the published shapes (`benchmarks.gpu`).
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import speed_drag, speed_fit
from benchmarks.comfyui import find_comfyui
from benchmarks.gpu import NO_COMFYUI, NO_GPU
from benchmarks.runner import arguments, measured, table
from benchmarks.speed_comfyui import over_the_bare_sampler
from benchmarks.speed_morph import against_frames, cheaper_first_passes, over_the_bare_network, whole_morph
from benchmarks.speed_networks import NETWORKS
from morph_core.recipes.morph import Morph

ROWS, THREADS, FRAMES, SIDES = (2, 8, 16), (1, 2), (8, 16, 32, 64), (32, 64, 128)
STRIDES = (2, 5, 10)
PART = 8  # frames at a time
PATCHES = ["LoRAs blended", "ends' attention", "both"]
MORPHS = {
    "two passes": Morph(),
    "two passes, exact ends": Morph(exact_ends=True),
    "two passes, eight frames at a time": Morph(frames_per_batch=PART),
    "first pass in every fifth step": Morph(first_pass_stride=5),
    "one pass": Morph(reschedule=False),
}


def main() -> None:
    given = arguments(__doc__, parallel=False, repeats=9, units=10, rows=16, frames=64, side=128, pairs=8)
    repeats, comfyui = given.repeats, find_comfyui()
    cases = [(network, rows, threads) for network in NETWORKS for threads in THREADS for rows in ROWS]
    cases = [case for case in cases if case[1] <= given.rows]
    header = ["network", "rows", "threads", *PATCHES]
    show("A call in the library, over the bare network's", header, cases, partial(over_the_bare, repeats))
    if comfyui is None:
        print(f"\n{NO_COMFYUI}")
    else:
        job = partial(in_comfyui, comfyui, repeats)
        show("KSampler in ComfyUI with the nodes, over KSampler without", header, cases, job)
    sides = [("toy", 2, 1, side) for side in SIDES if side <= given.side]
    header = ["network", "rows", "threads", "side of the latent", *PATCHES]
    show("The same in the library by size", header, sides, partial(over_the_bare, max(1, repeats // 3)))
    morphs = {name: config for name, config in MORPHS.items() if given.frames >= config.frames}
    header = ["morph of 16 frames, the toy", "rows sampled", "inverted in calls", "time over its bare calls"]
    show("A whole morph without fits", header, [(name,) for name in morphs], whole_morph_of)
    show_first_passes(given.pairs)
    show_growth([frames for frames in FRAMES if frames <= given.frames])
    header = ["network", "work", "time over forward and backward", "kept for backward"]
    show_all("An update of a LoRA", header, partial(speed_fit.rows, units=given.units), repeats)
    header = ["network", "work", "time over forward and backward", "forwards a level beside", "kept for backward"]
    show_all("An update of a drag", header, partial(speed_drag.rows, units=given.units), repeats)
    print()
    if torch.cuda.is_available():
        subprocess.run([sys.executable, "-m", "benchmarks.gpu"], check=True)
    else:
        print(NO_GPU)


def over_the_bare(repeats: int, network: str, rows: int, threads: int, side: int = 0) -> list[str]:
    return over_the_bare_network(rounds(repeats, network, rows), network, rows, threads, side)


def in_comfyui(comfyui: Path, repeats: int, network: str, rows: int, threads: int) -> list[str]:
    return over_the_bare_sampler(comfyui, rounds(repeats, network, rows), network, rows, threads)


def rounds(repeats: int, network: str, rows: int = 4) -> int:
    """Fewer of what takes long and so scatters less."""
    return repeats if network == "toy" else max(min(3, repeats), repeats // rows)


def whole_morph_of(name: str) -> list[str]:
    return whole_morph(MORPHS[name])


def show(title: str, header: Sequence[str], cases: Iterable[Sequence[Any]], job: Callable[..., list[str]]) -> None:
    """Print a row for each case, with what the job returns of it, as soon as it has."""
    start(title, header)
    for case in cases:
        [cells] = measured([partial(job, *case)], workers=1)
        print(table(header, [[*map(str, case), *cells]]).splitlines()[-1], flush=True)


def show_all(title: str, header: Sequence[str], job: Callable[..., list[list[str]]], repeats: int) -> None:
    """The same of a job that returns several rows of each network."""
    start(title, header)
    for network in NETWORKS:
        [rows] = measured([partial(job, network, repeats=rounds(repeats, network))], workers=1)
        print("\n".join(table(header, [[network, *cells] for cells in rows]).splitlines()[2:]), flush=True)


def show_first_passes(pairs: int) -> None:
    found = measured([partial(cheaper_first_passes, pair, pairs, STRIDES) for pair in range(pairs)], workers=2)
    start(
        "The alphas after a first pass in every n-th step, against one in all, in mean spacings", ["n", "mean", "most"]
    )
    for place, stride in enumerate(STRIDES):
        means, most = zip(*(pair[place] for pair in found), strict=True)
        print(f"| {stride} | {sum(means) / pairs:.3f} | {max(most):.2f} |", flush=True)


def show_growth(counts: Sequence[int]) -> None:
    """How one pass of the toy grows with its frames, all at once and in parts, with lines through what was found."""
    header = ["frames", "time a frame", "memory", f"time a frame, {PART} at a time", f"memory, {PART} at a time"]
    start("A pass by the number of frames: time in that of the first row's frame", header)
    found = [
        [measured([partial(against_frames, frames, size)], workers=1)[0] for size in (0, PART)] for frames in counts
    ]
    unit = found[0][0][0] / counts[0]
    for frames, row in zip(counts, found, strict=True):
        cells = [cell for spent, taken in row for cell in (f"{spent / frames / unit:.2f}", f"{taken:.0f} MB")]
        print(table(header, [[str(frames), *cells]]).splitlines()[-1], flush=True)
    for name, column in (("All at once", 0), (f"{PART} at a time", 1)):
        times, memory = (np.array([row[column][kind] for row in found]) for kind in (0, 1))
        off = times - np.polyval(np.polyfit(counts, times, 1), counts)
        growth = np.polyfit(counts, memory, 1)[0]
        print(
            f"\n{name}: a line through the times is off by {100 * np.abs(off / times).max():.0f} % at most; "
            f"memory grows by {growth:.2f} MB a frame."
        )


def start(title: str, header: Sequence[str]) -> None:
    print(f"\n{title}\n\n{table(header, [])}", flush=True)


if __name__ == "__main__":
    main()
