"""The flow-matching transformers in their single-file formats, with random weights, through ComfyUI's own loaders."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.supported_models
import comfy.utils
import folder_paths
import nodes
import pytest
import torch
from comfy.ldm.chroma.layers import Approximator
from comfy.model_sampling import CONST
from comfy_extras.nodes_train import SaveLoRA
from torch import Tensor

from morph_tests.flow_checkpoints import FLOW_FILES, write_flow_checkpoint
from morph_tests.nodes.flow_models import image_for, normal, prompt_for
from morph_tests.nodes.flow_truths import (
    ALPHAS,
    assert_it_is_attention_by_hand,
    assert_the_image_comes_back,
    assert_the_order_does_not_matter,
    distance,
    frames_of,
    injected,
    invert,
)
from morph_tests.nodes.graph import run, sample, stock, with_lora
from morph_tests.nodes.test_checkpoints import logged, unload
from morph_tests.nodes.test_untouched import Progress, interrupt, snapshot

EXPECTED = {  # ComfyUI's classes: of the configuration that it finds, and of the model
    "Flux.1": ("Flux", "Flux"),
    "Flux.2": ("Flux2", "Flux2"),
    "SD 3.5": ("SD3", "SD3"),
    "Qwen-Image": ("QwenImage", "QwenImage"),
    "Lumina 2": ("Lumina2", "Lumina2"),
    "Z-Image": ("ZImage", "Lumina2"),
    "Chroma": ("Chroma", "Chroma"),
}
READS_WIDTHS = hasattr(comfy.supported_models, "Flux2")  # since then, off Flux.1's files too
UNUSED = "unet unexpected: ['norm_final.weight']"  # newer ComfyUIs about Lumina 2's published file
QUICK = "SD 3.5"
EVERY = [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FLOW_FILES]
STEPS, ITERATIONS = 2, 4
ONE_STEP = {"steps": 2}  # of which the first is left out


@dataclass(frozen=True)
class Loaded:
    family: str
    model: Any
    logged: list[str]


def load(path: Path, bundled: bool) -> Any:
    """The MODEL, from Load Checkpoint or from Load Diffusion Model."""
    folder_paths.add_model_folder_path("checkpoints" if bundled else "diffusion_models", str(path.parent))
    with torch.inference_mode():
        if bundled:
            model, _, vae = nodes.CheckpointLoaderSimple().load_checkpoint(path.name)
            assert vae.latent_channels == model.get_model_object("latent_format").latent_channels
            return model
        return nodes.UNETLoader().load_unet(path.name, "default")[0]


@pytest.fixture(scope="module", autouse=True)
def _modulations_once() -> Iterator[None]:
    """Chroma's modulations are the same for all rows of a step and take most of the time: compute them once a time."""
    computed: dict[bytes, Tensor] = {}

    def forward(approximator: Approximator, x: Tensor) -> Tensor:
        assert torch.equal(x, x[:1].expand_as(x))
        key = x[0].numpy().tobytes()
        if key not in computed:
            computed[key] = plain(approximator, x[:1])
        return computed[key].clone().expand(len(x), -1, -1)

    plain = Approximator.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Approximator, "forward", forward)
        yield


@pytest.fixture(scope="module", params=EVERY)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    family = request.param
    if not hasattr(comfy.supported_models, EXPECTED[family][0]):
        pytest.skip(f"this ComfyUI has no {family}")
    path = tmp_path_factory.mktemp("flow") / f"{family}.safetensors"
    write_flow_checkpoint(path, family, narrow=READS_WIDTHS)
    with logged() as messages:
        model = load(path, FLOW_FILES[family].bundled)
    yield Loaded(family, model, messages)
    del model
    unload()
    path.unlink()


@pytest.fixture(scope="module")
def model(loaded: Loaded) -> Any:
    return loaded.model


@pytest.fixture(scope="module")
def lora(model: Any) -> dict[str, Tensor]:
    return fitted(model, seed=1)


