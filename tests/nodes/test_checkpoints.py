"""The families of checkpoints, in their real file formats with random weights, through stock Load Checkpoint.

UNets of the published size need up to 16 GB of memory and some minutes: `pytest -m full_size`.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.utils
import folder_paths
import nodes
import pytest
import torch
from comfy.model_sampling import EPS, V_PREDICTION
from comfy_extras.nodes_train import SaveLoRA
from torch import Tensor

from morph_pack.morph_core.sampling import ddim
from morph_pack.nodes.host.backbone import scaled_latent, shadowed
from morph_pack.nodes.host.prompt import read_prompt
from morph_pack.nodes.host.sigmas import remaining_sigmas
from morph_tests.checkpoints import FAMILIES, write_checkpoint
from morph_tests.nodes.diffusers_twin import diffusers_twin
from morph_tests.nodes.graph import drag_options, latent, normal, run, sample, stock, with_lora
from morph_tests.nodes.test_shadow import through_comfyui, through_shadow

EXPECTED = {  # ComfyUI's class, what the network predicts, the latents' scale, text and pooled widths
    "sd15": (comfy.model_base.BaseModel, EPS, 0.18215, 768, None),
    "sd21_base": (comfy.model_base.BaseModel, EPS, 0.18215, 1024, None),
    "sd21_768": (comfy.model_base.BaseModel, V_PREDICTION, 0.18215, 1024, None),
    "sdxl": (comfy.model_base.SDXL, EPS, 0.13025, 2048, 1280),
}
SIZES = [(8, 8), (9, 13)]
TIMESTEPS = [1, 800]
LASTING = ("sd15", "sd21_768", "sdxl")  # sd21_base: the network of sd21_768, which is compared, and sd15's prediction
pytestmark = pytest.mark.slow
of_lasting_families = pytest.mark.parametrize("checkpoint", LASTING, indirect=True)


def load(path: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE."""
    folder_paths.add_model_folder_path("checkpoints", str(path.parent))
    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(path.name)


def unload() -> None:
    comfy.model_management.unload_all_models()
    gc.collect()
    comfy.model_management.cleanup_models_gc()


@contextmanager
def logged() -> Iterator[list[str]]:
    """The messages of all loggers meanwhile."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger().removeHandler(handler)


@dataclass(frozen=True)
class Checkpoint:
    family: str
    model: Any
    clip: Any
    vae: Any
    positive: Any
    loading: str  # what was logged

    def image(self, height: int, width: int) -> dict[str, Tensor]:
        """A LATENT that is of unit variance for the UNet, as an image's is."""
        return {"samples": normal(1, 4, height, width) / EXPECTED[self.family][2]}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, checkpoint_file: Callable[[str], Path]) -> Iterator[Checkpoint]:
    with logged() as messages:
        model, clip, vae = load(checkpoint_file(request.param))
    with torch.inference_mode():
        (positive,) = nodes.CLIPTextEncode().encode(clip, "a photo of a cat")
    yield Checkpoint(request.param, model, clip, vae, positive, "\n".join(messages))
    del model, clip, vae
    unload()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def denoised(model: Any, positive: Any) -> Tensor:
    """The model's output as KSampler gets it, for comparing two ways to the same weights."""
    return through_comfyui(model, normal(1, 4, 8, 12), torch.tensor(1.0), positive)


def test_the_family_is_read_from_the_file(checkpoint: Checkpoint) -> None:
    kind, prediction, scale, width, pooled_width = EXPECTED[checkpoint.family]
    ((embedding, options),) = checkpoint.positive
    assert type(checkpoint.model.model) is kind
    assert isinstance(checkpoint.model.model.model_sampling, prediction)
    samples = latent()["samples"]
    assert torch.equal(scaled_latent(checkpoint.model, samples), samples * scale)
    assert embedding.shape[-1] == width
    assert pooled_width is None or options["pooled_output"].shape == (1, pooled_width)
    for complaint in ("missing", "unexpected", "left over", "leftover"):
        assert complaint not in checkpoint.loading.lower()


