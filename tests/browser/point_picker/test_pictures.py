"""Which picture the picker shows, how, and what becomes of the points on it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from morph_tests.browser.driver import ComfyPage
from morph_tests.browser.picker import (
    NODE,
    SHOW_IMAGE,
    A,
    B,
    C,
    Picker,
    add_node,
    near,
    places_in,
    show_at,
    write_turned_images,
)
from morph_tests.comfy_host import ComfyHost

SHOWS = """([size, places, colours]) => {
    const image = document.querySelector(".morph-point-picker .stage > img");
    if (!image?.complete || String([image.naturalWidth, image.naturalHeight]) !== String(size)) return false;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = size;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const seen = places.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data].slice(0, 3));
    return seen.flat().every((value, index) => Math.abs(value - colours.flat()[index]) <= 3);
}"""
OPACITIES = """(canvas, places) => {
    const context = canvas.getContext("2d");
    return places.map(([x, y]) => context.getImageData(x, y, 1, 1).data[3] > 80);
}"""


def test_image_is_found_upstream(page: ComfyPage) -> None:
    drag = add_node(page, NODE, (0, 0))
    picker = Picker(page, drag)
    show_at(page, 0.8, drag)
    picker.wait_for_message("Connect an image")
    picker.set_text(json.dumps({"v": 1, "points": [{"handle": A[0], "target": A[1]}]}))
    picker.wait_for_message("1 pair of points kept")

    def link(kind: str, links: list[tuple[Any, int, str]] = (), image: str | None = None) -> Any:
        made = add_node(page, kind, (-400, 0), links, image)
        page.page.evaluate(
            "([from, to]) => app.graph.getNodeById(from).connect(0, app.graph.getNodeById(to), 'image')", [made, drag]
        )
        return made

    link("LoadImage", image="wide.png")
    picker.wait_for_image("wide.png")
    assert picker.arrows() == 1
    deep = link("LoadImage", image="folder/deep.png")
    picker.wait_for_image("deep.png")
    reroute = link("Reroute", [(deep, 0, "")])
    picker.wait_for_image("deep.png")
    scale = link("ImageScale", [(reroute, 0, "image")])
    picker.wait_for_message("Run once")
    page.page.evaluate("(id) => { app.graph.getNodeById(id).mode = 4; app.canvas.setDirty(true, true); }", scale)
    picker.wait_for_image("deep.png")
    page.page.evaluate("(id) => { app.graph.getNodeById(id).mode = 0; app.canvas.setDirty(true, true); }", scale)
    picker.wait_for_message("Run once")

    def ran(node_id: Any, output: dict[str, Any]) -> None:
        detail = {"node": str(node_id), "display_node": str(node_id), "prompt_id": "1", "output": output}
        page.page.evaluate("async (detail) => app.api.dispatchEvent(new CustomEvent('executed', {detail}))", detail)

    ran(drag, {"picker_image": [{"filename": "tall.png", "subfolder": "", "type": "input"}]})
    picker.wait_for_image("tall.png")
    ran(scale, {"images": [{"filename": "wide.png", "subfolder": "", "type": "input"}]})
    picker.wait_for_image("wide.png")
    other = link("ImageScale", [(reroute, 0, "image")])
    picker.wait_for_message("Run once")  # the last run was of another image
    ran(drag, {"picker_image": [{"filename": "deep.png", "subfolder": "folder", "type": "input"}]})
    picker.wait_for_image("deep.png")
    page.page.evaluate("(id) => app.graph.remove(app.graph.getNodeById(id))", other)
    picker.wait_for_message("Connect an image")
    link("LoadImage", image="gone.png")
    picker.wait_for_message("gone.png cannot be loaded")
    assert picker.pairs() == [A], "points are kept throughout"


def test_a_gesture_goes_on_over_another_picture(picker: Picker) -> None:
    def show(image: str) -> None:
        picker.page.evaluate(SHOW_IMAGE, image)
        if image == "gone.png":
            picker.wait_for_message("gone.png cannot be loaded")
        else:
            picker.wait_for_image(image)

    picker.click(A[0])
    show("gone.png")
    picker.page.mouse.move(*picker.at(B[0]), steps=2)
    show("wide.png")
    picker.click(A[1])
    assert picker.pairs() == near(picker, A)

    picker.press(A[1])
    picker.page.mouse.move(*picker.at(B[1]), steps=3)
    show("folder/deep.png")
    picker.page.mouse.move(*picker.at(C[1]), steps=3)
    picker.page.mouse.up()
    assert picker.pairs() == near(picker, (A[0], C[1]))

    picker.set_text('[{"x": 32, "y": 16}, {"x": 48, "y": 16}]')
    show("wide.png")
    picker.click((32 / 300, 16 / 200), button="right")
    assert picker.text() == "", "points in pixels are read again"


def test_mask_is_shown(page: ComfyPage, screenshots: Path, request: pytest.FixtureRequest) -> None:
    load = add_node(page, "LoadImage", (-360, 0), image="masked.png")
    picker = Picker(page, add_node(page, NODE, (0, 0), [(load, 0, "image")]))
    show_at(page, 1, picker.node_id)
    picker.wait_for_image("masked.png")
    mask = picker.element.locator(".stage > canvas.mask")
    tint = "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]"
    assert mask.is_visible()
    assert mask.evaluate(tint, [200, 100])[3] > 80
    assert mask.evaluate(tint, [50, 100])[3] == 0
    assert "no effect" in picker.element.locator(".hint").inner_text()
    page.page.screenshot(path=screenshots / f"{request.node.callspec.id}-mask.png")

    connect = "([from, slot, to]) => app.graph.getNodeById(from).connect(slot, app.graph.getNodeById(to), 'mask')"
    page.page.evaluate(connect, [load, 1, picker.node_id])
    picker.element.locator(".hint", has_text="Click a handle").wait_for()
    assert mask.is_visible()
    page.page.evaluate(connect, [add_node(page, "SolidMask", (-360, 400)), 0, picker.node_id])
    mask.wait_for(state="hidden")


def test_a_picture_that_its_file_turns_is_shown_as_load_image_gives_it(picker: Picker, host: ComfyHost) -> None:
    """Browsers turn some kinds of files by their EXIF data, ComfyUI all, and its colours have no alpha in them."""
    mask = picker.element.locator(".stage > canvas.mask")
    for name in write_turned_images(host.input_folder):
        with Image.open(host.input_folder / name) as file:
            loaded = ImageOps.exif_transpose(file)
        places = places_in(loaded.size)
        colours = [loaded.convert("RGB").getpixel(place) for place in places]
        transparent = [loaded.convert("RGBA").getpixel(place)[3] == 0 for place in places]

        picker.page.evaluate(SHOW_IMAGE, name)
        picker.page.wait_for_function(SHOWS, arg=[loaded.size, places, colours])
        assert mask.is_visible() == any(transparent), name
        if any(transparent):
            assert mask.evaluate(OPACITIES, places) == transparent, name
    picker.size = loaded.size
    picker.drag(*B)
    assert picker.pairs() == near(picker, B)
