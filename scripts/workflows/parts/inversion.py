"""An inverted image is known to the model by a LoRA and by the noise that leads back to it."""

from collections.abc import Mapping
from typing import Any

from ..description import BLUE, Group, Node
from .pictures import Source

Spacing = Mapping[str, Any]  # of every inversion, and of the sampling that follows
SPACING: Spacing = {"steps": 50, "scheduler": "ddim_uniform"}


def inverted_image(
    end: str,
    source: Source,
    steps: int,
    learning_rate: float,
    start: int = 0,
    title: str = "",
    save_memory: bool = False,
    spacing: Spacing = SPACING,
) -> Group:
    """A LoRA is fitted for so many steps, and with it DDIM Invert goes back to the sampling step `start`."""
    known = {"model": "model.MODEL", "positive": f"{end} prompt", "latent": f"{end} latent"}
    numbers = {"rank": 16, "steps": steps, "learning_rate": learning_rate, "seed": 0}
    fit = {**numbers, "gradient_checkpointing": save_memory}
    lora = Node(f"{end} LoRA", "MorphDragFitImageLora", known, fit)
    model = Node(f"{end} model", "LoraModelLoader", {"model": "model.MODEL", "lora": lora.name})
    first, second = source
    rows = [[*first, lora, model], [*second, None, inversion(end, model.name, start, spacing)]]
    return Group(title or f"Image {end}", BLUE, rows)


def inversion(end: str, model: str, start: int = 0, spacing: Spacing = SPACING) -> Node:
    """DDIM Invert finds the noise that leads back to a source's picture, and its trajectory."""
    links = {"model": model, "positive": f"{end} prompt", "latent_image": f"{end} latent"}
    return Node(f"{end} noise", "MorphDragDdimInvert", links, {**spacing, "start_at_step": start})


def pinned(name: str, model: str, trajectory: str, row: int, mask: str = "") -> Node:
    """Direct Inversion holds a row of the batch to its inversion, outside a mask if one is named."""
    links = {"model": model, "trajectory": f"{trajectory}.TRAJECTORY", **({"mask": mask} if mask else {})}
    return Node(name, "MorphDragDirectInversion", links, {"row": row})


def all_pinned(name: str, model: str, trajectory: str, mask: str) -> Node:
    """Direct Inversion holds every row to one image outside a mask."""
    links = {"model": model, "trajectory": f"{trajectory}.TRAJECTORY", "mask": mask}
    return Node(name, "MorphDragDirectInversion", links, {"all_rows": True})