def assert_the_shadow_is_comfyuis_unet(model: Any, positive: Any) -> None:
    sigmas = model.get_model_object("model_sampling").sigmas
    for height, width in SIZES:
        for timestep in TIMESTEPS:
            sigma = sigmas[timestep].clone()
            x = normal(1, 4, height, width) * (1 + sigma**2) ** 0.5
            expected = through_comfyui(model, x, sigma, positive)
            noise = (x - expected) / sigma  # what the network said, in its own units
            assert 0.05 < noise.std() < 5
            assert_close((x - through_shadow(model, x, sigma, positive)) / sigma, noise)
    own = model.model.diffusion_model.state_dict()
    with torch.inference_mode(), shadowed(model) as backbone:
        aliases = backbone.network.state_dict()
        assert aliases.keys() == own.keys()
        for name, alias in aliases.items():
            assert alias.data_ptr() == own[name].data_ptr(), name


def test_the_shadow_is_comfyuis_unet_on_its_own_memory(checkpoint: Checkpoint) -> None:
    assert_the_shadow_is_comfyuis_unet(checkpoint.model, checkpoint.positive)


@pytest.mark.full_size
@pytest.mark.parametrize("family", FAMILIES)
def test_the_shadow_is_comfyuis_unet_at_full_size(family: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / f"{family}_full.safetensors", family, full=True, text_encoders=False)
    model, _, _ = load(path)
    _, _, _, width, pooled_width = EXPECTED[family]
    options = {"pooled_output": normal(1, pooled_width)} if pooled_width else {}
    assert_the_shadow_is_comfyuis_unet(model, [[normal(1, 77, width), options]])
    path.unlink()
    del model
    unload()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_inverted_is_sampled_back(checkpoint: Checkpoint, size: tuple[int, int]) -> None:
    """In KSampler's convention, and by the core's DDIM. Random networks are rough, so the way is a short one."""
    model, positive, image = checkpoint.model, checkpoint.positive, checkpoint.image(*size)
    steps, start = 40, 34
    schedule = {"steps": steps, "scheduler": "ddim_uniform", "start_at_step": start}
    noise, *_ = run("DdimInvert", model=model, positive=positive, latent_image=image, **schedule)
    sigmas = remaining_sigmas(model, "ddim_uniform", steps, start)
    with torch.inference_mode():
        prompt = read_prompt(model, positive, "positive", image["samples"])
        with diffusers_twin(model) as twin, torch.no_grad():
            denoise = twin.denoiser(prompt.to(twin.device))
            expected = ddim.invert(denoise, scaled_latent(model, image["samples"]), sigmas, twin.schedule)
    scale = EXPECTED[checkpoint.family][2]
    assert_close(noise["samples"] * scale, expected)
    back = sample(model, positive, noise["samples"], steps, start=start)
    moved = (noise["samples"] - image["samples"]).std()
    assert (back - image["samples"]).std() < 0.25 * moved
    assert moved > 0.1


