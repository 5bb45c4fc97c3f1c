"""Prompt To Prompt under stock KSampler is the core's, and goes with the pack's other patches in any order."""

import itertools
from collections.abc import Callable
from typing import Any

import nodes
import pytest
import torch
from comfy_extras import nodes_torch_compile
from torch import Tensor

from morph_pack.morph_core.attention.prompt_to_prompt import Edit, PromptToPrompt, prompt_to_prompt
from morph_pack.morph_core.attention.token_alignment import token_scale, word_control
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.direct_inversion import DirectInversion
from morph_pack.morph_core.sampling.guidance import guided_denoiser
from morph_pack.morph_core.sampling.schedule import ddim_sigmas
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.morph_core.toy.words import tokenize, word_tokens
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, normal, random_lora, run, sample
from morph_tests.nodes.test_uncompiled import compiled

STEPS, CFG = 5, 3.0
SOURCE, EDITED = "a happy red cat on mint", "a happy red rabbit on mint"
IMAGE = {"samples": normal(1, 4, 8, 12) / SCALE_FACTOR}
SETTINGS: dict[str, Any] = {
    **{"source_prompt": SOURCE, "edited_prompt": EDITED, "alignment": "replace", "cross_percent": 0.8},
    **{"self_percent": 0.4, "blend_words": "", "blend_threshold": 0.3, "reweight": ""},
}


@pytest.fixture(scope="module")
def clip(toy: tuple[Any, Any, Any]) -> Any:
    return toy[1]


def prompt_of(clip: Any, text: str) -> Any:
    with torch.inference_mode():
        return nodes.CLIPTextEncode().encode(clip, text)[0]


def edit(model: Any, clip: Any, **changes: Any) -> Any:
    """MODEL and CONDITIONING."""
    return run("PromptToPrompt", model=model, clip=clip, **{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def inverted(model: Any, clip: Any) -> Any:
    spacing = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": 0}
    return run("DdimInvert", model=model, positive=prompt_of(clip, SOURCE), latent_image=IMAGE, **spacing)


def twice(inverted: Any) -> Tensor:
    return inverted[0]["samples"].repeat(2, 1, 1, 1)


def sampled(patched: Any, clip: Any, noise: Tensor, cfg: float = CFG) -> Tensor:
    return sample(patched[0], patched[1], noise, STEPS, negative=prompt_of(clip, ""), cfg=cfg)


@torch.no_grad()
def expected(core: ToyModel, inverted: Any, changes: dict[str, Any], cfg: float, pinned: bool) -> Tensor:
    """The core's edit, as diffusers computes it: the control in the conditional pass only."""
    settings = {**SETTINGS, **changes}
    source, edited = tokenize([settings["source_prompt"], settings["edited_prompt"]])
    factors = {"rabbit": 2.5} if settings["reweight"] else {}
    control = word_control(source, edited, settings["alignment"], token_scale(factors, word_tokens, edited))
    words = [3, 4] if settings["blend_words"] else []  # the colour, which both have, and the animal
    edit = Edit(control, settings["cross_percent"], settings["self_percent"], words, words, settings["blend_threshold"])
    sigmas = ddim_sigmas(core.backbone.schedule.sigmas, STEPS)
    run = PromptToPrompt(edit, sigmas, (8, 12))
    prompts = core.encode_text([settings["source_prompt"], settings["edited_prompt"]])
    both, empty = core.backbone.denoiser(prompts), core.backbone.denoiser(core.encode_text([""]))

    def controlled(x: Tensor, sigma: Tensor) -> Tensor:
        with prompt_to_prompt(core.backbone.attention_layers(), run, sigma):
            return both(x, sigma)

    denoise = guided_denoiser(empty, controlled, cfg)
    corrections = [DirectInversion({0: inverted[1].trajectory})] if pinned else []
    x = twice(inverted) * SCALE_FACTOR
    return ddim.sample(denoise, x, sigmas, corrections=[*corrections, run.blend]) / SCALE_FACTOR


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"alignment": "refine", "edited_prompt": "happy rabbit on mint"},
        {"self_percent": 1.0, "cross_percent": 1.0},
        {"cross_percent": 0.0, "self_percent": 0.4},
        {"reweight": "rabbit: 2.5"},
        {"blend_words": "red, cat, rabbit", "blend_threshold": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("cfg", [1.0, CFG])
@pytest.mark.parametrize("pinned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_is_the_cores(
    model: Any, clip: Any, core: ToyModel, inverted: Any, changes: dict[str, Any], cfg: float, pinned: bool
) -> None:
    patched, positive = edit(model, clip, **changes)
    if pinned:
        (patched,) = run("DirectInversion", model=patched, trajectory=inverted[1], row=0)
    actual = sampled((patched, positive), clip, twice(inverted), cfg)
    torch.testing.assert_close(actual, expected(core, inverted, changes, cfg, pinned), rtol=0, atol=2e-3)


@pytest.mark.slow
def test_every_setting_matters(model: Any, clip: Any, inverted: Any) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"alignment": "refine"},
        {"cross_percent": 0.2},
        {"self_percent": 1.0},
        {"reweight": "rabbit: 3"},
        {"blend_words": "cat, rabbit", "blend_threshold": 0.9},
        {"cross_percent": 0.0, "self_percent": 0.0},
    ]
    outcomes = [sampled(edit(model, clip, **change), clip, twice(inverted))[1] for change in changes]
    for one, other in itertools.combinations(outcomes, 2):
        assert (one - other).abs().max() > 1e-3


