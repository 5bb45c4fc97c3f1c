"""A small network that reads a toy drawing's factors, and the perceptual distance in its features.

LPIPS's networks must be downloaded; on the toy domain this one, trained by `scripts/train_toy.py factors`, stands in
for them. It comes with the benchmarks, not with the pack. Its numbers are no LPIPS.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from morph_core.toy.drawing import FACTORS, FUR_COLOURS, KINDS, RANGES

WEIGHTS = Path(__file__).parent / "factors.safetensors"
WIDTHS = (32, 48, 64, 96)


def factor_range() -> tuple[Tensor, Tensor]:
    """Lowest and highest value of every factor, (len(FACTORS),) each; colours are 0..1."""
    edges = [RANGES.get(name, (0.0, 1.0)) for name in FACTORS]
    low, high = torch.tensor(edges).T
    return low, high


class FactorNetwork(nn.Module):
    """Pictures (B, 3, 64, 64) in 0..1 to kind logits (B, 4) and factors (B, len(FACTORS))."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, padding=1),
                    nn.GroupNorm(8, after),
                    nn.SiLU(),
                    nn.Conv2d(after, after, 3, stride=2, padding=1),
                    nn.GroupNorm(8, after),
                    nn.SiLU(),
                )
            )
        self.read = nn.Sequential(nn.Linear(WIDTHS[-1] * 16, 192), nn.SiLU(), nn.Linear(192, len(KINDS) + len(FACTORS)))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The four stages' activations, finest first."""
        maps, x = [], pictures * 2 - 1
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        values = self.read(self.features(pictures)[-1].flatten(1))
        low, high = factor_range()
        return values[:, : len(KINDS)], low.to(values) + (high - low).to(values) * values[:, len(KINDS) :]


def load_factor_network() -> FactorNetwork:
    """The trained network, frozen."""
    from safetensors.torch import load_file

    network = FactorNetwork()
    network.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()})
    return network.eval().requires_grad_(False)


def feature_distances(network: FactorNetwork, a: Tensor, b: Tensor) -> Tensor:
    """Perceptual distance of pictures, row by row: two (B, 3, H, W) in 0..1 to (B,).

    LPIPS's formula (Zhang et al. 2018, eq. 1) without its learned channel weights: squared differences of
    unit-length feature vectors, averaged over places, summed over stages.
    """
    total = torch.zeros(len(a))
    for map_a, map_b in zip(network.features(a), network.features(b), strict=True):
        unit_a, unit_b = (nn.functional.normalize(x, dim=1, eps=1e-6) for x in (map_a, map_b))
        total = total + (unit_a - unit_b).square().sum(1).mean((1, 2))
    return total


def read_colours(factors: Tensor) -> list[str]:
    """The named fur colour nearest to each drawing's."""
    palette = torch.tensor(list(FUR_COLOURS.values()))
    start = FACTORS.index("fur_r")
    nearest = torch.cdist(factors[:, start : start + 3], palette).argmin(1)
    return [list(FUR_COLOURS)[i] for i in nearest.tolist()]