@pytest.fixture(scope="module")
def fitted(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """A LoRA from Fit Image LoRA, learnt in giant steps so that it shows."""
    settings = {"rank": 2, "steps": 3, "learning_rate": 0.03, "seed": 1}
    image = checkpoint.image(8, 8)
    return run("FitImageLora", model=checkpoint.model, latent=image, positive=checkpoint.positive, **settings)[0]


@of_lasting_families
def test_a_fitted_lora_is_the_same_in_the_graph_and_from_a_file(
    checkpoint: Checkpoint, fitted: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """Load LoRA Model, and Save LoRA followed by Load LoRA: every key is used, with the same effect."""
    with caplog.at_level(logging.WARNING):
        expected = denoised(with_lora(checkpoint.model, fitted), checkpoint.positive)
        stock(SaveLoRA, lora=fitted, prefix=f"loras/{checkpoint.family}")
        with torch.inference_mode():
            folder = Path(folder_paths.get_output_directory()) / "loras"
            folder_paths.add_model_folder_path("loras", str(folder))
            (file,) = folder.glob(f"{checkpoint.family}_0*.safetensors")
            (loaded,) = nodes.LoraLoaderModelOnly().load_lora_model_only(checkpoint.model, file.name, 1.0)
    assert not caplog.records
    assert len(loaded.patches) == len(fitted) // 3
    assert_close(denoised(loaded, checkpoint.positive), expected)
    assert (expected - denoised(checkpoint.model, checkpoint.positive)).abs().max() > 1e-3


@of_lasting_families
def test_diffusers_reads_a_fitted_lora(checkpoint: Checkpoint, fitted: dict[str, Tensor]) -> None:
    """As `load_lora_weights` does: its conversion of kohya's keys, then the UNet's own loader."""
    pytest.importorskip("peft")
    pytest.importorskip("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", exc_type=ImportError)
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline if checkpoint.family == "sdxl" else StableDiffusionPipeline
    x, sigma, positive = normal(1, 4, 8, 12), torch.tensor(1.0), checkpoint.positive
    with torch.inference_mode():
        prompt = read_prompt(checkpoint.model, positive, "positive", x)
        with diffusers_twin(checkpoint.model) as twin, torch.no_grad():
            weights, alphas, *_ = pipeline.lora_state_dict(dict(fitted), unet_config=twin.unet.config)
            pipeline.load_lora_into_unet(weights, alphas, twin.unet)
            actual = twin.denoiser(prompt.to(twin.device))(x, sigma)
    assert_close(actual, denoised(with_lora(checkpoint.model, fitted), positive))


@of_lasting_families
def test_a_morph_in_parts_of_an_odd_size(checkpoint: Checkpoint, fitted: dict[str, Tensor]) -> None:
    alphas, noise = (0.0, 0.3, 0.6, 1.0), 3 * normal(4, 4, 9, 13) / EXPECTED[checkpoint.family][2]
    (blend,) = run("LoraBlend", model=checkpoint.model, start=fitted, end={**fitted}, alphas=alphas)
    (prompt,) = run("BlendConditioning", start=checkpoint.positive, end=checkpoint.positive, alphas=alphas)
    settings = {"model": blend, "alphas": alphas, "strength": 1.0, "end_percent": 1.0, "blocks": "up blocks"}
    whole, parts = (
        sample(run("AttentionKVInject", **settings, frames_per_batch=size)[0], prompt, noise, 2) for size in (0, 1)
    )
    assert whole.isfinite().all()
    assert_close(parts, whole)
    assert (whole - sample(blend, prompt, noise, 2)).abs().max() > 1e-3
    (plain,) = run("AttentionKVInject", **{**settings, "model": checkpoint.model})
    assert (whole - sample(plain, prompt, noise, 2)).abs().max() > 1e-3


@of_lasting_families
def test_a_drag_of_an_odd_size(checkpoint: Checkpoint) -> None:
    """From the image's inversion to the two rows that KSampler finishes."""
    model, positive, image = checkpoint.model, checkpoint.positive, checkpoint.image(9, 13)
    schedule = {"steps": 10, "scheduler": "ddim_uniform", "start_at_step": 5}
    noise, *_ = run("DdimInvert", model=model, positive=positive, latent_image=image, **schedule)
    options = drag_options(iterations=2, gradient_checkpointing=True)
    rows, start, _, _ = run(
        "DragLatentOptimize",
        **{"model": model, "positive": positive, "latent": noise, "image": torch.full((1, 72, 104, 3), 0.5)},
        **{"points": '[{"x": 30, "y": 30}, {"x": 50, "y": 30}]', "objective": "DragDiffusion", "options": options},
        **schedule,
    )
    original, dragged = rows["samples"]
    assert_close(original[None], noise["samples"])
    assert 1e-3 < (dragged - original).abs().max() < 1
    settings = {"strength": 1.0, "end_percent": 1.0, "blocks": "last two up blocks"}
    (reference,) = run("AttentionKVInject", model=model, **settings)
    finished = sample(reference, positive, rows["samples"], 10, start=start)
    assert finished.shape == (2, 4, 9, 13) and finished.isfinite().all()
    assert_close(finished[:1], sample(model, positive, noise["samples"], 10, start=start))


@of_lasting_families
def test_exact_inversions_and_an_edit(checkpoint: Checkpoint) -> None:
    """Direct Inversion ends in the image at guidance, Null-text comes nearer to it, and equal prompts edit nothing."""
    model, positive, image = checkpoint.model, checkpoint.positive, checkpoint.image(8, 8)
    steps, start, cfg = 12, 9, 3.0
    schedule = {"steps": steps, "scheduler": "ddim_uniform", "start_at_step": start}
    noise, trajectory, *_ = run("DdimInvert", model=model, positive=positive, latent_image=image, **schedule)
    with torch.inference_mode():
        (empty,) = nodes.CLIPTextEncode().encode(checkpoint.clip, "")
    guided = {"cfg": cfg, "start": start}

    def sampled(model: Any, negative: Any) -> Tensor:
        return sample(model, positive, noise["samples"], steps, negative=negative, **guided)

    def distance(result: Tensor) -> float:
        return float((result - image["samples"]).std() * EXPECTED[checkpoint.family][2])

    plain = sampled(model, empty)
    (pinned,) = run("DirectInversion", model=model, trajectory=trajectory, row=0)
    assert distance(sampled(pinned, empty)) < 1e-5 < 0.02 < distance(plain)
    settings = {"cfg": cfg, "inner_steps": 4, "learning_rate": 0.02, "early_stop": 0.0, "budget": 0}
    (negative,) = run("NullTextInversion", model=model, trajectory=trajectory, negative=empty, **settings)
    assert len(negative) == len(trajectory.trajectory.sigmas) - 1
    assert distance(sampled(model, negative)) < 0.95 * distance(plain)

    prompts = {"source_prompt": "a photo of a cat", "edited_prompt": "a photo of a cat"}
    shares = {"cross_percent": 1.0, "self_percent": 1.0, "blend_words": "cat", "blend_threshold": 0.3}
    settings = {"alignment": "replace", "reweight": "", **shares, **prompts}
    rows = []
    for changes in ({}, {"edited_prompt": "a photo of a rabbit"}):
        patched, both = run("PromptToPrompt", model=model, clip=checkpoint.clip, **{**settings, **changes})
        rows.append(sample(patched, both, noise["samples"].repeat(2, 1, 1, 1), steps, negative=empty, **guided))
    assert_close(rows[0][1], rows[0][0], 1e-3)
    assert_close(rows[0][0], plain[0], 1e-3)
    assert_close(rows[1][0], rows[0][0], 1e-3)
    assert (rows[1][1] - rows[1][0]).abs().max() > 1e-3


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("inpainting") / "inpainting.safetensors"
    model, _, _ = load(write_checkpoint(path, "sd15", text_encoders=False, inpainting=True))
    yield model
    path.unlink()


def test_an_inpainting_checkpoint_gets_its_picture_from_the_conditioning(inpainting: Any) -> None:
    """As InpaintModelConditioning leaves it there; and what is learnt of it is read back whole."""
    picture, mask = normal(1, 4, 8, 8, seed=3), torch.ones(1, 1, 64, 64)
    plain = [[normal(1, 77, 768), {}]]
    told = [[plain[0][0], {"concat_latent_image": picture, "concat_mask": mask}]]
    x, sigma = normal(1, 4, 8, 8), torch.tensor(1.0)
    expected = through_comfyui(inpainting, x, sigma, told)
    assert_close(through_shadow(inpainting, x, sigma, told), expected)
    assert (expected - through_comfyui(inpainting, x, sigma, plain)).abs().max() > 1e-3
    settings = {"rank": 1, "steps": 1, "learning_rate": 1e-3, "seed": 0}
    lora, _ = run("FitImageLora", model=inpainting, latent=latent(size=(8, 8)), positive=told, **settings)
    assert len(with_lora(inpainting, lora).patches) == len(lora) // 3 > 0
