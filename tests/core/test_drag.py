"""The recipe on the bundled toy model: a face is pulled by its nose, so that the right answer is known."""

import hashlib
from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.attention.end_frames import mixed_self_attention
from morph_pack.morph_core.dragging.latent import DragLatent, drag_latent, published
from morph_pack.morph_core.dragging.points import DragPoints
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import blended_loras
from morph_pack.morph_core.lora.fit import LoraFit
from morph_pack.morph_core.lora.low_rank import read_lora
from morph_pack.morph_core.models.features import up_block_features
from morph_pack.morph_core.recipes.drag import Drag, drag, drag_prepared
from morph_pack.morph_core.recipes.image import prepare_image
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import alphas_cumprod, ddim_sigmas
from morph_pack.morph_core.toy.drawing import FACTORS, draw, landmarks, one_drawing
from morph_pack.morph_core.toy.model import IMAGE_SIZE, load_toy_model
from morph_tests.networks import denoiser_of

BEFORE, AFTER = 0.44, 0.56  # where the face's middle is, and where it should go: shares of the picture
X = FACTORS.index("x")
SHORT = Drag(steps=10, lora=None, latent=DragLatent(learning_rate=0.02, iterations=3))
NO_DRAG = replace(SHORT, latent=DragLatent(learning_rate=1e-30, iterations=1))
FIT = LoraFit(rank=2, steps=3, learning_rate=1e-3)


@pytest.fixture(scope="module")
def model():
    return load_toy_model()


@pytest.fixture(scope="module")
def face():
    drawing = one_drawing("cat", "blue", "calm", "mint", torch.Generator().manual_seed(3))
    return moved(drawing, BEFORE)


def moved(drawing, x):
    factors = drawing.factors.clone()
    factors[:, X] = x
    return replace(drawing, factors=factors)


@pytest.fixture(scope="module")
def points(face):
    handle, target = (landmarks(face.kinds, moved(face, x).factors)["nose"] for x in (BEFORE, AFTER))
    return DragPoints(handle, target)


@pytest.fixture(scope="module")
def image(face):
    return face.render(IMAGE_SIZE)


@pytest.fixture(scope="module")
def caption(face):
    return face.captions[0]


@pytest.fixture(scope="module")
def end(model, image, caption):
    return prepare_image(model, image, caption, None)


@pytest.fixture(scope="module")
def dragged(model, end, points):
    return drag_prepared(model, end, points, SHORT)


def place_of_face(face, picture):
    """The x of the drawing that the picture is nearest to, among drawings that differ in nothing else."""
    places = torch.linspace(0.34, 0.66, 65)
    factors = face.factors.repeat(len(places), 1)
    factors[:, X] = places
    drawings = draw(face.kinds.expand(len(places)), factors, IMAGE_SIZE)
    return places[(drawings - picture).square().mean((1, 2, 3)).argmin()].item()


def schedule(model, config):
    train_sigmas = model.backbone.schedule.sigmas
    return train_sigmas, ddim_sigmas(train_sigmas, config.steps)


def digest(module):
    """Of every weight's name and bits."""
    sha = hashlib.sha256()
    for name, value in module.state_dict().items():
        sha.update(name.encode() + value.numpy().tobytes())
    return sha.hexdigest()


def hooks_of(module):
    return [hook for part in module.modules() for hook in (*part._forward_hooks, *part._forward_pre_hooks)]


ARRIVING = {
    "DragDiffusion": (0.8, DragLatent(learning_rate=0.02, iterations=60, reach=0.75)),
    "GoodDrag": (0.75, replace(published("GoodDrag"), levels=3, reach=0.75)),
}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ARRIVING)
def test_a_face_is_pulled_along_by_its_nose(model, face, end, points, objective):
    strength, latent = ARRIVING[objective]
    result = drag_prepared(model, end, points, Drag(steps=20, strength=strength, lora=None, latent=latent))
    assert result.drag.remaining.max() < latent.reach
    assert place_of_face(face, result.original) == pytest.approx(BEFORE, abs=0.011)
    assert place_of_face(face, result.dragged) == pytest.approx(AFTER, abs=(AFTER - BEFORE) / 3)
    answer = moved(face, AFTER).render(IMAGE_SIZE)
    errors = [(picture - answer).square().mean() for picture in (result.dragged, result.original)]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("reference", [None, "last two up blocks"])
