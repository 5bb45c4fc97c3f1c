"""Does an edit change what it should and keep the rest? python -m benchmarks.edit [--images N] [--pictures FOLDER]

Held-out toy drawings become another animal by the prompt alone and by Prompt-to-Prompt, after three inversions each, by
FlowEdit and by Uni-Edit. Prompt-to-Prompt needs cross-attention, which a transformer has not.
The right answer is known: the drawing with the same factors and the other animal. After PIE-Bench (Ju et al. 2024), on
a domain with a truth.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.factor_network import load_factor_network
from benchmarks.held_out import held_out
from benchmarks.pictures import decibels, differing, psnr, sheet
from benchmarks.runner import arguments, measured, table
from morph_core.attention.word_edit import WordEdit
from morph_core.recipes.difference_edit import DifferenceEdit, edit_prepared_by_difference
from morph_core.recipes.edit import PromptEdit, edit_prepared, null_text_of
from morph_core.recipes.image import prepare_image, with_trajectory
from morph_core.sampling.flow_edit import FlowEdit
from morph_core.sampling.uni_edit import UniEdit
from morph_core.toy.drawing import KINDS, Drawings
from morph_core.toy.model import IMAGE_SIZE, Network, load_toy_model

STEPS = 50
GUIDANCE = 7.5
HELD_OUT = 6  # offset among the held-out drawings
INVERSIONS = ("DDIM", "Null-text", "Direct")
PUBLISHED = {  # for SD 3; for 15 steps
    "FlowEdit, as published": DifferenceEdit(FlowEdit()),
    "Uni-Edit, as published": DifferenceEdit(UniEdit(), 15, source_guidance=1, edited_guidance=1),
}
DIFFERENCES: dict[Network, dict[str, DifferenceEdit]] = {  # and what is best on eight other drawings than these
    "UNet": {
        **PUBLISHED,
        "FlowEdit": DifferenceEdit(FlowEdit(strength=0.8), 28, source_guidance=1, edited_guidance=1),
        "Uni-Edit": DifferenceEdit(UniEdit(strength=0.66, omega=1.0), 28, source_guidance=1, edited_guidance=1),
    },
    "transformer": {
        **PUBLISHED,
        "FlowEdit": DifferenceEdit(FlowEdit(strength=0.8), 28, source_guidance=1, edited_guidance=1.5),
        "Uni-Edit": DifferenceEdit(UniEdit(strength=0.6, omega=2.0), 28, source_guidance=1, edited_guidance=1),
    },
}


def other_animal(drawings: Drawings) -> Drawings:
    """The same factors, the next animal."""
    captions = []
    kinds = (drawings.kinds + 1) % len(KINDS)
    for caption, before, after in zip(drawings.captions, drawings.kinds.tolist(), kinds.tolist(), strict=True):
        captions.append(caption.replace(KINDS[before], KINDS[after]))
    return Drawings(kinds, drawings.factors, tuple(captions))


def edits(network: Network, captions: tuple[str, str]) -> dict[str, PromptEdit]:
    """Name -> edit of one animal into the other; a local blend is where either of the two is. captions: of both."""
    animals = ", ".join(word for caption in captions for word in caption.split() if word in KINDS)
    controls: dict[str, WordEdit | None] = {", no control": None}
    if network == "UNet":
        controls |= {
            " + P2P": WordEdit(cross_steps=0.8, self_steps=0.4),
            " + P2P, local blend": WordEdit(cross_steps=0.8, self_steps=0.4, blend_words=animals, blend_threshold=0.6),
        }
    return {
        f"{inversion}{control}": PromptEdit(STEPS, GUIDANCE, inversion, words)
        for control, words in controls.items()
        for inversion in INVERSIONS
    }


def edit_drawing(network: Network, image: Tensor, captions: tuple[str, str]) -> dict[str, Tensor]:
    """Method -> (1, 3, H, W), the image inverted once and edited in every way."""
    model = load_toy_model(network)
    sigmas = model.backbone.schedule.spaced(STEPS)
    prepared = with_trajectory(model, prepare_image(model, image, captions[0], None), sigmas)
    null_text = null_text_of(model, prepared, prepared.trajectory, PromptEdit(STEPS, GUIDANCE))
    pictures = {"nothing": model.decode_latents(prepared.latent)}
    for name, config in edits(network, captions).items():
        pictures[name] = edit_prepared(model, prepared, *captions, config, null_text=null_text).edited
    for name, difference in DIFFERENCES[network].items():
        pictures[name] = edit_prepared_by_difference(model, prepared, captions[1], difference).edited
    return pictures


def measure(network: Network, place: int, count: int, folder: Path | None) -> dict[str, Tensor]:
    """Method -> PSNR outside the edited part, PSNR to the answer, and 1 where the target animal is read."""
    factors, drawings = load_factor_network(), held_out(count, offset=HELD_OUT)
    target = other_animal(drawings)
    image, answer = (shown.render(IMAGE_SIZE)[place : place + 1] for shown in (drawings, target))
    captions = drawings.captions[place], target.captions[place]
    pictures = {**edit_drawing(network, image, captions), "the right answer": answer}
    if folder:
        shown = torch.cat([image, *pictures.values()])
        sheet(shown, folder / f"edit_{place:02}.png", columns=len(shown))
    outside = 1 - differing(image, answer)
    values = {}
    for method, output in pictures.items():
        became = factors(output)[0].argmax(1) == target.kinds[place]
        values[method] = torch.cat([psnr(output, image, outside), psnr(output, answer), became.float()])
    return values


def main() -> None:
    given = arguments(__doc__, networks=True, images=32, pictures="a row a drawing")
    jobs = [partial(measure, given.network, i, given.images, given.pictures) for i in range(given.images)]
    results = measured(jobs, given.workers)
    rows = []
    for method in results[0]:
        outside, answer, became = torch.stack([values[method] for values in results]).unbind(1)
        medians = [decibels(some.quantile(0.5).item()) for some in (outside, answer)]
        rows.append([method, *medians, f"{became.mean():.0%}"])
    print(table(["method", "PSNR outside", "PSNR to the answer", "became the animal"], rows))


if __name__ == "__main__":
    main()
