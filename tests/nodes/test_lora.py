"""Fit Image LoRA makes the core's LoRA, which ComfyUI's own loader takes whole."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import pytest
import torch
from comfy_extras.nodes_train import SaveLoRA
from safetensors.torch import save_file
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.fit import LoraFit, fit_lora
from morph_pack.morph_core.lora.low_rank import LoraWeights
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.models.unet import UnetBackbone
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, sigmas_of
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.nodes.host.toy import ToyUnet
from morph_tests.nodes import models
from morph_tests.nodes.graph import (
    ATTENTION,
    conditioning,
    diffusion_model,
    latent,
    layers_named,
    normal,
    random_lora,
    run,
    sample,
    stock,
    with_lora,
)
from morph_tests.nodes.unet_bridge import diffusers_config

FIT = LoraFit(rank=3, steps=4, learning_rate=1e-3, seed=5)


def fit(model: Any, **changes: Any) -> Any:
    """LORA_MODEL and LOSS_MAP."""
    settings = {"rank": FIT.rank, "steps": FIT.steps, "learning_rate": FIT.learning_rate, "seed": FIT.seed}
    image = latent(size=(8, 8))
    return run("FitImageLora", **{"model": model, "latent": image, "positive": conditioning(), **settings, **changes})


def assert_same_lora(actual: Any, expected: Any) -> None:
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=0, atol=1e-5, msg=key)


def test_it_is_the_cores_fit(model: Any, core: ToyModel) -> None:
    lora, loss = fit(model)
    image = latent(size=(8, 8))["samples"] * SCALE_FACTOR
    expected = fit_lora(core.backbone, image, Text(conditioning()[0][0]), FIT)
    assert_same_lora(lora, expected.weights)
    assert loss["loss"] == pytest.approx(expected.losses, abs=1e-6) and len(loss["loss"]) == FIT.steps


def test_it_follows_the_models_prediction_and_latent_format() -> None:
    """On a model of the Stable Diffusion 2 kind, against a diffusers UNet that was built without the shadow."""
    from diffusers import UNet2DConditionModel

    model = models.sd2()
    config = model.model.model_config.unet_config
    weights = diffusion_model(model).state_dict()
    unet = UNet2DConditionModel(**diffusers_config(config))
    names = comfy.utils.unet_to_diffusers(config)
    unet.load_state_dict({name: weights[names[name]].clone() for name in unet.state_dict()})
    image = latent(size=(8, 8))["samples"] * 0.18215
    schedule = VariancePreserving(sigmas_of(alphas_cumprod()), "v_prediction")
    expected = fit_lora(UnetBackbone(unet, schedule), image, Text(conditioning()[0][0]), FIT)
    lora, loss = fit(model)
    assert loss["loss"] == pytest.approx(expected.losses, rel=1e-4)
    assert lora.keys() == expected.weights.keys()
    for key, value in expected.weights.items():
        torch.testing.assert_close(lora[key], value, rtol=0, atol=1e-4, msg=key)


def test_load_lora_model_uses_every_key(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    lora, _ = fit(model)
    with caplog.at_level(logging.WARNING):
        patched = with_lora(model, lora)
    assert not caplog.records, "ComfyUI warns of keys that it does not use"
    assert len(patched.patches) == len(lora) // 3 == len(layers_named())


def test_the_fitted_lora_lowers_the_loss_that_it_was_fitted_for(model: Any) -> None:
    """Measured again with the LoRA loaded, on the same noise and timesteps."""
    lora, before = fit(model, steps=12, learning_rate=1e-2)
    _, after = fit(with_lora(model, lora), steps=12, learning_rate=1e-7)
    _, plain = fit(model, steps=12, learning_rate=1e-7)
    assert sum(after["loss"]) < sum(plain["loss"])
    assert before["loss"][0] == pytest.approx(plain["loss"][0], abs=1e-6)


def test_it_fits_on_top_of_a_lora_that_the_model_carries(model: Any) -> None:
    plain, carrying = fit(model), fit(with_lora(model, random_lora(0)))
    assert plain[1]["loss"][0] != pytest.approx(carrying[1]["loss"][0], abs=1e-5)
    assert plain[0].keys() == carrying[0].keys()


def test_the_seed_decides_everything_and_no_other_random_numbers(model: Any) -> None:
    torch.manual_seed(1)
    first, _ = fit(model)
    state = torch.random.get_rng_state()
    second, _ = fit(model)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert_same_lora(fit(model)[0], first)
    assert_same_lora(second, first)
    other, _ = fit(model, seed=0xFFFFFFFFFFFFFFFF)
    assert any(not torch.equal(other[key], first[key]) for key in first)


ALL_LAYERS = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "time_emb_proj", "conv", "conv1", "conv2")
PATHS = {name.replace(".", "_"): name for name in layers_named(ALL_LAYERS)}


def renamed(lora: LoraWeights, layer: Callable[[str], str], down: str, up: str) -> LoraWeights:
    """Under another trainer's names. layer: from diffusers' path."""
    matrices = {"lora_down.weight": down, "lora_up.weight": up, "alpha": ".alpha"}
    return {layer(PATHS[name.removeprefix("lora_unet_")]) + matrices[part]: value for name, part, value in split(lora)}


def split(lora: LoraWeights) -> Iterator[tuple[str, str, Tensor]]:
    for key, value in lora.items():
        name, _, part = key.partition(".")
        yield name, part, value


def comfyuis_own(path: str) -> str:
    return comfy.utils.unet_to_diffusers(ToyUnet.unet_config)[path + ".weight"].removesuffix(".weight")


STYLES: dict[str, Callable[[LoraWeights], LoraWeights]] = {
    "kohya, diffusers' layers": lambda lora: lora,
    "kohya, the original's layers": lambda lora: renamed(
        lora, lambda path: "lora_unet_" + comfyuis_own(path).replace(".", "_"), ".lora_down.weight", ".lora_up.weight"
    ),
    "ComfyUI": lambda lora: renamed(
        lora, lambda path: f"diffusion_model.{comfyuis_own(path)}", ".lora_A.weight", ".lora_B.weight"
    ),
    "PEFT": lambda lora: renamed(lora, lambda path: f"base_model.model.{path}", ".lora_A.weight", ".lora_B.weight"),
    "PEFT, named": lambda lora: renamed(lora, str, ".lora_A.default.weight", ".lora_B.default.weight"),
    "diffusers": lambda lora: renamed(lora, lambda path: f"unet.{path}", ".lora_A.weight", ".lora_B.weight"),
    "diffusers, before PEFT": lambda lora: renamed(
        lora, lambda path: f"unet.{path}", ".lora.down.weight", ".lora.up.weight"
    ),
}


def assert_blends_as_merged(model: Any, lora: LoraWeights, kohya: LoraWeights) -> None:
    noise = 10 * normal(2, 4, 8, 12)
    (blend,) = run("LoraBlend", model=model, start=lora, end=lora, alphas=(0.0, 0.6))
    merged = sample(with_lora(model, kohya), conditioning(), noise, 4)
    torch.testing.assert_close(sample(blend, conditioning(), noise, 4), merged, rtol=0, atol=1e-4)
    assert (merged - sample(model, conditioning(), noise, 4)).abs().max() > 0.01


@pytest.mark.parametrize("style", STYLES)
def test_lora_blend_reads_every_style_of_names(model: Any, style: str) -> None:
    """Convolutions and feed-forward layers too, as ComfyUI merges the same LoRA under the names that it knows best."""
    kohya = random_lora(0, size=0.05, endings=ALL_LAYERS)
    assert_blends_as_merged(model, STYLES[style](kohya), kohya)


def test_lora_blend_reads_the_oldest_style_of_diffusers(model: Any) -> None:
    """`save_attn_procs`' names, which have no alphas."""
    kohya = {key: value for key, value in random_lora(0).items() if not key.endswith(".alpha")}
    path = {name: path.replace(".to_", ".processor.to_").removesuffix(".0") for name, path in PATHS.items()}
    matrices = {"lora_down.weight": "_lora.down.weight", "lora_up.weight": "_lora.up.weight"}
    lora = {path[name.removeprefix("lora_unet_")] + matrices[part]: value for name, part, value in split(kohya)}
    assert_blends_as_merged(model, lora, kohya)


