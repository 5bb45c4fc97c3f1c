"""A workflow begins with a model: the bundled toy, or a published checkpoint."""

from dataclasses import dataclass

from ..description import NARROW, YELLOW, Group, Node


@dataclass(frozen=True)
class Checkpoint:
    """A published model has a file, an address, a kind, and the pixels a side that it was trained on."""

    file: str
    address: str
    kind: str
    side: int


SD15 = Checkpoint(
    "v1-5-pruned-emaonly-fp16.safetensors",
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "Stable Diffusion 1.5",
    512,
)
SDXL = Checkpoint(
    "sd_xl_base_1.0.safetensors",
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    "SDXL",
    1024,
)
TOY_MODEL = Group("Model", YELLOW, [[Node("model", "MorphDragLoadToyModel", width=NARROW)]])


def large_model(checkpoint: Checkpoint) -> Group:
    """Load Checkpoint offers to download the model."""
    chosen = {"ckpt_name": checkpoint.file}
    node = Node("model", "CheckpointLoaderSimple", widgets=chosen, width=420, model=checkpoint.address)
    return Group("Model", YELLOW, [[node]])
