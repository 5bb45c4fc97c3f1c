"""Works the point picker in ComfyUI's page as a user would: by where things are on the image.

How the pointer maps to the image is reckoned here anew, from the size of the picker on the screen.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw

from morph_tests.browser.driver import RUN_BUTTON, ComfyPage

if TYPE_CHECKING:
    from playwright.sync_api import Locator

NODE = "MorphDragDragLatentOptimize"
NODE_OF = f"app.graph.nodes.find((node) => node.comfyClass === '{NODE}')"
Point = tuple[float, float]
A: tuple[Point, Point] = ((0.2, 0.3), (0.6, 0.4))
B: tuple[Point, Point] = ((0.8, 0.7), (0.5, 0.9))
C: tuple[Point, Point] = ((0.25, 0.8), (0.35, 0.6))

IMAGES = {"wide.png": (300, 200), "tall.png": (120, 480), "masked.png": (300, 200), "folder/deep.png": (64, 64)}
ELEMENT_TIMEOUT = 5.0  # seconds
MASKED = (150, 50, 250, 150)  # left, top, right, bottom
ORIENTATION = 0x0112  # EXIF's tag
CORNERS = ((220, 20, 20, 255), (20, 180, 20, 255), (20, 20, 220, 255), (230, 200, 20, 0))

ADD_NODES = """([kind, place, links, image]) => {
    const node = LiteGraph.createNode(kind);
    node.pos = place;
    app.graph.add(node);
    for (const [from, output, input] of links) app.graph.getNodeById(from).connect(output, node, input);
    const widget = image && node.widgets.find((widget) => widget.name === "image");
    if (widget) {
        widget.value = image;
        widget.callback?.(image);
    }
    return node.id;
}"""
WIDGET = "([id, name]) => app.canvas.graph.getNodeById(id).widgets.find((widget) => widget.name === name)"
SHOW_IMAGE = """(image) => {
    app.graph.nodes.find((node) => node.type === "LoadImage").widgets[0].value = image;
    app.canvas.setDirty(true, true);
}"""
SHOW_AT = """([scale, id]) => {
    const { ds } = app.canvas;
    ds.scale = scale;
    const { pos: [x, y], widgets } = app.canvas.graph.getNodeById(id);
    ds.offset[0] = 400 / scale - x;
    ds.offset[1] = 150 / scale - y - (scale > 1 ? widgets.at(-1).y : 0);
    app.canvas.setDirty(true, true);
}"""
SHOWS_DOM_WIDGETS = """async () => {
    const node = LiteGraph.createNode("EmptyImage");
    const element = document.createElement("div");
    node.addDOMWidget("probe", "probe", element, {});
    app.graph.add(node);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const shown = element.isConnected;
    app.graph.remove(node);
    return shown;
}"""
PICKER_OF = """(element, id) => {
    const { widgets } = app.canvas.graph.getNodeById(id);
    return widgets.some((widget) => widget.element === element);
}"""


def write_images(folder: Path) -> None:
    """Put the test images in ComfyUI's input folder; `masked.png` is transparent in `MASKED`."""
    (folder / "folder").mkdir(exist_ok=True)
    for index, (name, size) in enumerate(IMAGES.items()):
        image = Image.new("RGBA" if name == "masked.png" else "RGB", size, (210, 215 - 30 * index, 225))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, size[0] // 2, size[1] // 2), fill=(15, 15, 40))
        if name == "masked.png":
            draw.rectangle(MASKED, fill=(210, 30, 30, 0))
        image.save(folder / name)


def write_turned_images(folder: Path) -> list[str]:
    """Put pictures in ComfyUI's input folder that are turned by their EXIF data. Returns their names.

    Every corner has its own colour, and every picture its own grey; where there is alpha, one corner is transparent.
    """
    kinds = {f"turned-{number}.png": ("RGBA", number) for number in range(2, 9)}
    kinds |= {"turned-6.webp": ("RGBA", 6), "turned-opaque.webp": ("RGB", 6), "turned-opaque.png": ("RGB", 8)}
    for index, (name, (mode, orientation)) in enumerate(kinds.items()):
        grey = 60 + 15 * index
        image = Image.new("RGBA", (60, 40), (grey, grey, grey, 255))
        for (x, y), colour in zip(places_in(image.size), CORNERS, strict=False):
            ImageDraw.Draw(image).rectangle((x - 4, y - 4, x + 4, y + 4), fill=colour)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
        image.convert(mode).save(folder / name, exif=exif, **options)
    return list(kinds)


