"""Vue nodes of older front ends show no DOM widget, so no picker."""

from typing import TYPE_CHECKING

import pytest

from morph_tests.browser.driver import open_page_of
from morph_tests.browser.picker import NODE, NODE_OF, SHOWS_DOM_WIDGETS, add_node, settings_for
from morph_tests.comfy_host import ComfyHost

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext


SHOWS_WEBCAM = """async () => {
    const node = LiteGraph.createNode("WebcamCapture");
    app.graph.add(node);
    await new Promise((resolve) => setTimeout(resolve, 500));
    return node.widgets.find((widget) => widget.name === "image").element.isConnected;
}"""


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
