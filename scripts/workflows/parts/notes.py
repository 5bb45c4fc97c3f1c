"""A note explains a workflow on its canvas; its text is a Markdown file beside the workflow's description."""

from dataclasses import asdict
from pathlib import Path

from ..description import NOTE_TYPE, Group, Node
from .models import Checkpoint


def note(description: str, height: int, checkpoint: Checkpoint | None = None, **names: str) -> Group:
    """The text comes from beside `description`, a module's __file__, and can name what a checkpoint has: {file}.

    `names`: what else it can name.
    """
    text = Path(description).with_suffix(".md").read_text(encoding="utf-8")
    known = {**(asdict(checkpoint) if checkpoint else {}), **names}
    filled = text.format_map(known) if known else text
    return Group(
        "", "", [[Node("note", NOTE_TYPE, {}, {"text": filled}, 460, height, title="How to use this workflow")]]
    )
