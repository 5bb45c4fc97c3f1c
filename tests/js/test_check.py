"""The check of the JavaScript without npm, and where npm gets what it installs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("required", "code"), [("", 0), ("chromium", 0), ("node", 1), ("comfyui, node", 1)])
def test_without_npm_the_check_is_skipped_unless_node_is_required(tmp_path: Path, required: str, code: int) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "check_javascript.py")]
    environment = {**os.environ, "PATH": str(tmp_path), "MORPH_REQUIRE": required}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (code, "")
    assert "npm is missing" in run.stdout


def test_packages_come_from_the_public_registry() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    named = {package["resolved"] for package in packages.values() if "resolved" in package}
    assert [address for address in named if not address.startswith("https://registry.npmjs.org/")] == []
