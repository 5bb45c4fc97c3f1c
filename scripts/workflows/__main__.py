"""Write the workflows in example_workflows/ from their descriptions: python -m scripts.workflows

A description is a module in bundled/, made of the pieces in parts/; its note is the Markdown file beside it. Then open
every workflow that changed, look at it and run it. After a change that shows, renew the thumbnail beside the file with
scripts/make_thumbnail.py.

When a node's inputs or outputs changed, or a workflow has a node of another type, start ComfyUI with this pack and add
--definitions http://127.0.0.1:8188 to read them anew. Use the oldest ComfyUI that pyproject.toml allows, without
models of your own, whose names would become defaults; newer ones open what is made.
"""

import argparse
from pathlib import Path

from .bundled import WORKFLOWS
from .canvas import Canvas
from .description import nodes_of
from .slots import read_slots, renew_definitions

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"


def main() -> None:
    """The command writes a file for each description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--definitions", metavar="ADDRESS", help="a running ComfyUI to read definitions.json from")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write")
    given = parser.parse_args()
    workflows = {name: describe() for name, describe in WORKFLOWS.items()}
    if given.definitions:
        renew_definitions(given.definitions, {node.type for made in workflows.values() for node in nodes_of(made)})
    slots = read_slots()
    for name, workflow in workflows.items():
        canvas = Canvas(workflow, slots)
        (given.folder / f"{name}.json").write_text(canvas.text(), encoding="utf-8", newline="\n")
        print(f"{name}.json: {len(canvas.nodes)} nodes, {len(canvas.links)} links")


if __name__ == "__main__":
    main()
