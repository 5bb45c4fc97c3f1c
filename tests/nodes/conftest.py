"""Makes ComfyUI importable in this process, on the CPU; without it the whole folder is skipped."""

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from morph_tests.comfy_host import find_comfyui, why_comfyui_cannot_run
from morph_tests.promises import absent

if TYPE_CHECKING:
    from morph_pack.morph_core.toy.model import ToyModel

NO_COMFYUI = why_comfyui_cannot_run()


class _SkippedModule(pytest.Module):
    def collect(self) -> Any:
        absent("comfyui", str(NO_COMFYUI))


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip test modules before they are imported: they import ComfyUI at the top."""
    return _SkippedModule.from_parent(parent, path=module_path) if NO_COMFYUI else None


def _import_comfyui(folder: str) -> None:
    """Import ComfyUI's own `nodes` whatever else is on the path, and leave the folder at the path's end."""
    arguments = sys.argv
    sys.path.insert(0, folder)
    sys.argv = ["main.py", "--cpu"]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("nodes")
    finally:
        sys.argv = arguments
        sys.path.remove(folder)
        sys.path.append(folder)


if not NO_COMFYUI:
    _import_comfyui(str(find_comfyui()))


@pytest.fixture(scope="package", autouse=True)
def _quiet_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, and previews and outputs in a temporary folder."""
    import folder_paths
    import torch

    folder_paths.set_temp_directory(str(tmp_path_factory.mktemp("temp")))
    folder_paths.set_output_directory(str(tmp_path_factory.mktemp("output")))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _clean_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every progress update is told; undo what a test that cancels or watches leaves in ComfyUI's globals."""
    import comfy.model_management
    import comfy.utils

    for limit in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):  # of newer ComfyUIs
        monkeypatch.setattr(comfy.utils, limit, 0.0, raising=False)
    yield
    comfy.model_management.interrupt_current_processing(False)
    comfy.utils.set_progress_bar_global_hook(None)


def _is_of_this_test(record: logging.LogRecord) -> bool:
    """ComfyUI warns, whenever it loads a model, of earlier tests' models that somebody still holds."""
    return "memory leak with model" not in record.getMessage()


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    logging.getLogger().addFilter(_is_of_this_test)
    yield
    logging.getLogger().removeFilter(_is_of_this_test)


@pytest.fixture(scope="package")
def toy() -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE from Load Toy Model."""
    from morph_tests.nodes.graph import run

    return run("LoadToyModel")


@pytest.fixture(scope="package")
def model(toy: tuple[Any, Any, Any]) -> Any:
    """The toy's MODEL."""
    return toy[0]


@pytest.fixture(scope="package")
def core() -> "ToyModel":
    """The toy model as the core loads it, with diffusers' networks."""
    from morph_pack.morph_core.toy.model import load_toy_model

    return load_toy_model()


@pytest.fixture(scope="package")
def flow_toy() -> tuple[Any, Any, Any]:
    """As `toy`, with the transformer."""
    from morph_tests.nodes.graph import run

    return run("LoadToyModel", network="transformer")


@pytest.fixture(scope="package")
def flow_core() -> "ToyModel":
    """As `core`, with the transformer."""
    from morph_pack.morph_core.toy.model import load_toy_model

    return load_toy_model("transformer")


@pytest.fixture
def alexnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights where LPIPS looks for AlexNet's."""
    import torch
    import torchvision

    file = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = torchvision.models.alexnet(weights=None).features
    torch.save({f"features.{name}": weight for name, weight in features.state_dict().items()}, file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
