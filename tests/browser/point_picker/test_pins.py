"""Pins are set, moved and removed by pointer, keyboard and numbers, and undone, as a user does it."""

import json
from pathlib import Path

import pytest

from morph_tests.browser.picker import (
    NODE,
    A,
    B,
    C,
    Picker,
    add_node,
    history,
    near,
    near_pins,
    pins_in,
    prompt_of,
    undo,
)

PIN = (0.4, 0.75)
OTHER = (0.9, 0.2)


def test_pins_are_set_moved_and_removed(picker: Picker, screenshots: Path, request: pytest.FixtureRequest) -> None:
    picker.pin(PIN)
    assert picker.pins() == near_pins(picker, PIN)
    assert picker.pairs() == [], "pins alone are kept"
    picker.place(A)
    button = picker.element.get_by_role("button", name="Pin", exact=True)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    picker.click(OTHER)
    assert button.get_attribute("aria-pressed") == "false"
    assert picker.pins() == near_pins(picker, PIN, OTHER)
    assert picker.drawing.locator(".pin").count() == 2
    picker.page.screenshot(path=screenshots / f"{request.node.callspec.id}-pins.png")
    assert json.loads(picker.text())["v"] == 2

    picker.drag(PIN, B[0])
    assert picker.pins() == near_pins(picker, B[0], OTHER)
    picker.element.get_by_role("button", name="Swap").click()
    assert picker.pins() == near_pins(picker, B[0], OTHER)
    picker.click(OTHER, button="right")
    assert picker.pins() == near_pins(picker, B[0])
    picker.element.get_by_role("button", name="Clear").click()
    assert picker.text() == ""
    assert picker.drawing.locator(".pin").count() == 0


def test_keys_and_numbers_move_a_pin(picker: Picker) -> None:
    picker.place(A)
    picker.pin(PIN)
    numbers = picker.element.get_by_role("spinbutton")
    assert numbers.count() == 2
    numbers.nth(0).fill("60")
    numbers.nth(0).press("Enter")
    assert picker.pins() == near_pins(picker, (0.2, PIN[1]))
    picker.page.keyboard.press("Shift+ArrowDown")
    assert picker.pins() == near_pins(picker, (0.2, PIN[1] + 10 / 200))
    picker.page.keyboard.press("]")
    assert numbers.count() == 4, "after the last pin comes the first pair"
    picker.page.keyboard.press("[")
    picker.page.keyboard.press("Delete")
    assert (picker.pins(), picker.pairs()) == ([], near(picker, A))

    picker.element.get_by_role("button", name="Pin", exact=True).click()
    picker.page.keyboard.press("Escape")
    picker.click(B[0])
    assert picker.drawing.locator(".unfinished").count() == 1, "Escape turns the button off"
    picker.page.keyboard.press("Shift+Enter")
    picker.click(B[1])
    assert picker.pins() == [(0.5, 0.5)]
    assert picker.pairs() == near(picker, A, B)


def test_undo_takes_back_one_pin(picker: Picker) -> None:
    picker.place(A)
    steps = [history(picker.comfy_page)]
    picker.pin(PIN)
    steps.append(history(picker.comfy_page))
    picker.drag(PIN, C[0])
    steps.append(history(picker.comfy_page))
    picker.page.keyboard.press("Delete")
    picker.page.wait_for_timeout(100)
    steps.append(history(picker.comfy_page))
    assert [after - before for before, after in zip(steps, steps[1:], strict=False)] == [1, 1, 1]
    undo(picker)
    assert picker.pins() == near_pins(picker, C[0])
    undo(picker)
    assert picker.pins() == near_pins(picker, PIN)
    undo(picker)
    assert (picker.pins(), picker.pairs()) == ([], near(picker, A))


def test_prompt_holds_the_pins(picker: Picker) -> None:
    add_node(picker.comfy_page, "PreviewImage", (900, 0), [(picker.node_id, 1, "images")])
    picker.place(A)
    picker.pin(PIN, OTHER)
    (node,) = (node for node in prompt_of(picker.comfy_page).values() if node["class_type"] == NODE)
    assert pins_in(node["inputs"]["points"]) == near_pins(picker, PIN, OTHER)
