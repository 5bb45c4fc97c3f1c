"""Pairs are placed, moved and removed by pointer, keyboard and numbers, and undone, as a user does it."""

from pathlib import Path

import pytest

from morph_tests.browser.picker import A, B, C, Picker, history, near, undo

LOSE_CAPTURE = """(drawing) => {
    for (let id = 0; id < 20; id++) if (drawing.hasPointerCapture(id)) drawing.releasePointerCapture(id);
}"""


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