def places_in(size: tuple[int, int]) -> list[tuple[int, int]]:
    """A pixel near each corner of a picture, top left, top right, bottom left, bottom right, and one in the middle."""
    width, height = size
    return [(5, 5), (width - 6, 5), (5, height - 6), (width - 6, height - 6), (width // 2, height // 2)]


@dataclass
class Picker:
    """The picker of one node. Points are normalised to an image of `size` pixels."""

    comfy_page: ComfyPage
    node_id: int | str
    size: tuple[int, int] = IMAGES["wide.png"]

    def __post_init__(self) -> None:
        self.page = self.comfy_page.page

    @property
    def element(self) -> Locator:
        """The picker's element; Vue nodes take a moment to show it."""
        pickers = self.page.locator(".morph-point-picker")
        deadline = time.monotonic() + ELEMENT_TIMEOUT
        while time.monotonic() < deadline:
            for index in range(pickers.count()):
                if pickers.nth(index).evaluate(PICKER_OF, self.node_id):
                    return pickers.nth(index)
            self.page.wait_for_timeout(100)
        raise LookupError(f"Node {self.node_id} shows no picker; the page shows {pickers.count()}.")

    @property
    def drawing(self) -> Locator:
        return self.element.locator(".stage > svg")

    @property
    def message(self) -> str:
        """What is written in place of the image, or on it."""
        return self.element.locator(".message").inner_text()

    def wait_for_image(self, name: str) -> None:
        """Wait until the picker shows an image file, and count points on it from now on."""
        shown = self.element.locator(f'.stage > img[src*="filename={Path(name).name}"]')
        shown.wait_for()
        self.size = shown.evaluate("(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")

    def wait_for_message(self, text: str) -> None:
        self.element.locator(".message", has_text=text).wait_for()

    def at(self, point: Point) -> Point:
        """Where a point of the image is on the screen."""
        box = self.drawing.bounding_box()
        assert box is not None
        scale = min(box["width"] / self.size[0], box["height"] / self.size[1])
        left = box["x"] + (box["width"] - self.size[0] * scale) / 2
        top = box["y"] + (box["height"] - self.size[1] * scale) / 2
        return left + point[0] * self.size[0] * scale, top + point[1] * self.size[1] * scale

    def screen_pixel(self) -> float:
        """How many pixels of the image one pixel of the screen covers: the pointer cannot aim finer."""
        box = self.drawing.bounding_box()
        assert box is not None
        return max(self.size[0] / box["width"], self.size[1] / box["height"])

    def click(self, point: Point, **options: Any) -> None:
        self.page.mouse.click(*self.at(point), **options)

    def drag(self, start: Point, end: Point) -> None:
        self.press(start)
        self.page.mouse.move(*self.at(end), steps=3)
        self.page.mouse.up()

    def press(self, point: Point) -> None:
        self.page.mouse.move(*self.at(point))
        self.page.mouse.down()

    def place(self, *pairs: tuple[Point, Point]) -> None:
        """Place pairs with two clicks each."""
        for handle, target in pairs:
            self.click(handle)
            self.click(target)

    def text(self) -> str:
        """The value of the `points` widget."""
        return self.page.evaluate(f"(which) => ({WIDGET})(which).value", [self.node_id, "points"])

    def set_text(self, text: str) -> None:
        """Change the `points` widget as something other than the picker would."""
        self.page.evaluate(
            f"([id, name, text]) => {{ ({WIDGET})([id, name]).value = text; app.canvas.setDirty(true, true); }}",
            [self.node_id, "points", text],
        )
        self.page.wait_for_timeout(100)

    def pairs(self) -> list[tuple[Point, Point]]:
        return pairs_in(self.text())

    def pins(self) -> list[Point]:
        return pins_in(self.text())

    def pin(self, *places: Point) -> None:
        """Set pins with a Shift+click each."""
        self.page.keyboard.down("Shift")
        for place in places:
            self.click(place)
        self.page.keyboard.up("Shift")

    def arrows(self) -> int:
        """How many whole arrows are drawn."""
        return self.drawing.locator(".arrow:not(.unfinished)").count()


def pairs_in(text: str) -> list[tuple[Point, Point]]:
    """The pairs of a value in our own form."""
    if not text:
        return []
    content = json.loads(text)
    assert content["v"] == (2 if content.get("pins") else 1)
    return [(tuple(pair["handle"]), tuple(pair["target"])) for pair in content["points"]]


def pins_in(text: str) -> list[Point]:
    return [tuple(pin) for pin in json.loads(text or "{}").get("pins", [])]


def add_node(
    comfy_page: ComfyPage,
    kind: str,
    place: Point,
    links: list[tuple[int | str, int, str]] = (),
    image: str | None = None,
) -> int | str:
    """Add a node to the graph in view; `links` are (from node, its output, input of the new one)."""
    return comfy_page.page.evaluate(ADD_NODES, [kind, place, list(links), image])


def show_at(comfy_page: ComfyPage, scale: float, node_id: int | str) -> None:
    """Zoom, with a node and what is to the left of it in view; at high zoom only its picker."""
    comfy_page.page.evaluate(SHOW_AT, [scale, node_id])
    comfy_page.page.wait_for_timeout(300)


def near(picker: Picker, *pairs: tuple[Point, Point], aim: float = 1.0) -> Any:
    """The pairs to half a pixel of the image, or to `aim` pixels of the screen where that is less exact."""
    width, height = picker.size
    pixels = max(0.5, aim * picker.screen_pixel())
    return [
        tuple((pytest.approx(x, abs=pixels / width), pytest.approx(y, abs=pixels / height)) for x, y in pair)
        for pair in pairs
    ]


def near_pins(picker: Picker, *pins: Point) -> Any:
    """The pins as exactly as `near` has pairs."""
    return [pair[0] for pair in near(picker, *((pin, pin) for pin in pins))]


def prompt_of(comfy_page: ComfyPage) -> dict[str, Any]:
    """Press Run, and return the prompt that leaves the browser instead of running it."""
    sent: list[dict[str, Any]] = []

    def keep(route: Any) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(json={"prompt_id": "kept", "number": 1, "node_errors": {}})

    comfy_page.page.route("**/api/prompt", keep)
    with comfy_page.page.expect_response("**/api/prompt"):
        comfy_page.page.locator(RUN_BUTTON).first.click()
    comfy_page.page.unroute("**/api/prompt")
    return sent[0]["prompt"]


def history(comfy_page: ComfyPage) -> int:
    return comfy_page.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length")


def undo(picker: Picker, key: str = "Control+z") -> None:
    """Press undo (or another key) and wait until ComfyUI has rebuilt the graph."""
    picker.page.keyboard.press(key)
    picker.page.wait_for_timeout(600)
    picker.wait_for_image("wide.png")


def settings_for(renderer: str) -> dict[str, Any]:
    return {"Comfy.VueNodes.Enabled": renderer == "vue", "Comfy.Graph.CanvasInfo": False}
