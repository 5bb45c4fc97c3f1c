"""What the nodes cost in ComfyUI with networks of the published shapes on a GPU: python -m benchmarks.gpu [MODEL ...]

The weights are random and drawn on the GPU, the images and prompts random too: nothing is downloaded. Seconds are of
one step or update, without what a run begins with; peak memory is what torch took, weights included. A morph samples
with LoRA Blend and Attention KV Inject; *forward and backward* is what a fit cannot do without. The last column sets a
row beside the one that it names, and tells what a fit's loss was and how far what an inversion of one step finds in the
precisions before is from what it finds in this one. Each model has a process of its own; a row that fails says why.
--small takes small networks, on the CPU too.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.comfyui import find_comfyui
from benchmarks.gpu_models import KINDS
from benchmarks.gpu_process import Task, results
from benchmarks.gpu_works import WORKS, Measured, tasks
from benchmarks.runner import table

HEADER = ["model", "precision", "work", "time", "peak memory", "weights", "beside"]
NO_COMFYUI = "no ComfyUI: set COMFYUI_PATH to a folder that holds its main.py"
NO_GPU = "no GPU: torch sees none. --small measures small networks on the CPU."


def row(title: str, task: Task, result: Measured | str, seconds: dict[Task, float]) -> list[str]:
    """seconds: of the rows before, by their tasks; this one's is added."""
    precision, work = task
    if isinstance(result, str):
        return [title, precision, work, result, "", "", ""]
    seconds[task] = result.seconds
    ratios = []
    for other in ((precision, WORKS[work][1]), ("bf16", work)):
        if other in seconds and other != task:
            ratios.append(f"{result.seconds / seconds[other]:.2f} × {other[1] if other[0] == precision else other[0]}")
    cells = [f"{1000 * result.seconds:.1f} ms", f"{result.peak / 1e9:.2f} GB", f"{result.weights / 1e9:.2f} GB"]
    return [title, precision, work, *cells, "; ".join([*ratios, *filter(None, [result.note])])]


def measured_until(end: float, name: str, small: bool, comfyui: Path) -> int:
    """Print a model's rows, each as soon as it is measured; returns how many there was no time for."""
    kind = KINDS[name].small() if small else KINDS[name]
    title, todo, seconds = f"{kind.title}, {kind.side}²", tasks(name, kind), dict[Task, float]()
    if time.monotonic() < end:
        for task, result in results(name, small, tasks(name, kind), comfyui):
            print(table(HEADER, [row(title, task, result, seconds)]).splitlines()[-1], flush=True)
            todo.remove(task)
            if time.monotonic() > end:
                break
    return len(todo)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--small", action="store_true", help="small networks, to try this out")
    parser.add_argument("--seconds", type=int, default=200, metavar="N", help="begin no row later; default: 200")
    given = parser.parse_args()
    if unknown := set(given.models) - set(KINDS):
        parser.error(f"unknown model {', '.join(sorted(unknown))}; expected {', '.join(KINDS)}")
    if not (given.small or torch.cuda.is_available()):
        print(NO_GPU)
        return
    comfyui = find_comfyui()
    if comfyui is None:
        parser.error(NO_COMFYUI)

    end = time.monotonic() + given.seconds
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    print(f"On {where}, with torch {torch.__version__}.\n")
    print(table(HEADER, []), flush=True)
    left = {}
    for name in given.models or KINDS:
        try:
            left[KINDS[name].title] = measured_until(end, name, given.small, comfyui)
        except RuntimeError as error:
            sys.exit(str(error))
    if missing := [f"{rows} of {title}" for title, rows in left.items() if rows]:
        print(f"\nRows that there was no time for: {', '.join(missing)}.")


if __name__ == "__main__":
    main()