def test_without_a_drag_both_rows_are_the_image_inverted_and_sampled(model, end, points, reference):
    result = drag_prepared(model, end, points, replace(NO_DRAG, reference=reference))
    train_sigmas, sigmas = schedule(model, NO_DRAG)
    denoise = denoiser_of(model.backbone.network, end.text.context, train_sigmas)
    with torch.no_grad():
        x = ddim.invert(denoise, end.latent, sigmas[3:], model.backbone.schedule)  # 7 of 10 steps
        expected = model.decode_latents(ddim.sample(denoise, x, sigmas[3:]))
    torch.testing.assert_close(result.drag.original, x)
    torch.testing.assert_close(result.original, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(result.dragged, expected, rtol=0, atol=1e-4)


def test_the_last_alpha_is_that_of_the_inversion_and_of_the_sampling(model, end, points):
    result = drag_prepared(model, end, points, replace(NO_DRAG, set_alpha_to_one=False))
    train_sigmas = model.backbone.schedule.sigmas
    sigmas, scale = ddim_sigmas(train_sigmas, 10, set_alpha_to_one=False)[3:], alphas_cumprod()[0] ** -0.5
    denoise = denoiser_of(model.backbone.network, end.text.context, train_sigmas)
    with torch.no_grad():
        x = ddim.invert(denoise, end.latent * scale, sigmas, model.backbone.schedule)
        expected = model.decode_latents(ddim.sample(denoise, x, sigmas) / scale)
    torch.testing.assert_close(result.drag.original, x)
    for picture in (result.original, result.dragged):
        torch.testing.assert_close(picture, expected, rtol=0, atol=1e-4)
    other = drag_prepared(model, end, points, NO_DRAG)
    assert (result.drag.original - other.drag.original).abs().max() > 1e-3


@pytest.mark.parametrize(("strength", "inverted"), [(1.0, 10), (0.7, 7), (0.34, 3), (0.01, 1)])
def test_the_strengths_share_of_the_steps_is_inverted_and_sampled(model, end, points, strength, inverted):
    calls = []
    config = replace(NO_DRAG, strength=strength)
    result = drag_prepared(model, end, points, config, on_stage=lambda *call: calls.append(call))
    for stage in ("inverting", "sampling"):
        assert [call[1:] for call in calls if call[0] == stage] == [(i + 1, inverted) for i in range(inverted)]
    train_sigmas, sigmas = schedule(model, config)
    with torch.no_grad():
        denoise = denoiser_of(model.backbone.network, end.text.context, train_sigmas)
        expected = ddim.invert(denoise, end.latent, sigmas[10 - inverted :], model.backbone.schedule)
    torch.testing.assert_close(result.drag.original, expected)


def test_the_dragged_row_is_sampled_from_the_dragged_latent(model, end, points):
    config = replace(SHORT, reference=None, latent=replace(SHORT.latent, levels=2, objective="GoodDrag"))
    result = drag_prepared(model, end, points, config)
    train_sigmas, sigmas = schedule(model, config)
    denoise = denoiser_of(model.backbone.network, end.text.context, train_sigmas)
    with torch.no_grad():
        latents = [ddim.sample(denoise, x, sigmas[4:]) for x in (result.drag.original, result.drag.dragged)]
        expected = [model.decode_latents(latent) for latent in latents]
    assert result.drag.level == 1 and len(result.drag.losses) == 6
    torch.testing.assert_close(result.original, expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(result.dragged, expected[1], rtol=0, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 0.05


def test_the_latent_is_dragged_as_drag_latent_does_with_the_images_lora(model, image, caption, points):
    config = replace(SHORT, feature_block="last up block", strength=0.5)
    mask = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    mask[..., :40] = 1
    end = prepare_image(model, image, caption, FIT)
    result = drag_prepared(model, end, points, config, mask).drag
    train_sigmas, sigmas = schedule(model, config)
    denoise = denoiser_of(model.backbone.network, end.text.context, train_sigmas)
    with blended_loras(read_lora(end.lora, model.backbone.network), {}, (0.0,)):
        with torch.no_grad():
            x = ddim.invert(denoise, end.latent, sigmas[5:], model.backbone.schedule)
        read = up_block_features(model.backbone.network.up_blocks, denoise, "last up block")
        expected = drag_latent(read, model.backbone.schedule, x, sigmas[5:], points, config.latent, mask)
    torch.testing.assert_close(result.dragged, expected.dragged)
    assert result.losses == pytest.approx(expected.losses)
    assert torch.equal(result.tracks, expected.tracks)


def test_a_drag_is_its_parts_put_together_and_changes_no_input(model, image, caption, points, dragged):
    given = (image, points.handles, points.targets)
    before = [value.clone() for value in given]
    whole = drag(model, image, caption, points, replace(SHORT, lora=FIT))
    parts = drag_prepared(model, prepare_image(model, image, caption, FIT), points, SHORT)
    torch.testing.assert_close(whole.dragged, parts.dragged, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.original, parts.original, rtol=0, atol=1e-5)
    assert (whole.drag.original - dragged.drag.original).abs().max() > 1e-3  # the LoRA matters
    assert all(torch.equal(value, old) for value, old in zip(given, before, strict=True))


def test_the_reference_changes_the_dragged_row_and_not_the_original(model, end, points, dragged):
    alone = drag_prepared(model, end, points, replace(SHORT, reference=None))
    torch.testing.assert_close(dragged.original, alone.original, rtol=0, atol=1e-4)
    assert torch.equal(dragged.drag.dragged, alone.drag.dragged)  # it is for sampling only
    assert (dragged.dragged - alone.dragged).abs().max() > 0.01


@pytest.mark.parametrize("blocks", ["last two up blocks", "all blocks"])
def test_the_dragged_row_sees_the_originals_keys_and_values(model, end, points, dragged, blocks):
    result = (
        dragged if blocks == SHORT.reference else drag_prepared(model, end, points, replace(SHORT, reference=blocks))
    )
    train_sigmas, sigmas = schedule(model, SHORT)
    rows = torch.cat([dragged.drag.original, dragged.drag.dragged])
    denoise = denoiser_of(model.backbone.network, end.text.context, train_sigmas)
    with torch.no_grad(), mixed_self_attention(model.backbone.attention_layers(), (0.0, 0.0), blocks=blocks):
        expected = model.decode_latents(ddim.sample(denoise, rows, sigmas[3:]))
    torch.testing.assert_close(torch.cat([result.original, result.dragged]), expected, rtol=0, atol=1e-4)


def test_pictures_are_pictures_without_gradients(image, dragged):
    for picture in (dragged.original, dragged.dragged):
        assert picture.shape == image.shape and not picture.requires_grad
        assert picture.min() >= 0 and picture.max() <= 1


def test_a_mask_keeps_what_is_outside_it(model, end, points):
    mask = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    mask[..., 16:48, :] = 1
    config = replace(SHORT, reference=None, latent=replace(SHORT.latent, iterations=6))
    changes = []
    for given in (mask, None):
        result = drag_prepared(model, end, points, config, given)
        difference = (result.dragged - result.original).abs().mean(1)
        changes.append(difference[:, [*range(12), *range(52, 64)]].mean().item())
    assert changes[0] < 0.5 * changes[1]


@pytest.mark.parametrize("stage", [None, "fitting LoRA", "inverting", "dragging", "sampling"])
def test_the_unet_is_left_as_it_was_also_when_cancelled(model, image, caption, points, stage):
    before, modules = digest(model.backbone.network), [id(module) for module in model.backbone.network.modules()]

    def cancel(now, done, total):
        if now == stage and done == 2:
            raise KeyboardInterrupt(stage)

    if stage:
        with pytest.raises(KeyboardInterrupt, match=stage):
            drag(model, image, caption, points, replace(SHORT, lora=FIT), on_stage=cancel)
    else:
        drag(model, image, caption, points, replace(SHORT, lora=FIT), on_stage=cancel)
    assert digest(model.backbone.network) == before and hooks_of(model.backbone.network) == []
    assert [id(module) for module in model.backbone.network.modules()] == modules
    assert not any(parameter.requires_grad for parameter in model.backbone.network.parameters())


def test_a_prepared_image_can_be_dragged_again_to_the_same_result(model, end, points, dragged):
    again = drag_prepared(model, end, points, SHORT)
    assert torch.equal(again.dragged, dragged.dragged) and again.drag.losses == dragged.drag.losses


def test_progress_names_every_stage_and_counts_its_steps(model, image, caption, points):
    calls = []
    drag(model, image, caption, points, replace(SHORT, lora=FIT), on_stage=lambda *call: calls.append(call))
    assert calls == [
        *(("fitting LoRA", i, 3) for i in (1, 2, 3)),
        *(("inverting", i, 7) for i in range(1, 8)),
        *(("dragging", i, 3) for i in (0, 1, 2, 3)),
        *(("sampling", i, 7) for i in range(1, 8)),
    ]


def test_the_defaults_are_dragdiffusions():
    config = Drag()
    assert (config.steps, config.strength, round(config.steps * config.strength)) == (50, 0.7, 35)
    assert (config.lora.rank, config.lora.steps, config.lora.learning_rate) == (16, 80, 5e-4)
    assert config.latent == published("DragDiffusion")
    assert (config.feature_block, config.reference) == ("second to last up block", "last two up blocks")


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan")])
def test_a_strength_outside_0_to_1_is_refused(strength):
    with pytest.raises(InvalidInput, match=f"strength must be above 0 and at most 1, got {strength}"):
        Drag(strength=strength)


def test_unknown_blocks_are_refused(model, end, points):
    with pytest.raises(InvalidInput, match="blocks must be one of .*'some'"):
        Drag(reference="some")
    with pytest.raises(InvalidInput, match="feature_block must be one of .*'some'"):
        drag_prepared(model, end, points, replace(SHORT, feature_block="some"))


def test_more_levels_than_inverted_steps_are_refused_and_nothing_is_left(model, end, points):
    config = replace(SHORT, strength=0.3, latent=replace(SHORT.latent, levels=4))
    with pytest.raises(InvalidInput, match="levels is 4 but only 3 sampling steps remain"):
        drag_prepared(model, end, points, config)
    assert hooks_of(model.backbone.network) == []


def test_two_images_at_once_are_refused(model, image, caption, points):
    with pytest.raises(InvalidInput, match="one image, got a batch of 2"):
        drag(model, image.repeat(2, 1, 1, 1), caption, points, SHORT)


def test_no_gradient_stays_on_the_networks_weights(model, end, points):
    model.backbone.network.requires_grad_(True)
    try:
        drag_prepared(model, end, points, SHORT)
        assert all(parameter.grad is None for parameter in model.backbone.network.parameters())
    finally:
        model.backbone.network.zero_grad()
        model.backbone.network.requires_grad_(False)
