"""Inputs that every node takes, small enough to run in a moment. Tests of what goes wrong change one of them.

    run("SlerpLatents", **good_inputs("SlerpLatents", model))

They are made anew each time, give every input, optional ones too, and come in the forms that other nodes give them
in: ALPHAS as a list or a tensor, a LATENT with a mask, an IMAGE with a fourth channel.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import torch
from safetensors.torch import save_file
from torch import Tensor

from morph_pack.morph_core.matching.matches import Matches
from morph_pack.morph_core.morphing.timeline import timeline
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_tests.nodes.graph import PREFIX, conditioning, drag_options, latent, normal, random_lora, run

ALPHAS = (0.0, 0.5, 1.0)
NODES = [node_id.removeprefix(PREFIX) for node_id in NODE_CLASS_MAPPINGS]


def nodes_with(name: str) -> list[str]:
    """The nodes that have an input of this name."""
    return [node for node in NODES if name in input_names(node)]


def input_names(node: str) -> list[str]:
    return [part.id for part in NODE_CLASS_MAPPINGS[PREFIX + node].GET_SCHEMA().inputs]


def good_inputs(node: str, model: Any) -> dict[str, Any]:
    """All inputs of a node. model: the toy's MODEL, patched or not."""
    given = {"model": model} if "model" in input_names(node) else {}
    return {**given, **GOOD_INPUTS[node](model)}


def lasting_inputs(node: str, model: Any, updates: int) -> dict[str, Any]:
    """Inputs of a node of `LASTING` with which its progress bar counts so many updates."""
    return {**good_inputs(node, model), **LASTING[node](updates)}


def pictures(count: int, size: int = 16, channels: int = 3) -> Tensor:
    return torch.rand(count, size, size, channels, generator=torch.Generator().manual_seed(0))


