"""Starting ComfyUI with the pack costs nothing that is not used: the heavy packages are not imported."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morph_tests.comfy_host import find_comfyui

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("diffusers", "peft", "lpips")

# ComfyUI's main.py imports in this order, and nodes.py loads a pack this way.
IN_COMFYUI = """
import asyncio, json, sys, time
root, comfyui = sys.argv[1:]
sys.argv, sys.path[0] = ["main.py", "--cpu"], comfyui
import comfy.options
comfy.options.enable_args_parsing()
import comfy.utils, comfy.sd, nodes, comfy_api.latest
began = time.perf_counter()
loaded = asyncio.run(nodes.load_custom_node(root))
seconds = time.perf_counter() - began
ids = [name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("MorphDrag")]
answer = {"loaded": loaded, "seconds": seconds, "nodes": ids, "modules": sorted(sys.modules)}
"""

ALONE = """
import importlib, json, pkgutil, sys, types
pack = types.ModuleType("pack")
pack.__path__ = [sys.argv[1]]
sys.modules["pack"] = pack
import pack.morph_core as core
names = [found.name for found in pkgutil.walk_packages(core.__path__, "pack.morph_core.")]
for name in names:
    importlib.import_module(name)
answer = {"names": names, "modules": sorted(sys.modules)}
"""


def answer_of(script: str, folder: Path, *arguments: str) -> Any:
    """What a fresh interpreter says when it has run the script."""
    file = folder / "answer.json"
    script += f"\nopen({str(file)!r}, 'w').write(json.dumps(answer))"
    subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=240,
    )
    return json.loads(file.read_text())


def imported(names: tuple[str, ...], modules: list[str]) -> list[str]:
    return [module for module in modules if module.partition(".")[0] in names]


@pytest.mark.slow
def test_comfyui_loads_the_pack_and_nothing_heavy(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    answer = answer_of(IN_COMFYUI, tmp_path, str(ROOT), str(find_comfyui()))
    assert answer["loaded"] and len(answer["nodes"]) == 30
    assert imported(HEAVY, answer["modules"]) == []
    record_property("import_seconds", answer["seconds"])
    logging.getLogger(__name__).info("the pack is imported in %.3f s", answer["seconds"])


def test_the_core_alone_imports_neither_heavy_packages_nor_comfyui(tmp_path: Path) -> None:
    answer = answer_of(ALONE, tmp_path, str(ROOT))
    assert {"pack.morph_core.recipes.morph", "pack.morph_core.toy.model"} <= set(answer["names"])
    assert imported((*HEAVY, "transformers", "comfy", "comfy_api", "folder_paths"), answer["modules"]) == []
