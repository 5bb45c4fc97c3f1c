"""The point picker in ComfyUI's page, as a user works it: in two front ends, in both ways they draw nodes.

How the pointer maps to the image is reckoned here anew, from the size of the picker on the screen.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageOps

from morph_tests.browser.driver import RUN_BUTTON, ComfyPage, browser_profile, open_page_of
from morph_tests.browser.picker import (
    NODE,
    Picker,
    Point,
    add_node,
    pairs_in,
    places_in,
    show_at,
    write_images,
    write_turned_images,
)
from morph_tests.comfy_host import ComfyHost

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

FRONT_ENDS = {"installed": "comfyui", "newest": "newest_comfyui"}
if "MORPH_FRONT_END_ROOT" in os.environ:
    FRONT_ENDS = {"named": "comfyui"}
OLD_WORKFLOW = Path(__file__).parent / "workflows" / "drag_first_version.json"
A: tuple[Point, Point] = ((0.2, 0.3), (0.6, 0.4))
B: tuple[Point, Point] = ((0.8, 0.7), (0.5, 0.9))
C: tuple[Point, Point] = ((0.25, 0.8), (0.35, 0.6))

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
SHOWS_WEBCAM = """async () => {
    const node = LiteGraph.createNode("WebcamCapture");
    app.graph.add(node);
    await new Promise((resolve) => setTimeout(resolve, 500));
    return node.widgets.find((widget) => widget.name === "image").element.isConnected;
}"""
LOSE_CAPTURE = """(drawing) => {
    for (let id = 0; id < 20; id++) if (drawing.hasPointerCapture(id)) drawing.releasePointerCapture(id);
}"""
SOCKETS = """([from, to]) => {
    const { ds, canvas } = app.canvas;
    const { left, top } = canvas.getBoundingClientRect();
    const onScreen = ([x, y]) => [(x + ds.offset[0]) * ds.scale + left, (y + ds.offset[1]) * ds.scale + top];
    const target = app.graph.getNodeById(to);
    const points = target.inputs.findIndex((input) => input.name === "points");
    return [onScreen(app.graph.getNodeById(from).getOutputPos(0)), onScreen(target.getInputPos(points))];
}"""
WATCH_OBSERVERS = """() => {
    const { observe, disconnect } = ResizeObserver.prototype;
    window.pickersObserved = new Set();
    ResizeObserver.prototype.observe = function (target, ...rest) {
        if (target.closest(".morph-point-picker")) window.pickersObserved.add(this);
        return observe.call(this, target, ...rest);
    };
    ResizeObserver.prototype.disconnect = function () {
        window.pickersObserved.delete(this);
        return disconnect.call(this);
    };
}"""
SHOW_IMAGE = """(image) => {
    app.graph.nodes.find((node) => node.type === "LoadImage").widgets[0].value = image;
    app.canvas.setDirty(true, true);
}"""
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
PATIENCE = 20000  # milliseconds
NODE_OF = f"app.graph.nodes.find((node) => node.comfyClass === '{NODE}')"


@pytest.fixture(params=FRONT_ENDS)
def host(request: pytest.FixtureRequest) -> ComfyHost:
    found: ComfyHost = request.getfixturevalue(FRONT_ENDS[request.param])
    write_images(found.input_folder)
    return found


@pytest.fixture(params=["canvas", "vue"])
def renderer(request: pytest.FixtureRequest) -> str:
    return request.param


UNFINISHED = "Vue nodes of this front end show no DOM widget: ComfyUI's own Webcam Capture has none either."
UNFINISHED_AT: set[tuple[str, str]] = set()


@pytest.fixture(scope="module")
def profile(chromium: "Browser") -> "Iterator[BrowserContext]":
    with browser_profile(chromium) as opened:
        yield opened


@pytest.fixture
def page(profile: "BrowserContext", host: ComfyHost, renderer: str) -> Iterator[ComfyPage]:
    """An empty graph. Skipped where Vue nodes show no DOM widget, which a test below demonstrates."""
    if (host.url, renderer) in UNFINISHED_AT:
        pytest.skip(UNFINISHED)
    with open_page_of(profile, host, settings_for(renderer)) as opened:
        opened.page.set_default_timeout(PATIENCE)
        opened.page.evaluate("() => app.graph.clear()")
        if renderer == "vue" and not opened.page.evaluate(SHOWS_DOM_WIDGETS):
            UNFINISHED_AT.add((host.url, renderer))
            pytest.skip(UNFINISHED)
        yield opened
        assert opened.errors_naming("morph|point.picker") == []


def settings_for(renderer: str) -> dict[str, Any]:
    return {"Comfy.VueNodes.Enabled": renderer == "vue", "Comfy.Graph.CanvasInfo": False}


@pytest.fixture
def picker(page: ComfyPage) -> Picker:
    """The picker of a node that a Load Image feeds."""
    load = add_node(page, "LoadImage", (-360, 0), image="wide.png")
    made = Picker(page, add_node(page, NODE, (0, 0), [(load, 0, "image")]))
    show_at(page, 1, made.node_id)
    made.wait_for_image("wide.png")
    return made


def near(picker: Picker, *pairs: tuple[Point, Point], aim: float = 1.0) -> Any:
    """The pairs to half a pixel of the image, or to `aim` pixels of the screen where that is less exact."""
    width, height = picker.size
    pixels = max(0.5, aim * picker.screen_pixel())
    return [
        tuple((pytest.approx(x, abs=pixels / width), pytest.approx(y, abs=pixels / height)) for x, y in pair)
        for pair in pairs
    ]


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


def test_pointer_places_moves_and_removes(picker: Picker, screenshots: Path, request: pytest.FixtureRequest) -> None:
    picker.place(A)
    picker.drag(*B)
    assert picker.pairs() == near(picker, A, B)
    assert picker.arrows() == 2
    picker.comfy_page.page.screenshot(path=screenshots / f"{request.node.callspec.id}.png")

    picker.drag(B[0], C[0])
    picker.drag(A[1], C[1])
    assert picker.pairs() == near(picker, (A[0], C[1]), (C[0], B[1]))

    picker.click(A[0], button="right")
    assert picker.pairs() == near(picker, (C[0], B[1]))
    assert picker.page.locator(".litecontextmenu, [role=menu]").count() == 0
    picker.element.get_by_role("button", name="Swap").click()
    assert picker.pairs() == near(picker, (B[1], C[0]))
    picker.element.get_by_role("button", name="Clear").click()
    assert picker.text() == ""
    assert picker.arrows() == 0


def test_a_drag_that_goes_wrong_changes_nothing(picker: Picker) -> None:
    picker.place(A)
    before = picker.text()

    picker.press(A[0])
    picker.page.mouse.move(*picker.at(B[0]), steps=3)
    picker.page.keyboard.press("Escape")
    picker.page.mouse.move(*picker.at(B[1]))
    picker.page.mouse.up()
    assert picker.text() == before

    picker.press(A[0])
    picker.page.mouse.move(*picker.at(B[0]), steps=3)
    picker.drawing.evaluate(LOSE_CAPTURE)
    picker.page.mouse.move(*picker.at(B[1]), steps=3)
    picker.page.mouse.up()
    picker.page.mouse.move(*picker.at(C[1]), steps=3)
    assert picker.text() == before

    picker.click(B[0])
    assert picker.drawing.locator(".unfinished").count() == 1
    assert picker.text() == before, "a handle alone is no pair"
    picker.click(B[0])
    assert picker.text() == before, "nor is a double click"
    assert picker.drawing.locator(".unfinished").count() == 1
    picker.page.keyboard.press("Escape")
    assert picker.drawing.locator(".unfinished").count() == 0

    picker.press(A[1])
    picker.page.mouse.move(5000, 5000, steps=3)
    picker.page.mouse.up()
    assert picker.pairs() == near(picker, (A[0], (1, 1))), "beyond the edge is the edge"


def test_keyboard_and_numbers(picker: Picker) -> None:
    picker.place(A, B)
    numbers = picker.element.get_by_role("spinbutton")
    numbers.nth(0).fill("60")
    numbers.nth(0).press("Enter")
    numbers.nth(3).fill("150")
    numbers.nth(3).press("Tab")
    assert picker.pairs() == near(picker, A, ((0.2, B[0][1]), (B[1][0], 0.75)))

    stage = picker.element.get_by_role("application")
    stage.focus()
    for key in ("[", "PageUp", "ArrowRight", "Shift+ArrowDown"):  # from the second pair's target to the first's
        picker.page.keyboard.press(key)
    moved = (A[0], (A[1][0] + 1 / 300, A[1][1] + 10 / 200))
    assert picker.pairs()[:1] == near(picker, moved)

    picker.page.keyboard.press("Delete")
    assert len(picker.pairs()) == 1
    assert picker.page.evaluate("() => app.graph.nodes.length") == 2, "the node is still there"
    picker.page.keyboard.press("Enter")
    assert picker.pairs()[1:] == near(picker, ((0.5, 0.5), (0.6, 0.5)))

    picker.page.mouse.move(*picker.at((0.5, 0.25)))
    x, y = (float(number) for number in picker.element.locator(".place").inner_text().split()[1::2])
    assert (x, y) == (pytest.approx(150, abs=1), pytest.approx(50, abs=1))


def test_undo_takes_back_one_edit(picker: Picker) -> None:
    steps = [history(picker.comfy_page)]
    picker.place(A)
    steps.append(history(picker.comfy_page))
    picker.drag(A[1], B[1])
    steps.append(history(picker.comfy_page))
    picker.drag(B[0], C[0])
    steps.append(history(picker.comfy_page))
    picker.page.keyboard.press("Delete")
    picker.page.wait_for_timeout(100)
    steps.append(history(picker.comfy_page))
    picker.drag(*C)
    picker.page.keyboard.press("ArrowLeft")
    picker.page.wait_for_timeout(100)
    steps.append(history(picker.comfy_page))
    # The first edit may come with a step of its own for the graph as the test has built it.
    assert [after - before for before, after in zip(steps[1:], steps[2:], strict=False)] == [1, 1, 1, 2]

    for _ in range(3):  # the nudge, the drag, the Delete
        undo(picker)
    assert picker.pairs() == near(picker, (A[0], B[1]), (B[0], C[0]))
    undo(picker)
    undo(picker)
    assert picker.pairs() == near(picker, A)
    assert picker.arrows() == 1
    undo(picker, "Control+y")
    assert picker.pairs() == near(picker, (A[0], B[1]))
    picker.drag(*C)
    assert picker.pairs() == near(picker, (A[0], B[1]), C)


def test_prompt_holds_the_clicked_points_at_any_zoom_and_size(picker: Picker) -> None:
    add_node(picker.comfy_page, "PreviewImage", (900, 0), [(picker.node_id, 1, "images")])
    for scale, size in ((0.5, (400, 620)), (1, (400, 620)), (2, (400, 620)), (1, (700, 520)), (1, (330, 800))):
        picker.page.evaluate(f"([size]) => {NODE_OF}.setSize(size)", [size])
        show_at(picker.comfy_page, scale, picker.node_id)
        picker.place(A)
        picker.drag(*B)
        prompt = prompt_of(picker.comfy_page)
        (node,) = (node for node in prompt.values() if node["class_type"] == NODE)
        assert pairs_in(node["inputs"]["points"]) == near(picker, A, B, aim=0), (scale, size)
        assert json.loads(node["inputs"]["points"])["size"] == [300, 200]
        assert not any("picker" in name for name in node["inputs"])
        picker.set_text("")


def test_node_keeps_its_size_whatever_the_image(picker: Picker) -> None:
    def size() -> list[float]:
        return picker.page.evaluate(f"() => [...{NODE_OF}.size]")

    before = size()
    stage = picker.drawing.bounding_box()
    for image in ("tall.png", "folder/deep.png", "wide.png"):
        picker.page.evaluate(
            """(image) => {
                const load = app.graph.nodes.find((node) => node.type === "LoadImage");
                load.widgets[0].value = image;
                load.widgets[0].callback?.(image);
            }""",
            image,
        )
        picker.wait_for_image(image)
        picker.place(A)
        picker.page.wait_for_timeout(300)
        assert size() == pytest.approx(before, abs=0.5)
        assert picker.drawing.bounding_box() == pytest.approx(stage, abs=0.5)
        assert picker.pairs()[-1:] == near(picker, A)
        picker.element.get_by_role("button", name="Clear").click()


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
    mask = picker.element.locator(".stage > canvas")
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
    mask = picker.element.locator(".stage > canvas")
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


def test_pairs_of_each_node_are_its_own(picker: Picker) -> None:
    page = picker.comfy_page
    load = add_node(page, "LoadImage", (-360, 400), image="folder/deep.png")
    second = Picker(page, add_node(page, NODE, (450, 0), [(load, 0, "image")]))
    second.wait_for_image("deep.png")
    picker.place(A)
    second.place(B, C)

    page.page.evaluate(
        """(id) => {
            app.canvas.deselectAll?.();
            app.canvas.selectNode(app.graph.getNodeById(id));
            app.canvas.copyToClipboard();
            app.canvas.pasteFromClipboard({ position: [900, 0] });
        }""",
        second.node_id,
    )
    copy = Picker(page, page.page.evaluate("() => app.graph.nodes.at(-1).id"))
    show_at(page, 0.7, picker.node_id)
    copy.wait_for_message("Connect an image")
    assert copy.text() == second.text()
    copy.element.get_by_role("button", name="Clear").click()
    assert (len(picker.pairs()), len(second.pairs()), len(copy.pairs())) == (1, 2, 0)

    page.page.evaluate("([a, b]) => [a, b].forEach((id) => app.graph.remove(app.graph.getNodeById(id)))", [
        second.node_id, copy.node_id,
    ])  # fmt: skip
    page.page.wait_for_timeout(300)
    assert page.page.locator(".morph-point-picker").count() == 1
    picker.place(C)
    assert picker.pairs() == near(picker, A, C)


def test_workflow_files(picker: Picker, tmp_path: Path) -> None:
    picker.place(A)
    picker.drag(*B)
    text = picker.text()
    saved = picker.page.evaluate("() => app.graph.serialize()")
    (node,) = (node for node in saved["nodes"] if node["type"] == NODE)
    assert node["widgets_values"][:4] == [text, 50, "ddim_uniform", 15]
    assert None not in node["widgets_values"]
    file = tmp_path / "saved.json"
    file.write_text(json.dumps(saved))
    picker.page.evaluate("() => app.graph.clear()")
    picker.comfy_page.load(file)
    picker.node_id = picker.page.evaluate(f"() => {NODE_OF}.id")
    picker.wait_for_image("wide.png")
    assert picker.text() == text
    assert picker.arrows() == 2

    picker.comfy_page.load(OLD_WORKFLOW)
    picker.node_id = picker.page.evaluate(f"() => {NODE_OF}.id")
    picker.wait_for_image("wide.png")
    assert picker.pairs() == [((0.25, 0.5), (0.75, 0.5))]
    values = picker.page.evaluate(f"() => {NODE_OF}.widgets.slice(1, 4).map((widget) => widget.value)")
    assert values == [40, "karras", 15]
    show_at(picker.comfy_page, 1, picker.node_id)
    picker.drag(*C)
    assert picker.pairs() == near(picker, ((0.25, 0.5), (0.75, 0.5)), C)


def test_texts_of_others(picker: Picker, screenshots: Path, request: pytest.FixtureRequest) -> None:
    pixels = '[{"x": 60, "y": 60}, {"x": 180, "y": 80}, {"x": 75, "y": 160}]'
    picker.set_text(pixels)
    assert picker.arrows() == 1
    assert picker.drawing.locator(".unfinished").count() == 1
    assert picker.text() == pixels, "looking changes nothing"
    picker.click(C[1])
    assert picker.pairs() == near(picker, A, (C[0], C[1]))

    picker.set_text(pixels)
    before = history(picker.comfy_page)
    picker.page.keyboard.press("Escape")
    picker.page.wait_for_timeout(100)
    assert picker.drawing.locator(".unfinished").count() == 0
    assert picker.pairs() == near(picker, A), "the handle that is given up leaves the text"
    assert history(picker.comfy_page) == before + 1

    broken = '{"v": 1, "points": [{"handle": [0.5, '
    picker.set_text(broken)
    picker.wait_for_message("cannot be shown: the text is not JSON")
    picker.page.screenshot(path=screenshots / f"{request.node.callspec.id}-broken.png")
    picker.place(A)
    picker.page.keyboard.press("Delete")
    assert picker.text() == broken, "nothing but Clear removes it"
    picker.element.get_by_role("button", name="Clear").click()
    picker.place(A)
    assert picker.pairs() == near(picker, A)


def test_points_can_come_from_a_link(picker: Picker, screenshots: Path, request: pytest.FixtureRequest) -> None:
    picker.place(A)
    page = picker.comfy_page
    add_node(page, "PreviewImage", (900, 0), [(picker.node_id, 1, "images")])
    source = add_node(page, "PrimitiveString", (-300, 420))
    show_at(page, 0.7, picker.node_id)
    start, end = page.page.evaluate(SOCKETS, [source, picker.node_id])
    page.page.mouse.move(*start)
    page.page.mouse.down()
    page.page.mouse.move(*end, steps=8)
    page.page.wait_for_timeout(200)
    page.page.mouse.up()
    picker.wait_for_message("The points come from the link")
    page.page.wait_for_timeout(300)
    picker.page.screenshot(path=screenshots / f"{request.node.callspec.id}-linked.png")
    before = picker.text()
    picker.click((0.5, 0.2))
    picker.click((0.6, 0.2))
    assert picker.text() == before
    (node,) = (node for node in prompt_of(page).values() if node["class_type"] == NODE)
    assert node["inputs"]["points"] == [str(source), 0]
    page.page.evaluate("(id) => app.graph.remove(app.graph.getNodeById(id))", source)
    picker.element.locator(".message").wait_for(state="hidden")
    page.page.wait_for_timeout(300)
    picker.place(B)
    assert picker.pairs() == near(picker, A, B)


def test_subgraphs(picker: Picker) -> None:
    page = picker.comfy_page
    picker.place(A)
    make = """([ids]) => {
        const nodes = ids.map((id) => app.graph.nodes.find((node) => String(node.id) === String(id)));
        return app.graph.convertToSubgraph(new Set(nodes)).node.id;
    }"""
    open_subgraph = """(id) => {
        const host = app.graph.getNodeById(id);
        app.canvas.openSubgraph(host.subgraph, host);
    }"""
    host = page.page.evaluate(make, [[picker.node_id]])
    page.page.evaluate(open_subgraph, host)
    page.page.wait_for_timeout(500)
    inside = Picker(page, page.page.evaluate(f"() => app.canvas.graph.nodes.find((n) => n.comfyClass === '{NODE}').id"))
    show_at(page, 1, inside.node_id)
    inside.wait_for_image("wide.png")
    assert inside.pairs() == near(inside, A)
    inside.drag(*B)
    both = near(inside, A, B)
    assert inside.pairs() == both
    page.page.evaluate("() => app.canvas.setGraph(app.graph.rootGraph)")
    add_node(page, "PreviewImage", (900, 0), [(host, 1, "images")])
    (node,) = (node for node in prompt_of(page).values() if node["class_type"] == NODE)
    assert pairs_in(node["inputs"]["points"]) == both

    load = page.page.evaluate("() => app.graph.nodes.find((node) => node.type === 'LoadImage').id")
    source = page.page.evaluate(make, [[load]])
    outside = Picker(page, add_node(page, NODE, (0, 700), [(source, 0, "image")]))
    show_at(page, 1, outside.node_id)
    outside.wait_for_image("wide.png")
    outside.place(C)
    assert outside.pairs() == near(outside, C)


def test_nothing_is_kept_of_a_subgraph_that_is_gone(page: ComfyPage) -> None:
    page.page.evaluate(WATCH_OBSERVERS)

    def observed() -> int:
        page.page.evaluate("() => app.canvas.setDirty(true, true)")
        page.page.wait_for_timeout(200)
        return page.page.evaluate("() => window.pickersObserved.size")

    enter = """(id) => {
        const inner = app.graph.getNodeById(id);
        const { node } = app.graph.convertToSubgraph(new Set([inner]));
        app.canvas.openSubgraph(node.subgraph, node);
        return node.id;
    }"""
    remove = (
        "(id) => { const node = app.graph.getNodeById(id); app.canvas.setGraph(app.graph); app.graph.remove(node); }"
    )
    for leave in (remove, "() => { app.canvas.setGraph(app.graph); app.graph.clear(); }"):
        drag = add_node(page, NODE, (0, 0))
        assert observed() == 1
        host = page.page.evaluate(enter, drag)
        assert observed() == 1
        page.page.evaluate(leave, host)
        assert observed() == 0

    page.page.evaluate(f"() => {{ window.kept = LiteGraph.createNode('{NODE}'); app.graph.add(window.kept); }}")
    assert observed() == 1
    page.page.evaluate("() => { app.graph.remove(window.kept); }")
    assert observed() == 0
    page.page.evaluate("() => { app.graph.add(window.kept); }")
    assert observed() == 1, "a node that comes back"


def test_graph_is_navigated_over_the_picker(picker: Picker) -> None:
    def view() -> list[float]:
        return picker.page.evaluate("() => [app.canvas.ds.scale, ...app.canvas.ds.offset]")

    mouse = picker.page.mouse
    mouse.move(*picker.at((0.5, 0.5)))
    before = view()
    mouse.wheel(0, -240)
    picker.page.wait_for_timeout(300)
    zoomed = view()
    assert zoomed[0] > before[0]

    mouse.move(*picker.at((0.5, 0.5)))
    mouse.down(button="middle")
    mouse.move(*picker.at((0.7, 0.6)), steps=4)
    mouse.up(button="middle")
    panned = view()
    assert panned[1] > zoomed[1]

    picker.place(A)
    picker.page.keyboard.down(" ")
    picker.press((0.5, 0.5))
    mouse.move(*picker.at((0.6, 0.6)), steps=4)
    mouse.up()
    picker.page.keyboard.up(" ")
    picker.page.wait_for_timeout(200)
    assert view()[1] > panned[1]
    assert picker.pairs() == near(picker, A)


def test_vue_nodes_without_dom_widgets_leave_the_text(profile: "BrowserContext", host: ComfyHost) -> None:
    with open_page_of(profile, host, settings_for("vue")) as page:
        page.page.evaluate("() => app.graph.clear()")
        if page.page.evaluate(SHOWS_DOM_WIDGETS):
            pytest.skip("Vue nodes of this front end show the picker.")
        assert not page.page.evaluate(SHOWS_WEBCAM)
        add_node(page, NODE, (0, 0))
        page.page.wait_for_timeout(500)
        assert page.page.locator(".morph-point-picker").count() == 0
        page.page.locator("textarea[placeholder=points]").fill("by hand")
        assert page.page.evaluate(f"() => {NODE_OF}.widgets[0].value") == "by hand"
