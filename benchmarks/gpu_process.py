"""Measuring in a process of its own, which begins anew for what is left when it dies, hangs or loses its GPU."""

import gc
import tempfile
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.comfyui import load_comfyui
from benchmarks.cost import finish
from benchmarks.gpu_models import KINDS, Kind
from benchmarks.gpu_works import MOST_UNITS, WORKS, Measured, Subject, invert, measure, subject

PATIENCE = 120  # seconds that a work may take, with starting the process and building the network
FAREWELL = 10  # seconds that a process may take to end
LONGEST_REASON = 120  # characters

READY = "ready"
TOO_LONG = f"failed: took more than {PATIENCE} s, or its process ended"

Task = tuple[str, str]  # precision, work


def results(name: str, small: bool, tasks: list[Task], comfyui: Path) -> Iterator[tuple[Task, Measured | str]]:
    """What each task measures, as soon as it has, or why it could not; a task begins when it is asked for.

    Raises `RuntimeError` where ComfyUI cannot be imported.
    """
    left = list(tasks)
    while left:
        ours, theirs = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=_serve, args=(theirs, name, small, comfyui), daemon=True)
        process.start()
        theirs.close()
        try:
            if (reason := _answer(ours)) != READY:
                raise RuntimeError(f"ComfyUI cannot be imported: {reason or 'its process ended'}")
            while left:
                task = left.pop(0)
                ours.send(task)
                result, goes_on = _answer(ours) or (TOO_LONG, False)
                yield task, result
                if not goes_on:
                    process.kill()
                    break
        finally:
            ours.close()  # which ends it
            process.join(FAREWELL)
            process.kill()


def _answer(connection: Connection) -> Any:
    """None where none comes."""
    try:
        return connection.recv() if connection.poll(PATIENCE) else None
    except (EOFError, OSError):
        return None


def _serve(connection: Connection, name: str, small: bool, comfyui: Path) -> None:
    kind = KINDS[name].small() if small else KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        if small:
            torch.set_num_threads(1)
        try:
            load_comfyui(comfyui, folder, *(() if torch.cuda.is_available() else ("--cpu",)))
        except Exception as error:
            connection.send(_reason(error))
            return
        connection.send(READY)
        bench = _Bench(kind, most=2 if small else MOST_UNITS)
        try:
            while True:
                connection.send((bench.result(connection.recv()), _gpu_works()))
        except EOFError:
            return


def _gpu_works() -> bool:
    """False where an error has left it useless to this process."""
    try:
        finish()
    except RuntimeError:
        return False
    return True


def _reason(error: Exception) -> str:
    """In one line, for a cell of a table."""
    return " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())[:LONGEST_REASON]


class _Bench:
    """Holds one network at a time, and the inversions of those that it held."""

    def __init__(self, kind: Kind, most: int) -> None:
        self.kind, self.most = kind, most
        self.place: Subject | None = None
        self.precision = ""
        self.inverted: dict[str, Tensor] = {}

    def result(self, task: Task) -> Measured | str:
        precision, name = task
        try:
            place = self._subject(precision)
            place.notes.clear()
            if name == "DDIM Invert":
                place.notes.append(self._differences(precision, invert(place, 1).float()))
            return measure(WORKS[name][0], place, self.most)
        except Exception as error:
            self.precision = ""  # the next one begins with a new network
            return f"failed: {_reason(error)}"

    def _subject(self, precision: str) -> Subject:
        if self.place is None or precision != self.precision:
            self._drop()
            self.place, self.precision = subject(self.kind, precision), precision
        return self.place

    def _drop(self) -> None:
        import comfy.model_management

        self.place = None
        comfy.model_management.unload_all_models()
        gc.collect()
        comfy.model_management.soft_empty_cache()

    def _differences(self, precision: str, noise: Tensor) -> str:
        """How far the noise in the precisions before is from this one's, in relation to it."""
        self.inverted[precision] = noise
        size = noise.square().mean().sqrt()
        away = {other: (found - noise).square().mean().sqrt() / size for other, found in self.inverted.items()}
        return ", ".join(f"{other} {100 * share:.2g} % away" for other, share in away.items() if other != precision)
