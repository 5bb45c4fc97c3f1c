"""Prompt To Prompt finds its two prompts among all that a guider samples, or refuses; its first row is untouched."""

from collections.abc import Callable
from typing import Any

import comfy.samplers
import nodes
import pytest
import torch
from comfy_extras import nodes_custom_sampler, nodes_hypertile, nodes_pag, nodes_perpneg, nodes_sag, nodes_tomesd
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.toy.model import SCALE_FACTOR
from morph_tests.nodes.graph import normal, run

STEPS, CFG = 4, 7.5
SOURCE, EDITED = "a happy red cat on mint", "a happy red rabbit on mint"
BLENDED = {"blend_words": "cat, rabbit", "blend_threshold": 0.9}
NOISE = (14 * normal(1, 4, 8, 12, seed=3) / SCALE_FACTOR).repeat(2, 1, 1, 1)
ALIKE = 1e-3  # of latents whose deviation is about 1: single precision sums in another order in another batch


@pytest.fixture(scope="module")
def clip(toy: tuple[Any, Any, Any]) -> Any:
    return toy[1]


def edit(model: Any, clip: Any, **changes: Any) -> Any:
    """MODEL and CONDITIONING."""
    settings = {"source_prompt": SOURCE, "edited_prompt": EDITED, "alignment": "replace", "cross_percent": 0.8}
    settings |= {"self_percent": 0.6, "blend_words": "", "blend_threshold": 0.3, "reweight": "rabbit: 2"}
    return run("PromptToPrompt", model=model, clip=clip, **{**settings, **changes})


def prompt_of(clip: Any, text: str) -> Any:
    with torch.inference_mode():
        return nodes.CLIPTextEncode().encode(clip, text)[0]


def patched_by(node: Any, *arguments: Any) -> Any:
    """The MODEL from one of ComfyUI's own nodes."""
    with torch.inference_mode():
        result = node.execute(*arguments)
    return getattr(result, "result", result)[0]


class Guide:
    """Guiders of ComfyUI's own that sample with a positive and an empty negative prompt."""

    def __init__(self, clip: Any) -> None:
        self.negative = prompt_of(clip, "")

    def plain(self, model: Any, positive: Any, cfg: float = CFG) -> Any:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, self.negative)
        guider.set_cfg(cfg)
        return guider

    def without_guidance(self, model: Any, positive: Any) -> Any:
        return self.plain(model, positive, 1.0)

    def basic(self, model: Any, positive: Any) -> Any:
        guider = nodes_custom_sampler.Guider_Basic(model)
        guider.set_conds(positive)
        return guider

    def dual(self, model: Any, positive: Any, nested: bool = False, cfg2: float = 3.0) -> Any:
        """With the negative in the middle too it is plain guidance of strength CFG; nested, where `cfg2` is 1."""
        guider = nodes_custom_sampler.Guider_DualCFG(model)
        guider.set_conds(positive, self.negative, self.negative)
        guider.set_cfg(CFG, cfg2, nested=nested)
        return guider

    def nested(self, model: Any, positive: Any) -> Any:
        return self.dual(model, positive, nested=True, cfg2=1.0)

    def perp_neg(self, model: Any, positive: Any, scale: float = 0.0) -> Any:
        """At scale 0 it is plain guidance; else it sums over the whole batch, so that no row is as it is alone."""
        guider = nodes_perpneg.Guider_PerpNeg(model)
        guider.set_conds(positive, self.negative, self.negative)
        guider.set_cfg(CFG, scale)
        return guider


def guided(guider: Any, noise: Tensor = NOISE, sampler: str = "ddim") -> Tensor:
    """A run of a guider from the noise given."""
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", STEPS)
    with torch.inference_mode():
        chosen = comfy.samplers.sampler_object(sampler)
        return guider.sample(torch.zeros_like(noise), noise.clone(), chosen, sigmas, seed=0).cpu()


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=ALIKE / SCALE_FACTOR)


def sag(model: Any, scale: float = 0.5) -> Any:
    return patched_by(nodes_sag.SelfAttentionGuidance, model, scale, 2.0)


def pag(model: Any) -> Any:
    return patched_by(nodes_pag.PerturbedAttentionGuidance, model, 3.0)


def unchanged(model: Any) -> Any:
    return model


GUIDES = ["plain", "without_guidance", "basic", "dual", "nested", "perp_neg"]
AS_PLAIN = ["dual", "nested", "perp_neg"]


