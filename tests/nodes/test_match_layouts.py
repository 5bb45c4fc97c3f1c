"""Match Layouts gives the core's matches, and what Slerp Latents and Attention KV Inject do with them is the core's."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.morph_core.matching.aligned import AlignedEnds
from morph_pack.morph_core.matching.matches import Matches
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_pack.morph_core.morphing.slerp import slerp
from morph_pack.morph_core.recipes.image import PreparedImage
from morph_pack.morph_core.recipes.layouts import aligned_ends
from morph_pack.morph_core.recipes.morph import Morph, morph_prepared
from morph_pack.morph_core.toy.drawing import FACTORS, one_drawing
from morph_pack.morph_core.toy.model import IMAGE_SIZE, SCALE_FACTOR, ToyModel
from morph_tests.nodes.good_inputs import matches as small_shift
from morph_tests.nodes.graph import conditioning, normal, run, sample
from morph_tests.nodes.refusals import assert_says, refusal

FRAMES = 4
ALPHAS = alpha_schedule(FRAMES)
APART = ({"x": 0.44, "y": 0.56, "size": 0.24, "tilt": -0.2}, {"x": 0.56, "y": 0.64, "size": 0.28, "tilt": 0.2})


@pytest.fixture(scope="module")
def images(core: ToyModel) -> list[PreparedImage]:
    """One face in two layouts."""
    drawing = one_drawing("cat", "red", "happy", "mint", torch.Generator().manual_seed(0))
    made = []
    for layout in APART:
        factors = drawing.factors.clone()
        for name, value in layout.items():
            factors[:, FACTORS.index(name)] = value
        latent = core.encode_images(replace(drawing, factors=factors).render(IMAGE_SIZE))
        made.append(PreparedImage(latent, Text(core.encode_text(drawing.captions).context), {}))
    return made


def inputs(images: list[PreparedImage], **changes: Any) -> dict[str, Any]:
    """Of the node, but for the model. The noises are no inversions: what is done with them is the same."""
    given: dict[str, Any] = {"alphas": ALPHAS, "strength": 1.0}
    for seed, (name, image) in enumerate(zip(("start", "end"), images, strict=True)):
        given[name] = {"samples": 10 * normal(*image.latent.shape, seed=seed)}
        given[f"{name}_image"] = {"samples": image.latent / SCALE_FACTOR}
        given[f"{name}_positive"] = [[image.text.context, {}]]
    return {**given, **changes}


def test_the_matches_are_the_cores(model: Any, core: ToyModel, images: list[PreparedImage]) -> None:
    found: Matches = run("MatchLayouts", model=model, **inputs(images))[2]
    expected = aligned_ends(core, *images).matches
    torch.testing.assert_close(found.start_to_end, expected.start_to_end, rtol=0, atol=1e-2)
    assert (found.start_to_end - expected.scaled(0).start_to_end).abs().max() > 1  # they do say something


def test_the_rows_are_the_cores_and_slerp_takes_them(model: Any, images: list[PreparedImage]) -> None:
    given = inputs(images)
    start, end, matches, *_ = run("MatchLayouts", model=model, **given)
    expected = AlignedEnds(matches).latents(given["start"]["samples"], given["end"]["samples"], ALPHAS)
    assert torch.equal(start["samples"], expected[0]) and torch.equal(end["samples"], expected[1])
    frames, _ = run("SlerpLatents", start=start, end=end, alphas=ALPHAS)
    assert torch.equal(frames["samples"], slerp(*expected, ALPHAS))
    assert torch.equal(frames["samples"][0], given["start"]["samples"][0])


def test_strength_0_is_the_morph_without_it(model: Any, images: list[PreparedImage]) -> None:
    given = inputs(images, strength=0.0)
    start, end, matches, *_ = run("MatchLayouts", model=model, **given)
    plain, _ = run("SlerpLatents", start=given["start"], end=given["end"], alphas=ALPHAS)
    led, _ = run("SlerpLatents", start=start, end=end, alphas=ALPHAS)
    assert torch.equal(led["samples"], plain["samples"])
    settings = {"strength": 1.0, "end_percent": 1.0, "blocks": "up blocks", "alphas": ALPHAS}
    both = [
        sample(run("AttentionKVInject", model=model, **settings, **more)[0], conditioning(), plain["samples"], 3)
        for more in ({}, {"matches": matches})
    ]
    assert torch.equal(*both)


def test_the_graph_makes_the_cores_morph(model: Any, core: ToyModel, images: list[PreparedImage]) -> None:
    spacing = {"steps": 8, "scheduler": "ddim_uniform", "start_at_step": 0}
    given = inputs(images)
    for name in ("start", "end"):
        positive, latent = given[f"{name}_positive"], given[f"{name}_image"]
        given[name] = run("DdimInvert", model=model, positive=positive, latent_image=latent, **spacing)[0]
    start, end, matches, *_ = run("MatchLayouts", model=model, **given)
    frames, _ = run("SlerpLatents", start=start, end=end, alphas=ALPHAS)
    ends = {"start": given["start"], "end": given["end"]}
    styled, _ = run("AdaIN", frames=frames, **ends, alphas=ALPHAS, strength=1.0)
    settings = {"strength": 1.0, "end_percent": 0.6, "blocks": "up blocks", "alphas": ALPHAS}
    (patched,) = run("AttentionKVInject", model=model, matches=matches, **settings)
    actual = sample(patched, given["start_positive"], styled["samples"], 8)
    config = Morph(frames=FRAMES, steps=8, lora=None, reschedule=False, correspondence=True)
    expected = morph_prepared(core, *images, config).latents / SCALE_FACTOR
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-2)
    without = morph_prepared(core, *images, replace(config, correspondence=False)).latents / SCALE_FACTOR
    assert (actual - without).abs().max() > 0.3


@pytest.mark.parametrize("size", [1, 2])
def test_frames_in_parts_are_led_to_their_own_layouts(model: Any, size: int) -> None:
    settings = {"strength": 1.0, "end_percent": 1.0, "blocks": "all blocks", "alphas": ALPHAS, "matches": small_shift()}
    noise = 10 * normal(FRAMES, 4, 8, 12)
    whole, parts, plain = (
        sample(run("AttentionKVInject", model=model, **{**settings, **more})[0], conditioning(), noise, 2)
        for more in ({"frames_per_batch": 0}, {"frames_per_batch": size}, {"matches": None})
    )
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    assert (whole - plain).abs().max() > 0.01


def test_the_picture_shows_both_images(model: Any, images: list[PreparedImage]) -> None:
    white, black = torch.ones(1, 64, 64, 3), torch.zeros(1, 64, 64, 3)
    picture = run("MatchLayouts", model=model, **inputs(images, start_picture=white, end_picture=black))[3][0]
    assert picture.shape == (512, 2 * 512 + 8, 3)
    assert (picture[:4, :4] == 1).all() and (picture[:4, -4:] == 0).all()
    assert 0.01 < (picture[:, :500] < 0.95).any(-1).float().mean() < 0.5  # dots and lines on white
    without = run("MatchLayouts", model=model, **inputs(images))[3][0]
    assert without.shape == picture.shape and without.std() > 0.1  # the latents' previews


def test_features_with_nothing_in_common_are_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of chance, since the toy's own are alike wherever places are."""
    import morph_pack.nodes.match_layouts as node

    monkeypatch.setattr(node, "descriptors", lambda *_, seed: normal(64, 16, 16, seed=seed))
    assert_says(refusal(model, "MatchLayouts"), "too little in common", "without matched layouts")


