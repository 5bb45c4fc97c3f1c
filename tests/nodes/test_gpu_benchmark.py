"""The benchmark of the nodes on a GPU runs, with small networks on the CPU, and says so where there is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from morph_tests.comfy_host import find_comfyui

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    named = {"PYTHONUTF8": "1", "COMFYUI_PATH": str(find_comfyui()), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    given = {**os.environ, **named, **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=given)


def rows(run: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert run.returncode == 0, run.stderr
    header, _, *lines = (line for line in run.stdout.splitlines() if line.startswith("|"))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert {len(row) for row in cells} <= {header.count("|") - 1}
    return cells


@pytest.mark.slow
def test_without_a_gpu_it_says_so() -> None:
    run = benchmark()
    assert run.returncode == 0 and run.stdout.startswith("no GPU")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="Its rows are of the CPU.")
@pytest.mark.parametrize(
    "model", ["flux", *(pytest.param(name, marks=pytest.mark.benchmark) for name in ("sd15", "sdxl", "z_image"))]
)
def test_every_row_is_measured(model: str) -> None:
    found = rows(benchmark("--small", model))
    assert len(found) == {"sd15": 19, "sdxl": 19, "flux": 10, "z_image": 10}[model]
    for _, _, work, seconds, *_, beside in found:
        assert re.fullmatch(r"-?[\d.]+ ms", seconds), f"{work}: {seconds}"
        assert not re.search(r"\b(nan|inf)\b", beside)


@pytest.mark.slow
def test_no_row_begins_when_the_time_is_over() -> None:
    run = benchmark("--small", "--seconds", "0", "sd15")
    assert not rows(run) and "no time for: 19 of SD 1.5." in run.stdout


@pytest.mark.slow
def test_a_comfyui_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    run = benchmark("--small", "sd15", COMFYUI_PATH=str(tmp_path))
    assert run.returncode and "ComfyUI cannot be imported: ModuleNotFoundError" in run.stderr
