"""What the benchmark of morphs within one animal compares with: the true path, and the distance from it."""

import torch

from morph_pack.benchmarks.factor_network import factor_range, load_factor_network
from morph_pack.benchmarks.fit_drawing import nearest_drawings
from morph_pack.benchmarks.held_out import held_out
from morph_pack.benchmarks.morph_within import deviation, factor_steps, same_animal, true_path
from morph_pack.morph_core.toy.drawing import KINDS


def drawings():
    return same_animal(held_out(8, offset=3))


def test_pairs_are_of_one_animal_and_their_captions_say_so():
    before, after = held_out(8, offset=3), drawings()
    assert torch.equal(after.kinds[::2], before.kinds[::2])
    assert torch.equal(after.kinds[1::2], after.kinds[::2])
    assert torch.equal(after.factors, before.factors)
    assert [next(word for word in caption.split() if word in KINDS) for caption in after.captions] == [
        KINDS[kind] for kind in after.kinds
    ]


def test_the_true_path_leads_from_drawing_to_drawing():
    path = true_path(drawings(), 1, 5)
    torch.testing.assert_close(path[[0, -1]], drawings().render(64)[2:4])


def test_drawings_of_the_path_are_on_it_and_a_brighter_one_is_as_far_off_as_it_is_brighter():
    path = true_path(drawings(), 0, 21) / 2
    assert deviation(path[::4], path).max() == 0
    torch.testing.assert_close(deviation(path[10:11] + 0.3, path[10:11]), torch.tensor([0.3]), rtol=0, atol=1e-4)
    assert deviation(path[10:11] + 0.3, path).item() <= 0.3 + 1e-4


def test_the_fit_reads_the_factors_that_a_drawing_has_when_its_kind_is_known():
    made = drawings()
    network, kind = load_factor_network(), int(made.kinds[0])
    kinds, factors = nearest_drawings(network, made.render(64)[:2], kinds=(kind,))
    assert kinds.tolist() == [kind] * 2
    low, high = factor_range()
    assert ((factors - made.factors[:2]) / (high - low)).abs()[:, :4].max() < 0.05  # x, y, size, tilt


def test_frames_that_stand_still_have_no_steps():
    frames = drawings().render(64)[:1].expand(3, -1, -1, -1)
    assert factor_steps(load_factor_network(), frames, int(drawings().kinds[0])).max() < 1e-3
