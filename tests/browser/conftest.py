"""Fixtures of the browser tests: one ComfyUI for each front end and one Chromium a session, one page a test.

MORPH_FRONT_END_ROOT: the `static` folder of another comfyui-frontend-package, to test against it alone.
MORPH_VUE_NODES=1: draw the nodes as "Nodes 2.0" does, which is unfinished in older front ends.
MORPH_NEWEST_FRONT_END: the `static` folder of the newest comfyui-frontend-package, for the tests that are run against
that one too; by default the one that `scripts/dev.py test` installs.
MORPH_SCREENSHOTS: a folder to keep the screenshots in; by default it is the test's temporary one.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from morph_tests.browser.driver import (
    ComfyPage,
    NoChromium,
    open_comfy_page,
    running_chromium,
    why_page_cannot_open,
)
from morph_tests.comfy_host import ComfyHost, running_comfyui, why_comfyui_cannot_run
from morph_tests.promises import absent

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = Path(__file__).parent
QUICK = {  # the others are slow: a page, a picker and a workflow's file say whether there is anything to look into
    "test_run_saves_an_image_and_the_second_run_is_cached",
    "test_pointer_places_moves_and_removes[installed-canvas]",
    "test_a_saved_file_queues_what_it_queued[toy_edit]",
}


@pytest.hookimpl(tryfirst=True)  # before the marks decide what is run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER) and item.name not in QUICK:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    if reason := why_page_cannot_open():
        absent("browser", reason)
    try:
        with running_chromium() as browser:
            yield browser
    except NoChromium as error:
        absent("browser", str(error))


@pytest.fixture(scope="session")
def newest_comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    """ComfyUI with the newest front end, which may be far newer than what this ComfyUI asks for."""
    if reason := why_comfyui_cannot_run():
        absent("comfyui", reason)
    front_end = newest_front_end()
    if front_end is None:
        absent(
            "browser",
            "No newest front end: `pip install --no-deps --target FOLDER comfyui-frontend-package`, and set "
            "MORPH_NEWEST_FRONT_END to FOLDER/comfyui_frontend_package/static.",
        )
    with running_comfyui(tmp_path_factory.mktemp("newest"), ("--front-end-root", str(front_end))) as host:
        yield host


def newest_front_end() -> Path | None:
    """The one named in the environment, else the one that `scripts/dev.py` has put beside the installed packages."""
    if configured := os.environ.get("MORPH_NEWEST_FRONT_END"):
        return Path(configured).expanduser()
    installed = Path(sys.prefix) / "newest-front-end" / "comfyui_frontend_package" / "static"
    return installed if installed.is_dir() else None


@pytest.fixture
def comfy_page(chromium: "Browser", comfyui: ComfyHost) -> Iterator[ComfyPage]:
    settings = {"Comfy.VueNodes.Enabled": os.environ.get("MORPH_VUE_NODES") == "1"}
    with open_comfy_page(chromium, comfyui, settings) as page:
        yield page


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("MORPH_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
