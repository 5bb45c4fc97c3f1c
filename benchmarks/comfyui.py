"""A real ComfyUI in this process, with the pack's nodes, as ComfyUI itself would call them."""

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

PACK = "morph_pack"  # the name that the repository's root is imported by, as its own is no name of a package
ROOT = Path(__file__).resolve().parents[1]


def find_comfyui() -> Path | None:
    """The first folder that $COMFYUI_PATH names, else ~/comfy/ComfyUI; None where there is none."""
    named = os.environ.get("COMFYUI_PATH", "").split(os.pathsep)[0]
    folder = (Path(named) if named else Path("~/comfy/ComfyUI")).expanduser().resolve()
    return folder if (folder / "main.py").is_file() else None


def load_comfyui(folder: Path, temporary: str, *options: str) -> None:
    """Import ComfyUI's own `nodes` whatever else is on the path. options: of its command line.

    temporary: a folder for what nodes show.
    """
    sys.path.insert(0, str(folder))
    sys.argv = ["main.py", *options]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("nodes")
    importlib.import_module("folder_paths").set_temp_directory(temporary)
    importlib.import_module("comfy.utils").set_progress_bar_enabled(False)
    pack = types.ModuleType(PACK)
    pack.__path__ = [str(ROOT)]
    sys.modules[PACK] = pack


def pack_module(name: str) -> Any:
    """A module of the pack, such as morph_core.lora.fit."""
    return importlib.import_module(f"{PACK}.{name}")


def run(node: str, **inputs: Any) -> Any:
    """The outputs of one of the pack's nodes, in inference mode on a locked clone of its class."""
    import torch

    cls = pack_module("nodes").NODE_CLASS_MAPPINGS[f"MorphDrag{node}"].PREPARE_CLASS_CLONE({})
    with torch.inference_mode():
        return cls.EXECUTE_NORMALIZED(**inputs).result
