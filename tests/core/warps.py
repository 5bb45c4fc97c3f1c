"""A model in which the truth of a drag is known: the latent's first two channels say how far the picture is moved.

`Warp` draws a fixed pattern, each place of it carried away by `GAIN` cells a unit of the variance-preserving latent. So
what a handle's place shows can be found in the result without any tracking: it came from where the flow says.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from morph_pack.morph_core.dragging.latent import DragLatent, published
from morph_pack.morph_core.dragging.points import DragPoints, from_grid, to_grid
from morph_pack.morph_core.dragging.tracking import motion_loss, track_points
from morph_pack.morph_core.models.feature_map import FeatureMap
from morph_pack.morph_core.sampling.schedule import VariancePreserving

CELLS = 32  # of the map, a side; the latent has 8
GAIN = 20.0
SIGMAS = torch.linspace(8, 4, 21)
SCHEDULE = VariancePreserving(SIGMAS.flip(0))
ONE_HANDLE = (((10, 12), (18, 16)),)
FIVE_HANDLES = (((6, 6), (9, 9)), ((25, 6), (25, 11)), ((16, 16), (13, 16)), ((6, 25), (6, 22)), ((25, 25), (22, 25)))
NEVER = replace(DragLatent(), learning_rate=1e-6, iterations=3)  # too slow to get anywhere


def at_cells(*pairs):
    """Points whose handles and targets are these cells (x, y) of the map."""
    ends = torch.tensor(pairs, dtype=torch.float32)
    return DragPoints(*(from_grid(ends[:, i], (CELLS, CELLS)) for i in (0, 1)))


def grid():
    rows, columns = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
    return torch.stack([columns, rows], dim=-1).float()


def pattern(depth=16):
    """Waves of many directions, each longer than what is dragged in a step: (1, depth, CELLS, CELLS)."""
    generator = torch.Generator().manual_seed(1)
    angles, phases = 2 * math.pi * torch.rand(2, depth, generator=generator)
    lengths = 10 + 20 * torch.rand(depth, generator=generator)
    waves = torch.stack([angles.cos(), angles.sin()], dim=-1) * 2 * math.pi / lengths[:, None]
    return (grid() @ waves.T + phases).sin().movedim(-1, 0)[None]


def latent(seed=1):
    """A latent that moves nothing by much, at SIGMAS[0]."""
    z = 0.01 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return z * (SIGMAS[0] ** 2 + 1) ** 0.5


class Warp:
    """A model's `read`. Its z0 is that of unit Gaussian data, so that sampling leaves the picture where it is."""

    def __init__(self):
        self.pattern, self.wants = pattern(), []

    def flow(self, x, sigma):
        """(CELLS, CELLS, 2): from where each place's content is, to the place."""
        z = x[:, :2] / (sigma**2 + 1) ** 0.5
        return GAIN * interpolate(z, (CELLS, CELLS), mode="bilinear")[0].movedim(0, -1)

    def __call__(self, x, sigma, wants_x0):
        self.wants.append(wants_x0)
        drawn = sample_at(self.pattern, grid() - self.flow(x, sigma))
        return FeatureMap(drawn.movedim(-1, 0)[None], (CELLS, CELLS)), self.denoise(x, sigma) if wants_x0 else None

    def denoise(self, x, sigma):
        return x / (sigma**2 + 1)

    def origin(self, x, sigma, places):
        """Where what is at `places` (N, 2) was in the pattern."""
        return places - FeatureMap(self.flow(x, sigma).movedim(-1, 0)[None], (CELLS, CELLS)).at(places)


def sample_at(values, places):
    """As `FeatureMap.at`, but with a gradient for the places."""
    normal = 2 * places / (CELLS - 1) - 1
    sampled = torch.nn.functional.grid_sample(values, normal[None], padding_mode="border", align_corners=True)
    return sampled[0].movedim(0, -1)


def distances(result, points, row=-1):
    """From each handle of a row of the tracks to its target, in cells."""
    return (to_grid(result.tracks[row], (CELLS, CELLS)) - to_grid(points.targets, (CELLS, CELLS))).norm(dim=1)


def misplaced(read, x, result, points):
    """From what each handle showed to what its place now shows, in cells of the pattern."""
    now, then = (to_grid(places, (CELLS, CELLS)) for places in (result.tracks[-1], points.handles))
    return (read.origin(result.dragged, SIGMAS[result.level], now) - read.origin(x, SIGMAS[0], then)).norm(dim=1)


def by_hand(read, x, sigmas, points, config, kept=None):
    """DragDiffusion's loop, written out with a plain Adam and without scaling of the loss: z, losses, tracks."""
    scale = (sigmas[0] ** 2 + 1) ** 0.5
    original, x0 = read(x, sigmas[0], True)
    following = z_after(x, x0, sigmas)
    origins, targets = (to_grid(end, (CELLS, CELLS)) for end in (points.handles, points.targets))
    z, handles, tracks, losses = (x / scale).requires_grad_(), origins, [], []
    optimiser = torch.optim.Adam([z], lr=config.learning_rate)
    for update in range(config.iterations):
        features, x0 = read(z * scale, sigmas[0], True)
        if update and update % config.drags_per_tracking == 0:
            handles = track_points(original.at(origins), features, handles, config.tracking_radius)
        tracks.append(handles)
        ways = [(target - handle, (target - handle).norm()) for handle, target in zip(handles, targets, strict=True)]
        steps = torch.stack([way * min(1, config.drag_distance / max(length.item(), 1e-9)) for way, length in ways])
        reference = (features, handles) if config.objective == "DragDiffusion" else (original, origins)
        wanted = reference[0].around(reference[1], config.motion_radius)
        per_point = motion_loss(features, handles + steps, wanted, config.motion_radius)
        loss = torch.stack([one for one, way in zip(per_point, ways, strict=True) if way[1] >= config.reach]).sum()
        if kept is not None:
            loss = loss + config.mask_weight * ((z_after(z * scale, x0, sigmas) - following).abs() * kept).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    features, _ = read(z * scale, sigmas[0], False)
    tracks.append(track_points(original.at(origins), features, handles, config.tracking_radius))
    return (z * scale).detach(), losses, from_grid(torch.stack(tracks), (CELLS, CELLS))


def z_after(x, x0, sigmas):
    """The variance-preserving latent a DDIM step later, by eq. 12 of the paper."""
    (alpha, alpha_next), noise = (1 / (sigmas[:2] ** 2 + 1)), (x - x0) / sigmas[0]
    assert alpha < alpha_next
    return alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * noise


OBJECTIVES = {
    "DragDiffusion": DragLatent(),
    "GoodDrag": replace(published("GoodDrag"), motion_radius=2, tracking_radius=6, drag_distance=2.0, levels=5),
}
BOTH = pytest.mark.parametrize("config", OBJECTIVES.values(), ids=OBJECTIVES.keys())
