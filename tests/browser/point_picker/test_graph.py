"""The picker among other nodes: sizes, copies, subgraphs, and moving about in the graph."""

import pytest

from morph_tests.browser.driver import ComfyPage
from morph_tests.browser.picker import NODE, NODE_OF, A, B, C, Picker, add_node, near, pairs_in, prompt_of, show_at

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