def test_lora_blend_leaves_a_loras_text_encoder_layers_alone_and_says_so(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kohya = random_lora(0)
    strangers = (
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
    )
    assert_blends_as_merged(model, {**kohya, **dict.fromkeys(strangers, torch.ones(2, 2))}, kohya)
    assert "LoRA Blend: start also changes the text encoder" in caplog.text


def test_a_saved_lora_is_read_back(model: Any) -> None:
    """Save LoRA Weights, then Load LoRA Weights."""
    lora = random_lora(0)
    stock(SaveLoRA, lora=lora, prefix="loras/kept")
    folder = Path(folder_paths.get_output_directory()) / "loras"
    folder_paths.add_model_folder_path("loras", str(folder))
    (file,) = folder.glob("kept_*.safetensors")
    (loaded,) = run("LoadLoraWeights", lora_name=file.name)
    assert_same_lora(loaded, lora)
    assert_blends_as_merged(model, loaded, lora)


@pytest.fixture
def loras(tmp_path: Path) -> Iterator[Path]:
    """A folder for LoRAs."""
    folders = folder_paths.folder_names_and_paths["loras"][0]
    folders.append(str(tmp_path))
    yield tmp_path
    folders.remove(str(tmp_path))


class _Harmful:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harmed"),)


def _truncated(file: Path) -> None:
    save_file(random_lora(0), file)
    file.write_bytes(file.read_bytes()[:1000])


UNREADABLE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "truncated": ("a.safetensors", _truncated),
    "empty": ("a.safetensors", lambda file: file.write_bytes(b"")),
    "a web page": ("a.safetensors", lambda file: file.write_text("<!DOCTYPE html>" * 9)),
    "a truncated pickle": ("a.pt", lambda file: file.write_bytes(b"PK" + bytes(100))),
    "code": ("a.pt", lambda file: torch.save({"x": _Harmful()}, file)),
    "a pickled list": ("a.pt", lambda file: torch.save([torch.ones(1), 2], file)),
    "numbers": ("a.pt", lambda file: torch.save({"x": 1, "y": 2}, file)),
    "a link to nowhere": ("a.safetensors", lambda file: file.symlink_to(file.with_name("gone"))),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(loras: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name, write = UNREADABLE[kind]
    write(loras / name)
    monkeypatch.chdir(loras)
    with pytest.raises(InvalidInput) as raised:
        run("LoadLoraWeights", lora_name=name)
    message = str(raised.value)
    start, end = f"Load LoRA Weights: lora_name '{name}' cannot be read (", "); download it again or choose another"
    assert message.startswith(start) and message.endswith(end), message
    assert len(message) < 400 and "weights_only" not in message
    assert not (loras / "harmed").exists()


@pytest.mark.parametrize("name", ["folder.safetensors", "../secret.safetensors", "gone.safetensors"])
def test_only_the_files_of_a_folder_for_loras_can_be_chosen(loras: Path, name: str) -> None:
    (loras / "folder.safetensors").mkdir()
    with pytest.raises(InvalidInput, match="^Load LoRA Weights: lora_name must be one of"):
        run("LoadLoraWeights", lora_name=name)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_lora_of_8_bits_blends_next_to_any_other(model: Any, dtype: torch.dtype) -> None:
    """As ComfyUI's own loader merges it."""
    small = {key: value.to(dtype) for key, value in random_lora(0).items()}
    noise = 10 * normal(2, 4, 8, 12)
    (blend,) = run("LoraBlend", model=model, start=small, end=random_lora(1), alphas=(0.0, 1.0))
    expected = [sample(with_lora(model, lora), conditioning(), noise, 2) for lora in (small, random_lora(1))]
    result = sample(blend, conditioning(), noise, 2)
    for row in (0, 1):
        torch.testing.assert_close(result[row], expected[row][row], rtol=0, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 0.01


def changed(part: str, value: Callable[[Tensor], Tensor]) -> tuple[LoraWeights, str]:
    """A LoRA with one value changed, and that value's name."""
    lora = random_lora(0)
    key = next(key for key in lora if key.endswith(part))
    return {**lora, key: value(lora[key])}, key


@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize("part", ["lora_down.weight", "lora_up.weight", "alpha"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loras_that_are_not_finite_are_refused(model: Any, name: str, part: str, value: float) -> None:
    lora, key = changed(part, lambda tensor: torch.full_like(tensor, value))
    with pytest.raises(InvalidInput, match=f"^LoRA Blend: {name} has values that are not finite .*{key[-20:]}"):
        run("LoraBlend", **{"model": model, "start": random_lora(0), "end": random_lora(1), name: lora}, alphas=(0.0,))


@pytest.mark.parametrize("name", ["start", "end"])
def test_loras_of_broken_shapes_are_refused(model: Any, name: str) -> None:
    loras = {"start": random_lora(0), "end": random_lora(1)}
    lora, key = changed("alpha", lambda alpha: alpha.expand(3))
    with pytest.raises(InvalidInput, match=f"^LoRA Blend: {name} has 3 values in '{key}' and must have one"):
        run("LoraBlend", model=model, **{**loras, name: lora}, alphas=(0.0,))
    lora, key = changed("lora_down.weight", lambda down: down[:0])
    lora[key.replace("lora_down", "lora_up")] = torch.empty(len(lora[key.replace("lora_down", "lora_up")]), 0)
    with pytest.raises(InvalidInput, match=f"^LoRA Blend: {name}: a LoRA layer has rank 0"):
        run("LoraBlend", model=model, **{**loras, name: lora}, alphas=(0.0,))


def test_gradient_checkpointing_changes_only_the_memory(model: Any) -> None:
    plain, checkpointed = fit(model), fit(model, gradient_checkpointing=True)
    assert_same_lora(checkpointed[0], plain[0])


def test_gradient_checkpointing_is_on(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.utils.checkpoint

    calls: list[Any] = []
    original = torch.utils.checkpoint.checkpoint

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[0])
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", counted)
    fit(model, steps=1)
    assert not calls
    fit(model, steps=1, gradient_checkpointing=True)
    assert calls
