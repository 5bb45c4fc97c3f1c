"""The example workflows are what `python -m scripts.workflows` writes, and mistakes in a description are refused."""

import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

from morph_pack.scripts.workflows.bundled import WORKFLOWS
from morph_pack.scripts.workflows.canvas import Canvas
from morph_pack.scripts.workflows.description import Group, Node, Workflow
from morph_pack.scripts.workflows.slots import read_slots
from morph_tests.comfy_host import REPOSITORY

FOLDER = REPOSITORY / "example_workflows"
MODEL = Node("model", "MorphDragLoadToyModel")
PICTURE = Node("picture", "MorphDragToyDrawing")
LATENT = Node("latent", "VAEEncode", {"pixels": "picture", "vae": "model.VAE"})


def differences(committed: str, written: str) -> list[str]:
    """The first lines that differ."""
    lines = zip_longest(committed.splitlines(keepends=True), written.splitlines(keepends=True), fillvalue="")
    return [f"line {number}: {a!r}, not {b!r}" for number, (a, b) in enumerate(lines, 1) if a != b][:5]


def canvas(*nodes: Node) -> Canvas:
    """One group above another, as a layout needs."""
    workflow: Workflow = [[Group("Nodes", "#888", [[node] for node in nodes]), Group("Model", "#888", [[MODEL]])]]
    return Canvas(workflow, read_slots())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_file_is_what_its_description_says(name: str) -> None:
    committed = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    written = Canvas(WORKFLOWS[name](), read_slots()).text()
    assert differences(committed, written) == [], "run python -m scripts.workflows"


def test_every_file_has_a_description() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(WORKFLOWS)


def test_the_command_writes_the_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.workflows", "--folder", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    names = sorted(f"{name}.json" for name in WORKFLOWS)
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_text(encoding="utf-8") == (FOLDER / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ([PICTURE, PICTURE, LATENT], "two nodes have one name"),
        ([PICTURE, Node("latent", "VAEEncode", {"pixels": "picture"})], "latent: nothing is linked to vae"),
        ([Node("picture", "MorphDragToyDrawing", {"mask": "model"})], "picture: MorphDragToyDrawing has no input mask"),
        ([Node("picture", "MorphDragToyDrawing", {}, {"sise": 64})], "picture: MorphDragToyDrawing has no widget sise"),
    ],
)
def test_a_mistake_is_refused(nodes: list[Node], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        canvas(*nodes)


def test_a_link_begins_at_the_named_output_or_the_first() -> None:
    made = canvas(PICTURE, LATENT)
    assert made.numbers == {"picture": 1, "latent": 2, "model": 3}
    assert [list(link) for link in made.links] == [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 2, 2, 1, "VAE"]]
