"""Workflow files of before open in ComfyUI's page and queue what they queued then, so they run as they did.

`saved/prompts` holds what the page's *Export (API)* gave for each file when it was saved.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from morph_tests.browser.driver import ComfyPage, open_comfy_page
from morph_tests.comfy_host import REPOSITORY, ComfyHost, Prompt

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = REPOSITORY / "tests" / "workflows" / "saved"
FILES = sorted(FOLDER.glob("*.json"))
QUEUED_PROMPT = "async () => (await window.app.graphToPrompt()).output"


@pytest.fixture(scope="module")
def comfy_page(chromium: "Browser", comfyui: ComfyHost) -> Iterator[ComfyPage]:
    """One page opens all files, as a user does who has several workflows open."""
    with open_comfy_page(chromium, comfyui, {}) as page:
        yield page


def without_additions(now: Prompt, before: Prompt) -> Prompt:
    """What `now` says of the nodes and inputs that there were; newer versions may have added inputs."""
    return {
        number: {
            "class_type": node["class_type"],
            "inputs": {name: value for name, value in node["inputs"].items() if name in before[number]["inputs"]},
        }
        for number, node in now.items()
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_saved_file_queues_what_it_queued(comfy_page: ComfyPage, file: Path) -> None:
    comfy_page.load(file)
    assert comfy_page.unknown_node_types() == []
    comfy_page.close_dialogs()  # a checkpoint is missing
    exported = json.loads((FOLDER / "prompts" / file.name).read_text(encoding="utf-8"))
    before = {number: {name: node[name] for name in ("class_type", "inputs")} for number, node in exported.items()}
    now = comfy_page.page.evaluate(QUEUED_PROMPT)
    assert now.keys() == before.keys()
    assert without_additions(now, before) == before
