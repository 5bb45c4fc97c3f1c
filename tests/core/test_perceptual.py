import types

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.perceptual import (
    METRICS,
    TRUNK_FILES,
    laplacian_pyramid_distances,
    lpips_distances,
    perceptual_distances,
)


def pictures(count, height=32, width=32, seed=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def disc(x, size=64, radius=12):
    """A white disc on grey whose centre is at column x, with soft edges."""
    steps = torch.arange(size) + 0.5
    distance = ((steps - x) ** 2 + (steps[:, None] - size / 2) ** 2).sqrt()
    return (0.4 + 0.6 * (radius + 0.5 - distance).clamp(0, 1)).expand(3, -1, -1)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (32, 32), (70, 50)])
def test_equal_frames_are_at_distance_0_and_others_are_not(size):
    a, b = pictures(2, *size)
    distances = laplacian_pyramid_distances(torch.stack([a, a, b]))
    assert distances[0] == 0
    assert distances[1] > 0.01


@pytest.mark.parametrize(("size", "bands"), [(64, 5), (32, 4), (8, 2)])
def test_a_change_of_brightness_is_seen_in_the_coarsest_band_only(size, bands):
    a = pictures(1, size, size) / 2
    distance = laplacian_pyramid_distances(torch.cat([a, a + 0.25]))
    assert distance.item() == pytest.approx(0.25 / bands, rel=1e-3)


def test_distance_is_symmetric():
    frames = pictures(4)
    backwards = laplacian_pyramid_distances(frames.flip(0)).flip(0)
    torch.testing.assert_close(laplacian_pyramid_distances(frames), backwards)


def test_going_straight_is_never_longer_than_a_detour():
    frames = pictures(20, 16, 16)
    for a, b, c in frames.unfold(0, 3, 1).permute(0, 4, 1, 2, 3):
        straight = laplacian_pyramid_distances(torch.stack([a, c]))
        detour = laplacian_pyramid_distances(torch.stack([a, b, c])).sum()
        assert straight <= detour + 1e-6


def test_distance_grows_with_displacement():
    start = disc(20)
    distances = [laplacian_pyramid_distances(torch.stack([start, disc(20 + dx)])).item() for dx in (0, 0.5, 1, 2, 4, 8)]
    assert distances == sorted(distances)
    assert distances[0] == 0
    assert all(far > 1.2 * near for near, far in zip(distances[1:], distances[2:], strict=False))


def test_equal_displacements_are_about_equally_far_wherever_they_are():
    distances = laplacian_pyramid_distances(torch.stack([disc(16 + 4 * i) for i in range(9)]))
    assert distances.max() < 1.1 * distances.min()


def test_a_faint_change_is_masked_by_a_strong_texture():
    flat, texture = torch.full((1, 3, 32, 32), 0.5), 0.1 + 0.8 * pictures(1)
    change = 0.1 * (pictures(1, seed=2) - 0.5)
    on_flat, on_texture = (laplacian_pyramid_distances(torch.cat([x, x + change])) for x in (flat, texture))
    assert on_texture < 0.7 * on_flat


def test_each_distance_depends_on_its_two_frames_only():
    frames = pictures(5)
    together = laplacian_pyramid_distances(frames)
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], laplacian_pyramid_distances(frames[i : i + 2]))


def test_mirrored_and_turned_pictures_are_as_far_apart():
    frames = pictures(3, 33, 33)  # an odd size halves to the same cells from either side
    expected = laplacian_pyramid_distances(frames)
    for changed in (frames.flip(-1), frames.flip(-2), frames.transpose(-1, -2), frames.flip(1)):
        torch.testing.assert_close(laplacian_pyramid_distances(changed), expected)


def test_half_precision_pictures():
    frames = pictures(3)
    distances = perceptual_distances(frames.half())
    assert distances.dtype == torch.float32
    torch.testing.assert_close(distances, perceptual_distances(frames), rtol=1e-2, atol=1e-3)


def test_no_gradient_is_kept():
    assert not perceptual_distances(pictures(3).requires_grad_()).requires_grad


def test_the_default_metric_needs_no_weights():
    frames = pictures(3)
    assert torch.equal(perceptual_distances(frames), laplacian_pyramid_distances(frames))
    assert "laplacian pyramid" in METRICS


