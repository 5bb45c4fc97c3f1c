"""The example workflows that need no download open and run in ComfyUI's own page."""

from pathlib import Path

import pytest
from PIL import Image

from morph_tests.browser.driver import ComfyPage
from morph_tests.comfy_host import REPOSITORY, Run

SAVED_AGAIN = {"SaveVideo"}  # its player, which is there after the first Run, is sent along as if it were an input
WORKFLOWS = sorted((REPOSITORY / "example_workflows").glob("*toy*.json"))


def assert_saved_pictures(run: Run) -> None:
    assert run.files, "no node saved or previewed a picture"
    for file in run.files:
        assert_plays(file) if file.suffix == ".mp4" else assert_opens(file)


def assert_opens(image_file: Path) -> None:
    with Image.open(image_file) as image:
        image.verify()


def assert_plays(video_file: Path) -> None:
    import av

    with av.open(video_file) as video:
        assert len(list(video.decode(video=0))) > 1


def test_there_are_workflows() -> None:
    assert WORKFLOWS


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_workflow_runs_from_the_page(comfy_page: ComfyPage, workflow: Path, screenshots: Path) -> None:
    comfy_page.load(workflow)
    assert comfy_page.unknown_node_types() == []
    assert comfy_page.dialogs() == []

    assert_saved_pictures(comfy_page.run())
    comfy_page.screenshot(screenshots / f"{workflow.stem}.png")
    again = comfy_page.run()
    assert {again.prompt[node]["class_type"] for node in again.executed} <= SAVED_AGAIN, "a second Run repeats work"

    assert comfy_page.dialogs() == []
    assert comfy_page.errors_naming("morph") == []
