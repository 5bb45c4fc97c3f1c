"""The text of the points: in prompts, in workflow files, from others and from a link."""

import json
from pathlib import Path

import pytest

from morph_tests.browser.picker import (
    NODE,
    NODE_OF,
    A,
    B,
    C,
    Picker,
    add_node,
    history,
    near,
    pairs_in,
    prompt_of,
    show_at,
)

OLD_WORKFLOW = Path(__file__).parents[1] / "workflows" / "drag_first_version.json"
SOCKETS = """([from, to]) => {
    const { ds, canvas } = app.canvas;
    const { left, top } = canvas.getBoundingClientRect();
    const onScreen = ([x, y]) => [(x + ds.offset[0]) * ds.scale + left, (y + ds.offset[1]) * ds.scale + top];
    const target = app.graph.getNodeById(to);
    const points = target.inputs.findIndex((input) => input.name === "points");
    return [onScreen(app.graph.getNodeById(from).getOutputPos(0)), onScreen(target.getInputPos(points))];
}"""


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
