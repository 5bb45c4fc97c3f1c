"""Features resized only where they are read are those of the whole map, resized and then sampled."""

import pytest
import torch
from torch.nn.functional import grid_sample, interpolate

from morph_pack.morph_core.dragging.tracking import window
from morph_pack.morph_core.models.feature_map import FeatureMap

HEIGHT, WIDTH = 12, 16


def points(*values):
    return torch.tensor(values, dtype=torch.float32)


def features(height=HEIGHT, width=WIDTH, depth=8):
    return torch.randn(1, depth, height, width, generator=torch.Generator().manual_seed(1))


def ramps(height=HEIGHT, width=WIDTH):
    """Two channels: 3x − 2y + 1 and y."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([3 * x - 2 * y + 1, y])[None].float()


def as_map(values):
    """Each value a cell."""
    return FeatureMap(values, tuple(values.shape[-2:]))


def sampled(values, size, places):
    """The whole map, resized as published, then sampled between its cells: (..., D)."""
    last = torch.tensor([size[1] - 1, size[0] - 1]).clamp(min=1)
    whole = interpolate(values, size, mode="bilinear")
    found = grid_sample(whole, (2 * places / last - 1).reshape(1, 1, -1, 2), padding_mode="border", align_corners=True)
    return found[0, :, 0].T.reshape(*places.shape[:-1], -1)


SIZES = [(48, 64), (24, 64), (12, 16), (13, 17), (5, 7), (1, 9)]


def places_of(size):
    """Inside, outside, at whole cells, on every edge and corner."""
    height, width = size
    sides, generator = torch.tensor([width - 1, height - 1]).double(), torch.Generator().manual_seed(2)
    shares = 1.5 * torch.rand(200, 2, dtype=torch.float64, generator=generator) - 0.25
    edges = torch.cartesian_prod(torch.tensor([0.0, 0.37, 1.0]), torch.tensor([0.0, 0.37, 1.0])).double()
    return torch.cat([shares * sides, (shares * sides).round(), edges * sides])


@pytest.mark.parametrize("size", SIZES)
def test_what_is_read_is_the_whole_resized_map_sampled_there_and_its_gradient(size):
    values, places = features().double().requires_grad_(), places_of(size)
    found, expected = FeatureMap(values, size).at(places), sampled(values, size, places)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    gradients = [torch.autograd.grad((read * weights).sum(), values)[0] for read in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
    assert gradients[0].abs().max() > 1


@pytest.mark.parametrize("size", SIZES)
def test_in_float32_too_to_its_rounding(size):
    places = places_of(size).float()
    torch.testing.assert_close(
        FeatureMap(features(), size).at(places), sampled(features(), size, places), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("radius", [0, 1, 4])
@pytest.mark.parametrize("size", SIZES)
def test_around_a_point_are_the_features_of_its_window_row_by_row(size, radius):
    read, places = FeatureMap(features().double(), size), places_of(size)
    found, around = read.around(places, radius), places[:, None] + window(radius)
    assert found.features.shape == (len(places), (2 * radius + 1) ** 2, 8)
    torch.testing.assert_close(found.features, read.at(around), rtol=0, atol=1e-10)
    last = torch.tensor([size[1] - 1, size[0] - 1])
    assert torch.equal(found.on_map, ((around >= 0) & (around <= last)).all(-1))


def test_nothing_as_large_as_the_map_is_saved_for_backward():
    values, size, saved = features().requires_grad_(), (8 * HEIGHT, 8 * WIDTH), []

    def keep(tensor):
        saved.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        FeatureMap(values, size).around(points([7, 5]), 1)
    assert max(saved) == values.untyped_storage().nbytes()


def test_a_ramp_is_sampled_exactly_everywhere():
    inside = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([WIDTH - 1, HEIGHT - 1])
    x, y = inside.T
    torch.testing.assert_close(as_map(ramps()).at(inside), torch.stack([3 * x - 2 * y + 1, y], dim=1))


def test_at_integers_a_sample_is_the_cell():
    values = features()
    at_cells = as_map(values).at(points([0, 0], [15, 0], [0, 11], [15, 11], [7, 4]))
    expected = values[0, :, [0, 0, 11, 11, 4], [0, 15, 0, 15, 7]].T
    torch.testing.assert_close(at_cells, expected, rtol=0, atol=1e-5)


def test_between_four_cells_a_sample_is_their_mean():
    values = features()
    mean = values[0, :, 4:6, 7:9].mean((1, 2))
    torch.testing.assert_close(as_map(values).at(points(7.5, 4.5)), mean)


def test_off_the_map_a_sample_is_the_borders():
    off, border = points([-3, 4], [99, 4], [7, -1], [20, 20]), points([0, 4], [15, 4], [7, 0], [15, 11])
    torch.testing.assert_close(as_map(ramps()).at(off), as_map(ramps()).at(border))


def test_samples_have_the_shape_of_the_points():
    for shape in ((), (1,), (5,), (3, 4)):
        assert as_map(features()).at(torch.zeros(*shape, 2)).shape == (*shape, 8)


@pytest.mark.parametrize(("height", "width"), [(5, 1), (1, 5), (1, 1)])
def test_a_map_one_cell_wide_is_sampled_along_its_length(height, width):
    values = features(height, width)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cells = torch.stack([x, y], dim=-1).reshape(-1, 2).float()
    torch.testing.assert_close(as_map(values).at(cells), values[0].flatten(1).T, rtol=0, atol=1e-6)


def test_the_map_ends_at_its_last_cells_middles():
    on, off = points([0, 0], [15, 11], [0, 11], [7.5, 3.2]), points([-0.01, 5], [15.01, 5], [5, -0.01], [5, 11.01])
    assert as_map(features()).around(on, 0).on_map.all() and not as_map(features()).around(off, 0).on_map.any()
