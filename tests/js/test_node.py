"""Runs the tests of the JavaScript modules that need no browser."""

import shutil
import subprocess
from pathlib import Path

import pytest

from morph_tests.promises import absent

TESTS = sorted(Path(__file__).parent.glob("*.test.mjs"))
OLDEST_NODE = (20, 19)  # as package.json says


@pytest.fixture(scope="module")
def node() -> str:
    command = shutil.which("node")
    if command is None:
        absent("node", "The JavaScript tests need Node.js: install it from nodejs.org or the system's packages.")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < OLDEST_NODE:
        oldest = ".".join(map(str, OLDEST_NODE))
        absent("node", f"The JavaScript tests need Node.js {oldest} or newer; this is {version}.")
    return command


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name.removesuffix(".test.mjs"))
def test_javascript(node: str, test: Path) -> None:
    run = subprocess.run([node, "--test", str(test)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