def test_an_unknown_metric_is_refused_and_the_known_ones_are_named():
    with pytest.raises(InvalidInput, match=r"laplacian pyramid, lpips \(alex\), lpips \(vgg\); got 'ssim'"):
        perceptual_distances(pictures(2), "ssim")


def test_a_single_frame_is_refused():
    with pytest.raises(InvalidInput, match="at least 2 frames"):
        perceptual_distances(pictures(1))


@pytest.mark.parametrize("size", [(7, 64), (64, 7), (1, 1)])
def test_tiny_pictures_are_refused_and_shown(size):
    with pytest.raises(InvalidInput, match=rf"\({size[0]}, {size[1]}\)"):
        perceptual_distances(pictures(2, *size))


def alex_features():
    import torchvision

    torch.manual_seed(3)
    return torchvision.models.alexnet(weights=None).features


def vgg_features():
    from torchvision.models import vgg

    torch.manual_seed(3)
    return vgg.make_layers(vgg.cfgs["D"], batch_norm=False)


TRUNKS = [("alex", "alexnet", alex_features), ("vgg", "vgg16", vgg_features)]


@pytest.fixture
def no_big_classifier(monkeypatch):
    """LPIPS uses only the convolutions of its trunks, so leave out the 100 million other weights of VGG."""
    from torchvision.models import vgg

    def vgg16(pretrained=False):
        return types.SimpleNamespace(features=vgg.make_layers(vgg.cfgs["D"], batch_norm=False))

    monkeypatch.setattr("torchvision.models.vgg16", vgg16)


def saved(features, path):
    """A file as torchvision's, with an entry that LPIPS has no use for."""
    weights = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save({**weights, "classifier.6.bias": torch.zeros(1000)}, path)
    return path


@pytest.mark.parametrize(("net", "constructor", "make_features"), TRUNKS)
def test_lpips_is_that_of_the_package_with_the_same_trunk(
    tmp_path, monkeypatch, no_big_classifier, net, constructor, make_features
):
    import lpips

    features = make_features()
    frames = pictures(4, 40, 48)
    frames[2] = frames[1]
    with monkeypatch.context() as patch:
        patch.setattr(f"torchvision.models.{constructor}", lambda pretrained: types.SimpleNamespace(features=features))
        published = lpips.LPIPS(net=net, verbose=False)
    with torch.no_grad():
        expected = published(2 * frames[:-1] - 1, 2 * frames[1:] - 1).flatten()
    distances = lpips_distances(frames, net, saved(features, tmp_path / "trunk.pth"))
    torch.testing.assert_close(distances, expected, rtol=1e-4, atol=1e-7)
    assert distances[1] == 0
    assert distances[0] > 0 and distances[0] != distances[2]


def test_lpips_leaves_the_global_generator_as_it_was(tmp_path):
    path = saved(alex_features(), tmp_path / "trunk.pth")
    state = torch.get_rng_state()
    lpips_distances(pictures(2, 40, 40), "alex", path)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_named_file_torchvisions_cache_is_used(tmp_path, monkeypatch):
    frames = pictures(2, 40, 40)
    (tmp_path / "checkpoints").mkdir()
    path = saved(alex_features(), tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.testing.assert_close(perceptual_distances(frames, "lpips (alex)"), lpips_distances(frames, "alex", path))


def test_trunk_files_are_named_as_torchvision_names_them():
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    weights = {"alex": AlexNet_Weights.IMAGENET1K_V1, "vgg": VGG16_Weights.IMAGENET1K_V1}
    assert {net: weight.url.rsplit("/", 1)[1] for net, weight in weights.items()} == TRUNK_FILES


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_an_absent_trunk_is_refused_with_its_place_and_what_works_without(tmp_path, monkeypatch, net):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InvalidInput) as refusal:
        perceptual_distances(pictures(2), f"lpips ({net})")
    assert str(tmp_path / "checkpoints" / TRUNK_FILES[net]) in str(refusal.value)
    assert "'laplacian pyramid'" in str(refusal.value)
    with pytest.raises(InvalidInput, match="elsewhere.pth is not there"):
        lpips_distances(pictures(2), net, tmp_path / "elsewhere.pth")
