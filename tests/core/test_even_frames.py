"""Even frames by search: where to sample next, the choice of least variance, and no more rows than two passes have."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_pack.morph_core.morphing.even_frames import alphas_between, alphas_within, evenest, with_long_steps_cut
from morph_pack.morph_core.morphing.perceptual import perceptual_distances, perceptual_distances_of_pairs
from morph_pack.morph_core.recipes.morph import morph_prepared
from morph_pack.morph_core.recipes.search import searched_alphas
from morph_tests.core.morphs import small_model, two_ends
from morph_tests.core.test_morph_frames import SIX, STEPS, rows_of, watched


class Path:
    """Frames that are one grey each: `brightness` of an alpha; counts how many were asked for."""

    def __init__(self, brightness):
        self.brightness, self.sampled = brightness, set()

    def at(self, alphas):
        self.sampled |= {*alphas}
        pictures = [torch.full((1, 3, 16, 16), float(self.brightness(alpha))) for alpha in alphas]
        return [type("Frame", (), {"picture": picture}) for picture in pictures]


def steps_of(path, alphas):
    return torch.tensor([path.brightness(alpha) for alpha in alphas]).diff()


def test_the_longest_steps_are_halved():
    assert alphas_between((0.0, 0.25, 0.5, 1.0), [1.0, 3.0, 2.0], 2) == (0.375, 0.75)
    assert alphas_between((0.0, 1.0), [1.0], 5) == (0.5,)
    assert alphas_between((0.0, 0.0, 1.0), [9.0, 0.0], 1) == (0.5,)
    assert alphas_between((0.0, 1.0), [1.0], 0) == ()


def test_a_pass_cuts_each_step_into_parts_of_its_length():
    assert alphas_within((0.0, 0.5, 1.0), [3.0, 1.0], 2) == pytest.approx((1 / 6, 2 / 6))
    assert alphas_within((0.0, 0.5, 1.0), [2.0, 2.1], 2) == (0.25, 0.75)
    assert alphas_within((0.0, 1.0), [5.0], 3) == (0.25, 0.5, 0.75)
    assert alphas_within((0.0, 1.0), [5.0], 0) == () and alphas_within((0.5, 0.5), [0.0], 3) == ()
    with pytest.raises(InvalidInput, match="2 alphas need 1 distances, got 2"):
        alphas_within((0.0, 1.0), [1.0, 1.0], 1)
    assert with_long_steps_cut((0.0, 0.5, 1.0), [3.0, 1.0], 3) == (0.0, 0.25, 1.0)
    with pytest.raises(InvalidInput, match="at least 2 frames"):
        with_long_steps_cut((0.0, 0.5, 1.0), [3.0, 1.0], 1)


def test_the_choice_is_that_of_all_choices_whose_steps_vary_least():
    """On a line, where the mean step is the same for all choices and the least variance is well defined."""
    for seed in range(5):
        places = torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort().values
        distances = (places[None] - places[:, None]).abs()
        chosen = evenest(distances, 5)
        ways = [[0, *inner, 8] for inner in combinations(range(1, 8), 3)]
        best = min(ways, key=lambda way: places[way].diff().var())
        assert places[chosen].diff().var() <= places[best].diff().var() + 1e-12


def test_all_frames_are_chosen_where_none_is_to_spare():
    distances = torch.rand(4, 4)
    assert evenest(distances, 4) == [0, 1, 2, 3] and evenest(distances, 2) == [0, 3]
    for frames in (1, 5):
        with pytest.raises(InvalidInput, match=f"from 2 to the 4 that were sampled, got {frames}"):
            evenest(distances, frames)


def test_distances_of_pairs_are_those_of_neighbours():
    frames = torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    pairs = perceptual_distances_of_pairs(frames)
    torch.testing.assert_close(pairs.diagonal(1), perceptual_distances(frames))
    torch.testing.assert_close(pairs[0, 3], perceptual_distances(frames[[0, 3]])[0])


def test_a_steep_change_is_found_and_parted():
    """A tenth of the way holds nine tenths of the change. One pass of nine frames has it in one step, or two."""
    path = Path(lambda alpha: 0.05 * alpha + 0.9 * min(1, max(0, (alpha - 0.62) / 0.1)))
    even = steps_of(path, alpha_schedule(9))
    found = searched_alphas(path, 9, "laplacian pyramid")
    steps = steps_of(path, found)
    assert found[0] == 0 and found[-1] == 1 and len(found) == 9
    assert even.max() / even.mean() > 6 and steps.max() / steps.mean() < 2.5
    assert len(path.sampled) == 16


def test_a_jump_is_found_to_a_sixty_fourth():
    path = Path(lambda alpha: 0.1 * alpha + 0.8 * (alpha > 0.43))
    found = searched_alphas(path, 9, "laplacian pyramid")
    before = max(alpha for alpha in path.sampled if alpha <= 0.43)
    after = min(alpha for alpha in path.sampled if alpha > 0.43)
    assert after - before <= 1 / 64 and {before, after} <= {*found}


def test_an_even_path_stays_even():
    steps = steps_of(path := Path(lambda alpha: alpha), searched_alphas(path, 5, "laplacian pyramid"))
    torch.testing.assert_close(steps, torch.full((4,), 0.25))


def test_identical_images_have_frames_all_the_same():
    assert len(searched_alphas(Path(lambda alpha: 0.5), 5, "laplacian pyramid")) == 5


def test_a_search_samples_no_more_rows_than_two_passes(make_unet, random_lora):
    model = small_model(make_unet)
    calls = watched(model)
    result = morph_prepared(model, *two_ends(model, random_lora), replace(SIX, rescheduling="search"))
    rows = rows_of(calls)[STEPS:]
    assert rows == [6] * STEPS + [2] * STEPS + [2] * STEPS
    assert len(result.frames) == 6 and result.alphas[0] == 0 and result.alphas[-1] == 1
    assert result.distances.var() <= result.first_pass.distances.var()
    assert result.report.longest == pytest.approx(float(result.distances.max() / result.distances.mean()))


def test_impossible_searches_are_refused():
    with pytest.raises(InvalidInput, match="first_pass_stride must be 1"):
        replace(SIX, rescheduling="search", first_pass_stride=2)
    with pytest.raises(InvalidInput, match="rescheduling must be one of path, search; got 'both'"):
        replace(SIX, rescheduling="both")
