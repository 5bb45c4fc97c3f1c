"""Does an edit change what it should and keep the rest? python -m benchmarks.edit [--images N] [--pictures FOLDER]

Held-out toy drawings become another animal by Prompt-to-Prompt, after three inversions. The right answer is known: the
drawing with the same factors and the other animal. After PIE-Bench (Ju et al. 2024), on a domain with a truth.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.drag import SAME
from benchmarks.factor_network import load_factor_network
from benchmarks.inversion import Captioned, null_text
from benchmarks.toy_model import held_out, psnr, sheet
from morph_core.attention.prompt_to_prompt import Edit, PromptToPrompt, prompt_to_prompt
from morph_core.attention.token_alignment import find_tokens, word_control
from morph_core.sampling import ddim
from morph_core.sampling.trajectory import Trajectory, put_back
from morph_core.toy.drawing import KINDS, Drawings
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model
from morph_core.toy.words import tokenize, word_tokens

GUIDANCE = 7.5
HELD_OUT = 6  # offset among the held-out drawings
INVERSIONS = ("DDIM", "Null-text", "Direct")
CONTROLS = {  # cross and self share, and the local blend's threshold
    ", no control": (0.0, 0.0, None),
    " + P2P": (0.8, 0.4, None),
    " + P2P, local blend": (0.8, 0.4, 0.6),
}
EDITS = {f"{name}{control}": (name, control) for control in CONTROLS for name in INVERSIONS}
METHODS = ("nothing", *EDITS, "the right answer")


def other_animal(drawings: Drawings) -> Drawings:
    """The same factors, the next animal."""
    captions = []
    kinds = (drawings.kinds + 1) % len(KINDS)
    for caption, before, after in zip(drawings.captions, drawings.kinds.tolist(), kinds.tolist(), strict=True):
        captions.append(caption.replace(KINDS[before], KINDS[after]))
    return Drawings(kinds, drawings.factors, tuple(captions))


def control_of(captions: tuple[str, str], control: str) -> Edit:
    """The edit of one animal into another. captions: of the source and of the edit."""
    tokens = tokenize(captions)
    cross, layout, threshold = CONTROLS[control]
    if threshold is None:
        return Edit(word_control(*tokens, "replace"), cross, layout)
    animals = [next(word for word in caption.split() if word in KINDS) for caption in captions]
    places = [find_tokens(word, word_tokens(word), ids) for word, ids in zip(animals, tokens, strict=True)]
    return Edit(word_control(*tokens, "replace"), cross, layout, *places, threshold)


def edited(model: ToyModel, captions: tuple[str, str], way: Trajectory, untold: list[Tensor], name: str) -> Tensor:
    """The edited image (1, 3, H, W), sampled beside its source."""
    inversion, control = EDITS[name]
    images = Captioned(model, captions)
    run = PromptToPrompt(control_of(captions, control), way.sigmas, way.noise.shape[-2:])
    told_nothing = untold if inversion == "Null-text" else [images.empty] * len(untold)
    pins = {0: way} if inversion == "Direct" else {}
    step_of = {float(sigma): i for i, sigma in enumerate(way.sigmas)}

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        with prompt_to_prompt(model.unet, run, sigma):
            told = images.told(x, sigma)
        return torch.lerp(images.with_text(told_nothing[step_of[float(sigma)]])(x, sigma), told, GUIDANCE)

    def adjust(step: int, x: Tensor) -> Tensor:
        return run.blend(put_back(x, pins, step), way.sigmas[step])

    return model.decode_latents(ddim.sample(denoise, way.noise.repeat(2, 1, 1, 1), way.sigmas, adjust=adjust)[1:])


@torch.no_grad()
def measure(place: int, count: int, pictures: Path | None) -> Tensor:
    """(methods, 3): PSNR outside the edited part, PSNR to the answer, and 1 where the target animal is read."""
    torch.set_num_threads(1)
    model, network, drawings = load_toy_model(), load_factor_network(), held_out(count, offset=HELD_OUT)
    target = other_animal(drawings)
    image, answer = (shown.render(IMAGE_SIZE)[place : place + 1] for shown in (drawings, target))
    captions = (drawings.captions[place], target.captions[place])
    latent = model.encode_images(image)
    source = Captioned(model, captions[:1])
    way = ddim.trace(source.told, latent, source.sigmas)
    untold = null_text(source, way, GUIDANCE)
    shown = {name: edited(model, captions, way, untold, name) for name in EDITS}
    shown = {"nothing": model.decode_latents(latent), **shown, "the right answer": answer}
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        sheet(torch.cat([image, *shown.values()]), pictures / f"edit_{place:02}.png", columns=len(shown) + 1)
    outside = ((image - answer).abs().amax(1, keepdim=True) < SAME).float()
    wanted = int(target.kinds[place])
    rows = []
    for output in shown.values():
        kept = ((output - image).square().mean(1, keepdim=True) * outside).sum() / outside.sum()
        became = float(network(output)[0].argmax()) == wanted
        rows.append(torch.stack([-10 * kept.log10(), psnr(output, answer)[0], torch.tensor(float(became))]))
    return torch.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--pictures", type=Path, help="save a row a drawing into this folder")
    given = parser.parse_args()
    jobs = range(given.images), [given.images] * given.images, [given.pictures] * given.images
    with ProcessPoolExecutor(given.workers) as pool:
        values = torch.stack(list(pool.map(measure, *jobs)))
    print("| method | PSNR outside | PSNR to the answer | became the animal |")
    print("|---|---|---|---|")
    for name, (outside, answer, _), became in zip(
        METHODS, values.quantile(0.5, dim=0).tolist(), values[:, :, 2].mean(0).tolist(), strict=True
    ):
        shown = [f"{value:.1f} dB" if value < 100 else "exact" for value in (outside, answer)]
        print(f"| {name} | {shown[0]} | {shown[1]} | {became:.0%} |")


if __name__ == "__main__":
    main()