def test_other_networks_are_refused(flow_toy: Any) -> None:
    message = refusal(flow_toy[0], "MatchLayouts", UnsupportedModel)
    assert_says(message, "Flux", "leave this node out")


def test_images_of_another_size_are_refused(model: Any) -> None:
    other = {"samples": normal(1, 4, 8, 12)}
    assert_says(refusal(model, "MatchLayouts", end_image=other), r"end_image .*\(1, 4, 8, 12\)", r"\(1, 4, 8, 8\)")


def test_matches_need_alphas_and_their_own_node(model: Any) -> None:
    assert_says(
        refusal(model, "AttentionKVInject", alphas=None, mask=None, matches=small_shift()),
        "matches",
        "connect its alphas",
    )
    assert_says(
        refusal(model, "AttentionKVInject", mask=None, matches=7), "matches must come from Match Layouts, got 7"
    )


def test_a_mask_and_matches_contradict_each_other(model: Any) -> None:
    assert_says(refusal(model, "AttentionKVInject", matches=small_shift()), "mask", "leave one empty")


def test_matches_of_a_transformer_are_refused(flow_toy: Any) -> None:
    message = refusal(flow_toy[0], "AttentionKVInject", UnsupportedModel, mask=None, matches=small_shift())
    assert_says(message, "leave matches empty")
