"""Flow models are sampled from NOISE: their first step would keep nothing of an inverted LATENT."""

from ..description import NARROW, RED, Group, Node
from .inversion import Spacing
from .sampling import decoded

FLOW_SPACING: Spacing = {"steps": 50, "scheduler": "simple"}
TOY_CELLS = 8  # pixels a side that stock nodes take for a latent cell; the toy model's are half as large


def sample_noise(title: str, noise: str, guider: Node, empty: Node, model: str, spacing: Spacing, images: str) -> Group:
    """SamplerCustomAdvanced samples with euler at the sigmas of the inversion."""
    schedule = Node("sigmas", "BasicScheduler", {"model": model}, {**spacing, "denoise": 1.0}, NARROW)
    euler = Node("euler", "KSamplerSelect", {}, {"sampler_name": "euler"}, NARROW)
    links = {"noise": noise, "guider": guider.name, "sampler": euler.name, "sigmas": schedule.name}
    sampler = Node("latents", "SamplerCustomAdvanced", {**links, "latent_image": empty.name}, width=NARROW)
    return Group(title, RED, [[guider, empty], [euler, schedule], [sampler, decoded(images, sampler.name)]])


def guider(model: str, prompt: str) -> Node:
    """Basic Guider uses no guidance, as the inversion."""
    return Node("guider", "BasicGuider", {"model": model, "conditioning": prompt}, width=NARROW)


def empty_latents(kind: str, side: int, rows: int) -> Node:
    """The noise is added to empty latents of its size, as many as there are frames."""
    return Node("empty", kind, {}, {"width": side, "height": side, "batch_size": rows}, NARROW)


def edit_by_difference(
    prompts: dict[str, str], cfg: dict[str, float], strength: float, spacing: Spacing, wanted: list[Node]
) -> Group:
    """SamplerCustomAdvanced edits latent D by what Edit Guider predicts for either prompt.

    `prompts`: inputs of Edit Guider and what is linked to them. `wanted`: the nodes that say what it is to show.
    """
    guider = Node("guider", "MorphDragEditGuider", {"model": "model.MODEL", **prompts}, cfg)
    method = Node("method", "MorphDragFlowEditSampler", {}, {"strength": strength})
    noise = Node("noise", "RandomNoise", {}, {"noise_seed": 1})
    schedule = Node("sigmas", "BasicScheduler", {"model": "model.MODEL"}, {**spacing, "denoise": 1.0}, NARROW)
    links = {"noise": noise.name, "guider": guider.name, "sampler": method.name, "sigmas": schedule.name}
    sampler = Node("latents", "SamplerCustomAdvanced", {**links, "latent_image": "D latent"}, width=NARROW)
    return Group("Edit", RED, [wanted, [guider, method], [noise, schedule], [sampler, None]])