def fitted(model: Any, seed: int) -> dict[str, Tensor]:
    """A LoRA from Fit Image LoRA, learnt in giant steps so that it shows."""
    settings = {"rank": 2, "steps": 2, "learning_rate": 0.03, "seed": seed}
    return run("FitImageLora", model=model, latent=image_for(model, seed), positive=prompt_for(model), **settings)[0]


def opposite(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: -weight if "lora_up" in name else weight for name, weight in lora.items()}


def blended(model: Any, lora: dict[str, Tensor], alphas: tuple[float, ...] = ALPHAS) -> Any:
    return run("LoraBlend", model=model, start=lora, end=opposite(lora), alphas=alphas)[0]


def test_the_family_is_read_from_the_file(loaded: Loaded) -> None:
    config, kind = EXPECTED[loaded.family]
    assert type(loaded.model.model.model_config) is getattr(comfy.supported_models, config)
    assert type(loaded.model.model) is getattr(comfy.model_base, kind)
    assert isinstance(loaded.model.get_model_object("model_sampling"), CONST)
    for message in set(loaded.logged) - {UNUSED}:
        for complaint in ("missing", "unexpected", "left over", "leftover"):
            assert complaint not in message.lower()


def test_from_pure_noise_the_image_comes_back(model: Any) -> None:
    prompt, image = prompt_for(model), image_for(model)
    inverted = invert(model, prompt, image, iterations=ITERATIONS, steps=STEPS)
    assert_the_image_comes_back(model, prompt, image, inverted, STEPS)


def test_a_fitted_lora_has_one_effect(
    loaded: Loaded, lora: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """Through Load LoRA Model, through Save LoRA Weights and Load LoRA, and blended in."""
    model, prompt = loaded.model, prompt_for(loaded.model)
    noise = normal(1, *image_for(model)["samples"].shape[1:], seed=3)

    def result(patched: Any) -> Tensor:
        return sample(patched, prompt, noise, start=1, scheduler="simple", **ONE_STEP)

    with caplog.at_level(logging.WARNING):
        stock(SaveLoRA, lora=lora, prefix=f"loras/{loaded.family}")
        folder = Path(folder_paths.get_output_directory()) / "loras"
        folder_paths.add_model_folder_path("loras", str(folder))
        (file,) = folder.glob(f"{loaded.family}_0*.safetensors")
        with torch.inference_mode():
            (read,) = nodes.LoraLoaderModelOnly().load_lora_model_only(model, file.name, 1.0)
        merged = result(read)
    assert not caplog.records
    assert len(read.patches) == len(lora) // 3 > 0
    assert distance(result(with_lora(model, lora)), merged) < 1e-5
    saved = comfy.utils.load_torch_file(str(file), safe_load=True)
    assert distance(result(blended(model, saved, (0.0,))), merged) < 1e-4
    assert distance(result(model), merged) > 1e-3


def test_injection_is_attention_written_out_by_hand(model: Any) -> None:
    assert_it_is_attention_by_hand(model, cfg=1.0, **ONE_STEP)


def test_with_lora_blend_the_order_does_not_matter(model: Any, lora: dict[str, Tensor]) -> None:
    assert_the_order_does_not_matter(model, [lora, opposite(lora)], "Attention KV Inject", **ONE_STEP)


def test_a_cancel_leaves_nothing_behind(model: Any, lora: dict[str, Tensor]) -> None:
    """In the fit and in sampling, within one step: no third one is reported."""
    patched = injected(blended(model, lora))
    before, patches = snapshot(model), snapshot(patched.model_options)
    fit = {"latent": image_for(model), "positive": prompt_for(model), "rank": 2, "learning_rate": 0.03, "seed": 0}
    for cancelled in (
        lambda: run("FitImageLora", model=model, steps=6, **fit),
        lambda: frames_of(model, patched, steps=6),
    ):
        progress = Progress(interrupt)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            cancelled()
        assert progress == [1, 2]
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
    assert snapshot(patched.model_options) == patches
    assert snapshot(model) == before
