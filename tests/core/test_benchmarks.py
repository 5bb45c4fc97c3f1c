"""Each benchmark runs and prints a table of finite numbers; how they compare pictures, and print."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from morph_pack.benchmarks.pictures import decibels, differing, psnr
from morph_pack.benchmarks.runner import table

ROOT = Path(__file__).resolve().parents[2]
UTF8 = {"PYTHONUTF8": "1"}  # the tables have a ×
SMALLEST = {
    "drag": ("--drags", "1"),
    "edit": ("--images", "1"),
    "inversion": ("--images", "1"),
    "layouts": ("--pairs", "1"),
    "local_morph": ("--pairs", "1"),
    "lora_fit": ("--images", "1", "--updates", "8"),
    "morph": ("--pairs", "1"),
    "morph_within": ("--pairs", "1"),
    "published": ("--images", "1", "--pairs", "1"),
    "quick_morph": ("--pairs", "1"),
    "spacing": ("--pairs", "1", "--dense", "9"),
    "speed": ("--repeats", "1", "--units", "1", "--rows", "2", "--frames", "16", "--side", "32", "--pairs", "1"),
    "transformer_drag": ("--drags", "1"),
    "toy_model": ("--images", "1", "--samples", "1"),
    "warp": ("--drags", "1"),
}


def test_all_benchmarks_are_run_here() -> None:
    files = (ROOT / "benchmarks").glob("*.py")
    with_comfyui = {"gpu"}  # in tests/nodes
    found = {path.stem for path in files if "def main" in path.read_text(encoding="utf-8")}
    assert found == set(SMALLEST) | with_comfyui


LONG = (
    "edit",
    "inversion",
    "layouts",
    "local_morph",
    "lora_fit",
    "morph",
    "morph_within",
    "published",
    "quick_morph",
    "spacing",
    "speed",
    "transformer_drag",
    "warp",
)  # minutes: fits, and embeddings of 50 steps
RUNS = [pytest.param(name, marks=pytest.mark.benchmark if name in LONG else pytest.mark.slow) for name in SMALLEST]


@pytest.mark.parametrize("name", RUNS)
def test_the_smallest_run_prints_a_table_of_finite_numbers(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALLEST[name]]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env={**os.environ, **UTF8})
    assert run.returncode == 0, run.stderr
    assert not re.search(r"\b(nan|inf)\b", run.stdout)
    tables = re.findall(r"(?:^\|.*\n)+", run.stdout, re.MULTILINE)
    assert tables
    for lines in tables:
        header, line, *rows = (text.split("|")[1:-1] for text in lines.splitlines())
        assert set(line) == {"---"}
        assert rows
        assert {len(row) for row in rows} == {len(header)}
        assert all(re.search(r"\d|exact", "".join(row[1:])) for row in rows)


def test_psnr_of_a_known_difference() -> None:
    black, left = torch.zeros(2, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    left[..., :2] = 1
    other = black.clone()
    other[1, :, :, :2] = 0.1
    values = psnr(black, other)
    assert decibels(values[0].item()) == "exact"
    torch.testing.assert_close(values[1].item(), 20 + 10 * math.log10(2))
    torch.testing.assert_close(psnr(black[1:], other[1:], left), torch.tensor([20.0]))
    assert decibels(psnr(black[1:], other[1:], 1 - left).item()) == "exact"
    assert torch.equal(differing(black[1:], other[1:]), left)


def test_what_is_not_a_number_is_printed_as_such() -> None:
    assert decibels(float("nan")) == "nan dB"


def test_a_table_in_markdown() -> None:
    assert table(["method", "PSNR"], [["DDIM", "45.8 dB"]]) == "| method | PSNR |\n|---|---|\n| DDIM | 45.8 dB |"
