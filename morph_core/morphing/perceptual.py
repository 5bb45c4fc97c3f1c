"""Perceptual distances between neighbouring frames; they decide where a morph's frames are placed."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from ..denoise import OnStep
from ..errors import InvalidInput
from ..packages import needed

LEVELS = 5
TRUNK_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


def laplacian_pyramid_distances(frames: Tensor) -> Tensor:
    """Normalised Laplacian pyramid distance of each frame to the next: (F, 3, H, W) in 0..1 to (F − 1,).

    After Laparra et al. (2016): the difference of two images' local contrasts, each divided by its
    neighbourhood's mean contrast, as a root mean square a band, averaged over bands. Simplified: three colour
    channels instead of luminance, box neighbourhoods, and the coarsest band unnormalised. Needs no weights.
    """
    bands = _contrast_bands(frames.float())
    per_band = [(band[1:] - band[:-1]).square().mean((1, 2, 3)).sqrt() for band in bands]
    return torch.stack(per_band).mean(0)


def _laplacian_pyramid_pairs(frames: Tensor) -> Tensor:
    """Distance of each frame to each: (F, F)."""
    bands = _contrast_bands(frames.float())
    rows = [[(band - band[i]).square().mean((1, 2, 3)).sqrt() for band in bands] for i in range(len(frames))]
    return torch.stack([torch.stack(row).mean(0) for row in rows])


def _contrast_bands(images: Tensor) -> list[Tensor]:
    """A Laplacian pyramid, every band but the last divided by its local mean magnitude."""
    bands: list[Tensor] = []
    while len(bands) < LEVELS - 1 and min(images.shape[-2:]) >= 8:
        small = _blurred(images)[..., ::2, ::2]
        band = images - interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)
        bands.append(band / (0.17 + avg_pool2d(band.abs(), 5, 1, 2, count_include_pad=False)))
        images = small
    return [*bands, images]


def _blurred(images: Tensor) -> Tensor:
    """The 5-tap binomial filter of Burt & Adelson (1983)."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    kernel = (taps[:, None] * taps).expand(images.shape[1], 1, 5, 5)
    return conv2d(pad(images, (2, 2, 2, 2), mode="replicate"), kernel, groups=images.shape[1])


def lpips_distances(
    frames: Tensor, net: str = "alex", trunk: Path | None = None, on_step: OnStep | None = None
) -> Tensor:
    """LPIPS (Zhang et al. 2018) of each frame to the next: (F, 3, H, W) in 0..1 to (F − 1,).

    net: "alex" or "vgg". trunk: a file with torchvision's ImageNet weights of that network; without it,
    torchvision's own cache is looked in. Nothing is downloaded. Raises `InvalidInput` when the file is absent and
    `MissingPackage` when lpips is.
    """
    if net not in TRUNK_FILES:
        raise InvalidInput(f"net must be one of {', '.join(TRUNK_FILES)}; got {net!r}")
    with needed("torchvision"):
        import torchvision  # noqa: F401 - what lpips imports
    with needed("lpips"):
        import lpips
    path = trunk or Path(torch.hub.get_dir()) / "checkpoints" / TRUNK_FILES[net]
    if not path.is_file():
        raise InvalidInput(
            f"LPIPS needs torchvision's ImageNet weights and {path} is not there. Put {TRUNK_FILES[net]} at that "
            "place, or choose the metric 'laplacian pyramid', which needs no weights"
        )
    with torch.random.fork_rng(devices=[]):  # the network starts from random weights, which are then replaced
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    model.net.load_state_dict(_trunk_state(model.net, torch.load(path, map_location="cpu", weights_only=True)))
    model.eval().requires_grad_(False).to(frames.device)
    images = frames.float()
    distances = []
    for i in range(1, len(images)):
        distances.append(model(images[i - 1 : i], images[i : i + 1], normalize=True).flatten()[0])
        if on_step:
            on_step(i, len(images) - 1)
    return torch.stack(distances)


def _trunk_state(net: torch.nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's `features.<i>.*` under lpips' names, `slice<n>.<i>.*`."""
    return {key: weights["features." + key.split(".", 1)[1]] for key in net.state_dict()}


METRICS: dict[str, Callable[[Tensor, OnStep | None], Tensor]] = {
    "laplacian pyramid": lambda frames, _: laplacian_pyramid_distances(frames),
    "lpips (alex)": lambda frames, on_step: lpips_distances(frames, "alex", on_step=on_step),
    "lpips (vgg)": lambda frames, on_step: lpips_distances(frames, "vgg", on_step=on_step),
}


def perceptual_distances(
    frames: Tensor, metric: str = "laplacian pyramid", on_step: OnStep | None = None, name: str = "images"
) -> Tensor:
    """Distance of each frame to the next: (F, 3, H, W) in 0..1 to (F − 1,). metric: a key of `METRICS`.

    name: what errors call the frames. Raises `InvalidInput` for fewer than two frames, pictures smaller than 8 pixels
    or an unknown metric.
    """
    if metric not in METRICS:
        raise InvalidInput(f"metric must be one of {', '.join(METRICS)}; got {metric!r}")
    if len(frames) < 2:
        raise InvalidInput(f"{name} must be at least 2 frames to have distances between them, got {len(frames)}")
    if min(frames.shape[-2:]) < 8:
        raise InvalidInput(f"{name} must be at least 8 pixels wide and high, got {tuple(frames.shape[-2:])}")
    with torch.no_grad():
        return METRICS[metric](frames, on_step)


def perceptual_distances_of_pairs(frames: Tensor, metric: str = "laplacian pyramid") -> Tensor:
    """Distance of each frame to each later one: (F, 3, H, W) in 0..1 to (F, F), of which the rest does not count.

    The same numbers as `perceptual_distances`, which says what is refused. LPIPS takes F·(F − 1)/2 runs of its network.
    """
    perceptual_distances(frames[:2], metric)
    with torch.no_grad():
        if metric == "laplacian pyramid":
            return _laplacian_pyramid_pairs(frames)
        distances = torch.zeros(len(frames), len(frames))
        for i in range(len(frames) - 1):
            later = frames[i + 1 :]
            there_and_back = torch.stack([frames[i].expand_as(later), later], dim=1).flatten(0, 1)
            distances[i, i + 1 :] = METRICS[metric](there_and_back, None)[::2]
        return distances