@pytest.mark.parametrize("patch", [unchanged, sag, pag], ids=lambda patch: patch.__name__)
@pytest.mark.parametrize("guide", GUIDES)
def test_the_first_row_is_the_source_alone(model: Any, clip: Any, guide: str, patch: Callable[[Any], Any]) -> None:
    if patch is sag and guide in ("basic", "without_guidance"):
        pytest.skip("Self-Attention Guidance needs a negative prompt that is sampled in the same call.")
    guider: Callable[[Any, Any], Any] = getattr(Guide(clip), guide)
    patched, positive = edit(model, clip, **BLENDED)
    alone = guided(guider(patch(model), prompt_of(clip, SOURCE)), NOISE[:1])
    assert_same(guided(guider(patch(patched), positive))[:1], alone)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun", "dpm_2", "uni_pc"])
@pytest.mark.parametrize("changes", [{}, BLENDED], ids=["everywhere", "blended"])
def test_the_first_row_is_the_source_alone_with_every_sampler(
    model: Any, clip: Any, sampler: str, changes: dict[str, Any]
) -> None:
    guide = Guide(clip)
    patched, positive = edit(model, clip, **changes)
    alone = guided(guide.plain(model, prompt_of(clip, SOURCE)), NOISE[:1], sampler)
    both = guided(guide.plain(patched, positive), sampler=sampler)
    assert_same(both[:1], alone)
    assert both[1].isfinite().all() and (both[1] - both[0]).abs().max() > 0.01


@pytest.mark.parametrize("guide", GUIDES)
def test_equal_prompts_give_equal_rows(model: Any, clip: Any, guide: str) -> None:
    patched, positive = edit(model, clip, edited_prompt=SOURCE, reweight="")
    rows = guided(getattr(Guide(clip), guide)(patched, positive))
    assert_same(rows[1], rows[0])


@pytest.mark.parametrize("guide", [*GUIDES, "perpendicular"])
def test_without_its_shares_both_rows_are_as_without_the_patch(model: Any, clip: Any, guide: str) -> None:
    of = Guide(clip)
    guider = (lambda *given: of.perp_neg(*given, 1.0)) if guide == "perpendicular" else getattr(of, guide)
    patched, positive = edit(model, clip, cross_percent=0.0, self_percent=0.0, reweight="")
    assert_same(guided(guider(patched, positive)), guided(guider(model, positive)))


@pytest.mark.parametrize("guide", AS_PLAIN)
@pytest.mark.parametrize("changes", [{}, BLENDED], ids=["everywhere", "blended"])
def test_the_edit_is_the_same_whatever_place_the_guider_gives_the_positive(
    model: Any, clip: Any, guide: str, changes: dict[str, Any]
) -> None:
    patched, positive = edit(model, clip, **changes)
    expected = guided(Guide(clip).plain(patched, positive))
    assert_same(guided(getattr(Guide(clip), guide)(patched, positive)), expected)
    assert (guided(getattr(Guide(clip), guide)(model, positive)) - expected).abs().max() > 0.1


def test_another_call_with_the_negative_is_not_controlled(model: Any, clip: Any) -> None:
    """As Self-Attention Guidance makes it: the negative as the first of the conds, which the positive is elsewhere."""
    patched, positive = edit(model, clip, **BLENDED)
    differences: list[float] = []

    def call_again(args: dict[str, Any]) -> Tensor:
        arguments = (args["model"], [args["uncond"]], args["input"], args["sigma"], args["model_options"])
        (again,) = comfy.samplers.calc_cond_batch(*arguments)
        differences.append(float((again - args["uncond_denoised"]).abs().max()))
        return args["denoised"]

    watched = patched.clone()
    watched.set_model_sampler_post_cfg_function(call_again)
    result = guided(Guide(clip).plain(watched, positive))
    assert len(differences) == STEPS and max(differences) < 1e-3
    assert_same(result, guided(Guide(clip).plain(patched, positive)))


@pytest.mark.parametrize("first", [True, False], ids=["patch first", "edit first"])
def test_self_attention_guidance_of_no_strength_changes_nothing(model: Any, clip: Any, first: bool) -> None:
    patched, positive = edit(sag(model, 0.0) if first else model, clip, **BLENDED)
    plain, _ = edit(model, clip, **BLENDED)
    result = guided(Guide(clip).plain(patched if first else sag(patched, 0.0), positive))
    assert_same(result, guided(Guide(clip).plain(plain, positive)))


def hypertile(model: Any) -> Any:
    return patched_by(nodes_hypertile.HyperTile, model, 32, 1, 0, False)


def tome(model: Any) -> Any:
    return patched_by(nodes_tomesd.TomePatchModel, model, 0.5)


