"""What a computation costs: seconds, and the peak of the GPU's memory where torch sees one, else of the process."""

import sys
import time
from collections.abc import Callable

import torch


def timed(work: Callable[[], object]) -> float:
    """Seconds, those of what the GPU still has to do included."""
    finish()
    start = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - start


def finish() -> None:
    """Wait for what the GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """Of this process, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    from resource import RUSAGE_SELF, getrusage  # which Windows does not have

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """From here on `peak_memory` is of what follows; of a process without a GPU it stays."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