def half(size: int) -> Tensor:
    """A MASK, white on its left."""
    mask = torch.zeros(1, size, size)
    mask[..., : size // 2] = 1
    return mask


def masked(samples: Tensor) -> dict[str, Any]:
    return {"samples": samples, "noise_mask": torch.ones(1, 1, *samples.shape[-2:]), "batch_index": [0]}


@functools.cache
def toy_clip() -> Any:
    return run("LoadToyModel")[1]


@functools.cache
def lora_file() -> str:
    """The name of a file that Load LoRA Weights offers, in a folder that ends with the session."""
    folder = Path(folder_paths.get_output_directory()) / "good_loras"
    folder.mkdir()
    save_file(random_lora(0), folder / "good.safetensors")
    folder_paths.add_model_folder_path("loras", str(folder))
    return "good.safetensors"


def fit(model: Any) -> dict[str, Any]:
    settings = {"rank": 2, "steps": 1, "learning_rate": 1e-3, "seed": 0, "gradient_checkpointing": True}
    return {"latent": latent(size=(8, 8)), "positive": conditioning(), **settings}


def invert(model: Any) -> dict[str, Any]:
    settings = {"steps": 2, "scheduler": "ddim_uniform", "start_at_step": 0, "fixed_point_iterations": 1}
    settings["warm_start"] = True
    return {"positive": conditioning(), "latent_image": masked(normal(1, 4, 8, 8)), **settings}


def trajectory(model: Any, steps: int) -> Any:
    return run("DdimInvert", model=model, **{**invert(model), "steps": steps})[1]


def drag(model: Any) -> dict[str, Any]:
    return {
        **{"latent": masked(3 * normal(1, 4, 8, 8)), "positive": conditioning()},
        **{"image": torch.full((1, 32, 32, 4), 0.5), "mask": half(32)},
        **{"points": '[{"x": 8, "y": 8}, {"x": 24, "y": 24}]', "objective": "DragDiffusion"},
        **{"steps": 10, "scheduler": "ddim_uniform", "start_at_step": 3},
        "options": drag_options(iterations=1, gradient_checkpointing=True),
        "start": {"samples": 3 * normal(1, 4, 8, 8, seed=1)},
    }


def warp(model: Any) -> dict[str, Any]:
    return {
        **{"image": pictures(2, size=32, channels=4), "mask": half(32), "depth": pictures(1, size=32)},
        **{"points": '[{"x": 8, "y": 8}, {"x": 12, "y": 10}]', "latent": masked(normal(1, 4, 8, 8))},
        **{"field": "nearest", "radius": 0.25, "repaint": "all that moved, too", "rim": 1},
    }


def layouts(model: Any) -> dict[str, Any]:
    image = masked(normal(1, 4, 8, 8))
    return {
        **{"start": latent(0, size=(8, 8)), "end": latent(1, size=(8, 8)), "start_image": image, "end_image": image},
        **{"start_positive": conditioning(), "end_positive": conditioning(), "alphas": [*ALPHAS], "strength": 0.5},
        **{"start_picture": pictures(1, size=32, channels=4), "end_picture": pictures(1, size=32)},
    }


def matches() -> Matches:
    """MATCHES by which everything moves a little to the right."""
    affine = torch.tensor([[1, 0, 0.5], [0, 1, 0]], dtype=torch.float64)
    return Matches(affine, torch.zeros(8, 8, 2, dtype=torch.float64), torch.ones(8, 8), torch.ones(8, 8))


def ends() -> dict[str, Any]:
    """mask: of the pictures of these latents, 32 pixels high and 48 wide."""
    return {"start": latent(0), "end": latent(1), "alphas": [*ALPHAS], "mask": half(48)[:, :32]}


def keyframes() -> Any:
    """Of two pictures."""
    seeds = (0, 1)
    parts = {"positive": [conditioning(seed) for seed in seeds], "lora": [random_lora(seed) for seed in seeds]}
    return run("AddKeyframe", noise=[latent(seed) for seed in seeds], **parts)[0]


GOOD_INPUTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "FitImageLora": fit,
    "LoadLoraWeights": lambda model: {"lora_name": lora_file()},
    "DdimInvert": invert,
    "DirectInversion": lambda model: {
        "trajectory": trajectory(model, 2),
        "row": -1,
        "mask": torch.eye(32)[None],
        "all_rows": True,
    },
    "NullTextInversion": lambda model: {
        **{"trajectory": trajectory(model, 1), "negative": conditioning(5), "cfg": 2.0},
        **{"inner_steps": 1, "learning_rate": 0.01, "early_stop": 0.0, "budget": 0},
    },
    "PromptToPrompt": lambda model: {
        **{"clip": toy_clip(), "alignment": "refine", "cross_percent": 0.5, "self_percent": 0.5},
        **{"source_prompt": "a red cat", "edited_prompt": "a blue cat", "reweight": "blue: 2"},
        **{"blend_words": "red, blue", "blend_threshold": 0.5},
    },
    "EditGuider": lambda model: {
        **{"source_positive": conditioning(0), "target_positive": conditioning(1)},
        **{"source_negative": conditioning(2), "target_negative": conditioning(3)},
        **{"source_cfg": 1.5, "target_cfg": 3.5},
    },
    "FlowEditSampler": lambda model: {"strength": 0.7, "free_end": 0.2, "noises": 2},
    "UniEditSampler": lambda model: {"strength": 0.6, "omega": 5.0},
    "MatchLayouts": layouts,
    "SlerpLatents": lambda model: ends(),
    "LoraBlend": lambda model: {
        **{"start": random_lora(1), "end": random_lora(2, rank=6)},
        "alphas": torch.tensor(ALPHAS),
    },
    "AttentionKVInject": lambda model: {
        **{"alphas": [*ALPHAS], "strength": 0.5, "end_percent": 0.6, "blocks": "up blocks"},
        **{"frames_per_batch": 2, "mask": half(48)[:, :32]},
    },
    "AdaIN": lambda model: {
        **{**ends(), "frames": {**latent(2, rows=3), "batch_index": [0, 1, 2]}},
        "strength": 0.5,
    },
    "RescheduleAlphas": lambda model: {
        **{"images": pictures(3, channels=4), "alphas": [*ALPHAS]},
        **{"frames": 0, "metric": "laplacian pyramid", "method": "long steps"},
    },
    "EvenFrames": lambda model: {
        **{"images": pictures(3, channels=4), "alphas": [0.0, 0.2, 1.0], "first_pass": pictures(3)},
        **{"first_alphas": [*ALPHAS], "frames": 0, "metric": "laplacian pyramid"},
    },
    "MorphReport": lambda model: {
        **{"images": pictures(3, channels=4), "metric": "laplacian pyramid", "closed": True, "alphas": [*ALPHAS]},
        **{"first_pass": pictures(2), "start_image": pictures(1), "end_image": pictures(1, channels=4)},
    },
    "AlphaSchedule": lambda model: {"frames": 3, "easing": "linear"},
    "BlendConditioning": lambda model: {
        "start": conditioning(0, pooled_output=normal(1, 6), strength=0.5),
        "end": conditioning(1, pooled_output=normal(1, 6, seed=1), strength=0.5),
        "alphas": [*ALPHAS],
        **{"middle": conditioning(2, pooled_output=normal(1, 6, seed=2), strength=0.5), "middle_weight": 0.5},
    },
    "AddPicture": lambda model: {
        **{"image": [pictures(1, channels=4)], "prompt": ["a cat"]},
        **{"images": [pictures(1), pictures(1)], "prompts": ["a dog", "a bear"]},
    },
    "AddKeyframe": lambda model: {
        **{"noise": [latent(2)], "positive": [conditioning(2)], "lora": [random_lora(3)]},
        "keyframes": [keyframes()],
    },
    "SequenceSchedule": lambda model: {
        **{"keyframes": keyframes(), "frames": "3", "easings": "linear", "holds": "1, 0", "closed": True},
    },
    "SequenceFromValues": lambda model: {"keyframes": [keyframes()], "values": [[0.0, 0.7, 0.2]], "closed": [False]},
    "BlendKeyframes": lambda model: {
        **{"keyframes": keyframes(), "alphas": timeline(2, [3]), "adain": 1.0, "attention": 0.5},
        **{"end_percent": 0.6, "blocks": "up blocks", "frames_per_batch": 2},
    },
    "ArrangeFrames": lambda model: {"images": pictures(3, channels=4), "alphas": timeline(2, [3], holds=[1])},
    "DragLatentOptimize": drag,
    "DragOptions": lambda model: {
        **dict.fromkeys(input_names("DragOptions"), -1),
        **{"feature_block": "second to last up block", "gradient_checkpointing": False},
    },
    "DragWarp": warp,
    "LoadToyModel": lambda model: {"network": "transformer"},
    "ToyDrawing": lambda model: {
        **{"animal": "cat", "colour": "red", "mood": "happy", "background": "mint"},
        **{"seed": 0, "size": 64},
    },
}

# What to change in the good inputs for a number of updates, of the nodes that have a progress bar.
LASTING: dict[str, Callable[[int], dict[str, Any]]] = {
    "FitImageLora": lambda updates: {"steps": updates},
    "DdimInvert": lambda updates: {"steps": updates},
    "NullTextInversion": lambda updates: {"inner_steps": updates},
    "RescheduleAlphas": lambda updates: {
        **{"images": pictures(updates + 1, size=64), "alphas": torch.linspace(0, 1, updates + 1)},
        "metric": "lpips (alex)",  # of weights that the fixture `alexnet` puts where they are looked for
    },
    "MorphReport": lambda updates: {
        **{"images": pictures(updates + 1, size=64), "metric": "lpips (alex)", "closed": False},
        **{"alphas": None, "first_pass": None, "start_image": None, "end_image": None},
    },
    "DragLatentOptimize": lambda updates: {
        "options": drag_options(iterations=updates, gradient_checkpointing=True),
    },
}
