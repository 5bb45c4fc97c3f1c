"""Makes the pack importable in tests as `morph_pack` and the tests' own helpers as `morph_tests`.

The repository's root is a package that only ComfyUI can import (its `__init__.py` imports the nodes), and its folder
`nodes` has the name of a ComfyUI module. So the root is never on `sys.path`, and pytest must not import it.
"""

import functools
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from morph_tests.comfy_host import ComfyHost

ROOT = Path(__file__).resolve().parent.parent


def _register(name: str, folder: Path) -> None:
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


_register("morph_pack", ROOT)
_register("morph_tests", ROOT / "tests")


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ComfyHost]":
    """A running ComfyUI, the same for all tests that need nothing special of one.

    MORPH_FRONT_END_ROOT: the `static` folder of another comfyui-frontend-package, to have it show that one.
    """
    from morph_tests.comfy_host import running_comfyui, why_comfyui_cannot_run
    from morph_tests.promises import absent

    if reason := why_comfyui_cannot_run():
        absent("comfyui", reason)
    front_end = os.environ.get("MORPH_FRONT_END_ROOT")
    arguments = ("--front-end-root", front_end) if front_end else ()
    with running_comfyui(tmp_path_factory.mktemp("running"), arguments) as host:
        yield host


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """From a family's name to a checkpoint of it, written when it is first asked for; 0.7 to 2.4 GB each."""
    from morph_tests.checkpoints import write_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def path_of(family: str) -> Path:
        return write_checkpoint(folder / f"{family}.safetensors", family)

    yield path_of
    shutil.rmtree(folder)


class _RootIsNoPackage:
    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> Any:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_RootIsNoPackage())