def test_without_its_shares_each_row_is_its_prompt_alone(model: Any, clip: Any, inverted: Any) -> None:
    both = sampled(edit(model, clip, cross_percent=0.0, self_percent=0.0), clip, twice(inverted))
    for row, text in enumerate((SOURCE, EDITED)):
        settings = {"negative": prompt_of(clip, ""), "cfg": CFG}
        alone = sample(model, prompt_of(clip, text), inverted[0]["samples"], STEPS, **settings)
        torch.testing.assert_close(both[row], alone[0], rtol=0, atol=1e-3)


def test_equal_prompts_give_equal_rows(model: Any, clip: Any, inverted: Any) -> None:
    rows = sampled(edit(model, clip, edited_prompt=SOURCE), clip, twice(inverted))
    torch.testing.assert_close(rows[1], rows[0], rtol=0, atol=1e-3)


def kv_inject(model: Any, **settings: Any) -> Any:
    given = {"strength": 0.7, "end_percent": 1.0, "blocks": "all blocks", "alphas": (0.0, 1.0), **settings}
    return run("AttentionKVInject", model=model, **given)[0]


@pytest.mark.slow
def test_the_patches_go_together_in_any_order(model: Any, clip: Any, inverted: Any) -> None:
    """And leaving one out leaves its effect out."""
    blended = {"blend_words": "cat, rabbit", "blend_threshold": 0.9}
    lora = random_lora(0)
    patches: dict[str, Callable[[Any], Any]] = {
        "direct": lambda model: run("DirectInversion", model=model, trajectory=inverted[1], row=0)[0],
        "loras": lambda model: run("LoraBlend", model=model, start=lora, end=random_lora(1), alphas=(0.0, 1.0))[0],
        "attention": lambda model: kv_inject(model, alphas=None),
        "prompts": lambda model: edit(model, clip, **blended)[0],
    }
    positive = edit(model, clip)[1]

    def result(names: Any) -> Tensor:
        patched = model
        for name in names:
            patched = patches[name](patched)
        return sampled((patched, positive), clip, twice(inverted))

    whole = result(patches)
    for order in itertools.permutations(patches):
        torch.testing.assert_close(result(order), whole, rtol=0, atol=1e-3)
    for missing in patches:
        assert (result([name for name in patches if name != missing]) - whole).abs().max() > 0.01, missing


def test_nothing_leaks_into_the_next_run(model: Any, clip: Any, inverted: Any) -> None:
    plain_inputs = {"negative": prompt_of(clip, ""), "cfg": CFG}
    plain = sample(model, prompt_of(clip, EDITED), inverted[0]["samples"], STEPS, **plain_inputs)
    patched = edit(model, clip, blend_words="cat, rabbit", blend_threshold=0.9)
    first = sampled(patched, clip, twice(inverted))
    stopped = patched[0].clone()
    stopped.set_model_sampler_post_cfg_function(lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sampled((stopped, patched[1]), clip, twice(inverted))
    assert torch.equal(sampled(patched, clip, twice(inverted)), first)
    again = sample(model, prompt_of(clip, EDITED), inverted[0]["samples"], STEPS, **plain_inputs)
    assert torch.equal(again, plain)


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(nodes_torch_compile, "skip_torch_compile_dict"), reason="this ComfyUI compiles with all of its guards"
)
def test_a_model_that_was_compiled_and_used_before_is_edited_too(model: Any, clip: Any, inverted: Any) -> None:
    """Newer ComfyUIs compile without guards on a run's options, so that the code would be that of the run before."""
    before, plain = compiled(model, "eager"), edit(model, clip)
    unedited = sampled((before, plain[1]), clip, twice(inverted))
    actual, expected = (sampled(edit(each, clip), clip, twice(inverted)) for each in (before, model))
    torch._dynamo.reset()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    assert (unedited - expected).abs().max() > 1e-2


