"""What every benchmark does: read its command line, measure in processes of one thread each, print tables."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar, get_args

import torch

from morph_core.toy.model import Network

Result = TypeVar("Result")


def arguments(
    doc: str | None, pictures: str = "", parallel: bool = True, networks: bool = False, **counts: int
) -> argparse.Namespace:
    """The command line: a number for each of `counts`, --pictures where any are saved, --workers unless one at a time.

    doc: the benchmark's docstring. pictures: what is saved. networks: whether the toy model's network is a choice.
    counts: what is counted, such as images, and its default.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"default: {default}")
    if parallel:
        parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes, default: 2")
    if networks:
        parser.add_argument("--network", choices=get_args(Network), default="UNet", help="the toy model's")
    if pictures:
        parser.add_argument("--pictures", type=Path, metavar="FOLDER", help=f"save {pictures} into this folder")
    return parser.parse_args()


def measured(jobs: Iterable[Callable[[], Result]], workers: int) -> list[Result]:
    """What the jobs return, in their order; each is a function of a module, or a `partial` of one."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        return list(pool.map(_call, jobs))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def _one_thread() -> None:
    torch.set_num_threads(1)


def _call(job: Callable[[], Result]) -> Result:
    return job()