@pytest.mark.parametrize("patch", [hypertile, tome], ids=lambda patch: patch.__name__)
def test_patches_that_cut_or_merge_what_attention_sees_go_with_it_in_any_order(
    model: Any, clip: Any, patch: Callable[[Any], Any]
) -> None:
    size = torch.cat([NOISE, NOISE], 2)[..., :8]  # 16 x 8: two tiles
    results = []
    for build in (lambda: edit(patch(model), clip), lambda: (patch(edit(model, clip)[0]), edit(model, clip)[1])):
        patched, positive = build()
        torch.manual_seed(0)
        results.append(guided(Guide(clip).plain(patched, positive), size))
    assert_same(results[0], results[1])
    plain = guided(Guide(clip).plain(*edit(model, clip)), size)
    assert (results[0] - plain).abs().max() > 0.01


def test_a_patch_that_leaves_other_rows_is_refused(model: Any, clip: Any) -> None:
    """Whatever comes before it, such as a hook of a prompt."""
    patched, positive = edit(model, clip)

    def doubled(*arguments: Any) -> Any:
        *rows, _ = arguments
        return tuple(torch.cat([x, x]) for x in rows) if rows[0].shape[1] == 24 else rows

    patched.model_options["transformer_options"]["patches"]["attn1_patch"].insert(0, doubled)
    with pytest.raises(
        InvalidInput, match="^Prompt To Prompt: an attention layer has 8 rows in place of 4: another pat"
    ):
        guided(Guide(clip).plain(patched, positive))


@pytest.mark.parametrize("key", [("output", 3), ("middle", 0, 0)], ids=str)
def test_a_patch_connected_later_that_takes_its_place_is_refused(model: Any, clip: Any, key: tuple[Any, ...]) -> None:
    """It would silently end the words' control, as IPAdapter's does."""
    patched, positive = edit(model, clip)
    other = patched.clone()
    other.set_model_attn2_replace(lambda q, k, v, options: q, *key)
    with pytest.raises(
        InvalidInput, match="^Prompt To Prompt: the MODEL has another patch that replaces cross-attention"
    ):
        guided(Guide(clip).plain(other, positive))
    guided(Guide(clip).plain(patched, positive))


def other_positives(model: Any, clip: Any) -> dict[str, tuple[Any, str]]:
    """What may stand in the place of the node's CONDITIONING, and what the error must say."""
    own = edit(model, clip)[1]
    text = prompt_of(clip, EDITED)
    with torch.inference_mode():
        return {
            "CLIP Text Encode": (text, "positive is another prompt; connect this node's CONDITIONING"),
            "two rows of text": ([[text[0][0].repeat(2, 1, 1), {}]], "positive is another prompt"),
            "combined": (nodes.ConditioningCombine().combine(own, text)[0], "has other prompts beside this node's"),
            "another pair": (
                edit(model, clip, source_prompt="a sad cat")[1],
                "another Prompt To Prompt's, from 'a sad",
            ),
            "longer": (nodes.ConditioningConcat().concat(own, own)[0], "has changed the prompts"),
            "averaged": (nodes.ConditioningAverage().addWeighted(own, text, 0.5)[0], "has changed the prompts"),
            "zeroed": (nodes.ConditioningZeroOut().zero_out(own)[0], "has changed the prompts"),
            "an area": (nodes.ConditioningSetArea().append(own, 32, 32, 0, 0, 1.0)[0], "limited to an area"),
        }


@pytest.mark.parametrize(
    "name",
    ["CLIP Text Encode", "two rows of text", "combined", "another pair", "longer", "averaged", "zeroed", "an area"],
)
@pytest.mark.parametrize("guide", ["plain", "basic", "dual", "perp_neg"])
def test_another_positive_is_refused_with_advice(model: Any, clip: Any, name: str, guide: str) -> None:
    positive, complaint = other_positives(model, clip)[name]
    with pytest.raises(InvalidInput, match=f"^Prompt To Prompt: .*{complaint}"):
        guided(getattr(Guide(clip), guide)(edit(model, clip)[0], positive))


def test_its_prompts_as_the_negative_are_no_positive(model: Any, clip: Any) -> None:
    patched, own = edit(model, clip)
    guider = Guide(clip).plain(patched, own)
    guider.set_conds(prompt_of(clip, EDITED), own)
    with pytest.raises(InvalidInput, match="positive is another prompt"):
        guided(guider)


def test_nodes_that_leave_the_prompts_as_they_are_may_come_between(model: Any, clip: Any) -> None:
    """A mask of everything and two halves of the steps are the prompts themselves."""
    patched, own = edit(model, clip)
    expected = guided(Guide(clip).plain(patched, own))
    with torch.inference_mode():
        (masked,) = nodes.ConditioningSetMask().append(own, torch.ones(1, 8, 12), "default", 1.0)
        halves = [nodes.ConditioningSetTimestepRange().set_range(own, *ends)[0] for ends in ((0, 0.5), (0.5, 1))]
    for positive in (masked, halves[0] + halves[1]):
        assert_same(guided(Guide(clip).plain(patched, positive)), expected)
