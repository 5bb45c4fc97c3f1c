"""The page driver on a stock graph: a pass or a failure of the other browser tests means one."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morph_tests.browser.driver import ComfyPage
from morph_tests.comfy_host import PromptRejected

RED = 0xFF0000
CYAN = (0, 255, 255)


def node(node_id: int, kind: str, x: int, values: list[Any], **slots: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "type": kind,
        "pos": [x, 0],
        "size": [300, 300],
        "flags": {},
        "order": node_id,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": values,
        **slots,
    }


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    """A red image, inverted and saved."""
    content = {
        "last_node_id": 3,
        "last_link_id": 2,
        "nodes": [
            node(1, "EmptyImage", 0, [64, 32, 1, RED], outputs=[slot("IMAGE", links=[1])]),
            node(
                *(2, "ImageInvert", 400, []),
                inputs=[slot("image", link=1)],
                outputs=[slot("IMAGE", links=[2])],
            ),
            node(3, "SaveImage", 800, ["inverted"], inputs=[slot("images", link=2)]),
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }
    file = tmp_path / "inverted.json"
    file.write_text(json.dumps(content))
    return file


def slot(name: str, **link: Any) -> dict[str, Any]:
    return {"name": name, "type": "IMAGE", **link}


def with_node(workflow: Path, added: dict[str, Any]) -> Path:
    content = json.loads(workflow.read_text())
    content["nodes"].append(added)
    workflow.write_text(json.dumps(content))
    return workflow


def test_run_saves_an_image_and_the_second_run_is_cached(
    comfy_page: ComfyPage, workflow: Path, screenshots: Path
) -> None:
    comfy_page.load(workflow)
    assert comfy_page.unknown_node_types() == []
    assert comfy_page.dialogs() == []

    first = comfy_page.run()
    assert first.executed == {"1", "2", "3"}
    (saved,) = first.files
    with Image.open(saved) as image:
        assert image.size == (64, 32)
        assert image.getpixel((0, 0)) == CYAN

    second = comfy_page.run()
    assert second.executed == frozenset()
    assert second.cached == {"1", "2", "3"}

    with Image.open(comfy_page.screenshot(screenshots / "driver.png")) as picture:
        shown = {color for _, color in picture.convert("RGB").getcolors(2**24)}
        assert CYAN in shown, "the saved image is not in view"


def test_unknown_node_is_noticed(comfy_page: ComfyPage, workflow: Path) -> None:
    comfy_page.load(with_node(workflow, node(4, "NoSuchNode", 1200, [])))
    assert comfy_page.unknown_node_types() == ["NoSuchNode"]


def test_run_that_comfyui_refuses_is_noticed(comfy_page: ComfyPage, workflow: Path) -> None:
    comfy_page.load(with_node(workflow, node(4, "PreviewImage", 1200, [])))
    with pytest.raises(PromptRejected, match="images"):
        comfy_page.run()


def test_errors_are_kept_with_their_source(comfy_page: ComfyPage) -> None:
    page = comfy_page.page
    page.evaluate("() => console.error('The pack is broken')")
    page.evaluate("() => console.error('A hook threw', {error: new Error('pack hook')})")
    page.evaluate("() => void setTimeout(() => { throw new Error('pack threw'); })")
    page.evaluate("() => void fetch('/pack/missing.js')")
    page.evaluate("() => void fetch('http://elsewhere.invalid/pack').catch(() => {})")
    page.evaluate("() => console.error('Something else')\n//# sourceURL=pack.js")
    page.wait_for_timeout(1000)
    found = comfy_page.errors_naming("PACK")
    own = ("The pack is broken", "pack hook", "pack threw", "/pack/missing.js", "Something else")
    named = [name for error in found for name in own if name in error.text + error.url]
    assert sorted(named) == sorted(own), found
    refused = [error for error in found if "elsewhere.invalid/pack" in error.text]  # by a policy of newer ComfyUIs
    assert len(found) == len(own) + len(refused)