def test_a_prompt_that_comfyui_repeats_to_a_longer_negatives_length(model: Any, clip: Any, inverted: Any) -> None:
    patched, positive = edit(model, clip)
    negative = prompt_of(clip, "")
    twice_as_long = [[negative[0][0].repeat(1, 2, 1), negative[0][1]]]
    results = [
        sample(patched, positive, twice(inverted), STEPS, negative=text, cfg=CFG) for text in (negative, twice_as_long)
    ]
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"alignment": "shuffle"}, "alignment must be one of replace, refine; got 'shuffle'"),
        ({"blend_words": "cat, bear"}, "blend_words: 'bear' is in neither prompt"),
        ({"blend_words": "cat, lion"}, "blend_words: the toy model does not know the word 'lion'"),
        ({"reweight": "bear: 2"}, "reweight: the word 'bear' is not in edited_prompt"),
        ({"reweight": "cat: 2"}, "reweight: the word 'cat' is not in edited_prompt"),  # it is in the other
        ({"reweight": "lion: 2"}, "reweight: the toy model does not know the word 'lion'"),
        ({"reweight": "rabbit: 1e39"}, "reweight: the factor of 'rabbit' must be between -1000 and 1000, got 1e39"),
        ({"source_prompt": "a lion"}, "source_prompt: the toy model does not know the word 'lion'"),
        ({"edited_prompt": "a lion"}, "edited_prompt: the toy model does not know the word 'lion'"),
        ({"clip": None}, "clip is not a CLIP, got None; connect the model's CLIP.* needs Load CLIP"),
        ({"reweight": "rabbit"}, "'rabbit' is not a word with its factor"),
        ({"reweight": "rabbit: much"}, "the factor of 'rabbit' must be a finite number, got 'much'"),
        ({"cross_percent": 1.5}, "cross_percent must be between 0 and 1, got 1.5"),
    ],
)
def test_what_cannot_be_used_is_refused(model: Any, clip: Any, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=f"^Prompt To Prompt: .*{complaint}"):
        edit(model, **{"clip": clip, **changes})


def test_batches_and_patches_that_do_not_go_with_it_are_refused(model: Any, clip: Any, inverted: Any) -> None:
    patched = edit(model, clip)
    for rows in (1, 3):
        noise = inverted[0]["samples"].repeat(rows, 1, 1, 1)
        with pytest.raises(InvalidInput, match=f"a batch of {rows}, it takes two rows .*Repeat Latent Batch"):
            sampled(patched, clip, noise)
    other = model.clone()
    other.set_model_attn2_replace(print, "output", 3)
    with pytest.raises(InvalidInput, match="another patch that replaces cross-attention"):
        edit(other, clip)


def test_other_kinds_of_models_are_refused(clip: Any) -> None:
    from morph_pack.morph_core.errors import UnsupportedModel

    with pytest.raises(UnsupportedModel, match="Prompt To Prompt: model is a .*, not a UNet"):
        edit(models.dit(), clip)


def test_pooled_outputs_go_with_their_rows(model: Any, clip: Any) -> None:
    from morph_pack.nodes.prompt_to_prompt import _both

    pooled = [normal(1, 6, seed=i) for i in (7, 8)]
    prompts = [conditioning(i, pooled_output=own, width=64) for i, own in enumerate(pooled)]
    ((text, options),) = _both(*prompts, ("a cat", "a rabbit"))
    assert torch.equal(text, torch.cat([conditioning(i)[0][0] for i in range(2)]))
    assert torch.equal(options["pooled_output"], torch.cat(pooled)) and options["width"] == 64
