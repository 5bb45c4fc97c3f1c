"""What Drag Latent Optimize shows its point picker, with and without points, and in a running ComfyUI."""

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_tests.comfy_host import ComfyHost, Prompt, RunFailed
from morph_tests.nodes.dragging import (
    KV_INJECT,
    NOSE,
    NUMBERS,
    SIZE,
    SPACING,
    STEPS,
    as_text,
    assert_close,
    drag_inputs,
    invert,
)


@pytest.fixture(scope="module")
def inverted(model: Any) -> dict[str, Any]:
    return invert(model)


def node_output(inputs: dict[str, Any]) -> Any:
    """What ComfyUI gets from the node, with what is for the front end."""
    cls = NODE_CLASS_MAPPINGS["MorphDragDragLatentOptimize"].PREPARE_CLASS_CLONE({})
    with torch.inference_mode():
        return cls.EXECUTE_NORMALIZED(**inputs)


def shown_picture(output: Any) -> Tensor:
    """The picture for the picker, (H, W, 3) in 0..1."""
    import folder_paths

    (file,) = output.ui["picker_image"]
    path = Path(folder_paths.get_directory_by_type(file["type"])) / file["subfolder"] / file["filename"]
    with Image.open(path) as picture:
        return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


@pytest.mark.parametrize("points", ["", " \n\t"])
def test_without_points_it_shows_the_picture_and_nothing_runs_after_it(model: Any, inverted: Any, points: str) -> None:
    """The picker needs the picture to pick points on, so this is no exception."""
    picture = torch.rand(1, SIZE[1], SIZE[0], 3, generator=torch.Generator().manual_seed(0))
    output = node_output(drag_inputs(model, inverted, image=picture, points=points))
    assert output.block_execution.startswith("Drag Latent Optimize: points is empty")
    assert output.result == (None,) * 4
    assert_close(shown_picture(output), picture[0], 1 / 255)


def test_with_points_it_shows_the_picture_too(model: Any, inverted: Any) -> None:
    output = node_output(drag_inputs(model, inverted))
    assert output.block_execution is None
    assert shown_picture(output).shape == (SIZE[1], SIZE[0], 3)


def prompt(points: str) -> Prompt:
    """The whole way from a toy drawing to two pictures."""
    model, text = ["model", 0], ["text", 0]
    look = {"animal": "cat", "colour": "red", "mood": "happy", "background": "mint", "seed": 1}
    numbers = {**dict.fromkeys(NUMBERS, -1), "iterations": 2, "gradient_checkpointing": False}
    sampling = {"sampler_name": "ddim", "scheduler": "ddim_uniform", "cfg": 1.0, "noise_seed": 0, "steps": STEPS}
    sampling |= {"add_noise": "disable", "return_with_leftover_noise": "disable", "end_at_step": 1000}
    sampling |= {"start_at_step": ["drag", 1], "latent_image": ["drag", 0], "negative": text}
    drag_links = {"latent": ["invert", 0], "image": ["drawing", 0], "options": ["options", 0]}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "model": ("MorphDragLoadToyModel", {}),
        "drawing": ("MorphDragToyDrawing", look),
        "text": ("CLIPTextEncode", {"clip": ["model", 1], "text": ["drawing", 1]}),
        "encode": ("VAEEncode", {"pixels": ["drawing", 0], "vae": ["model", 2]}),
        "invert": ("MorphDragDdimInvert", {"model": model, "positive": text, "latent_image": ["encode", 0], **SPACING}),
        "options": ("MorphDragDragOptions", {**numbers, "feature_block": "second to last up block"}),
        "drag": ("MorphDragDragLatentOptimize", {"model": model, "positive": text, **drag_links, **SPACING}),
        "inject": ("MorphDragAttentionKVInject", {"model": model, **KV_INJECT}),
        "sample": ("KSamplerAdvanced", {"model": ["inject", 0], "positive": text, **sampling}),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["model", 2]}),
        "pictures": ("PreviewImage", {"images": ["decode", 0]}),
        "paths": ("PreviewImage", {"images": ["drag", 2]}),
    }
    kinds["drag"][1].update(points=points, objective="DragDiffusion")
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in kinds.items()}


def errors_of(host: ComfyHost, prompt: Prompt) -> tuple[str, list[str]]:
    """A prompt's id, and the execution errors that the client who queued it is told."""
    import websocket

    client, errors = uuid.uuid4().hex, []
    socket = websocket.create_connection(f"{host.url.replace('http', 'ws', 1)}/ws?clientId={client}", timeout=60)
    prompt_id = host.post("/prompt", {"prompt": prompt, "client_id": client})["prompt_id"]
    kind = ""
    while kind != "execution_success":
        frame = socket.recv()
        if isinstance(frame, str):
            kind, data = (json.loads(frame)[key] for key in ("type", "data"))
            errors += [data["exception_message"]] if kind == "execution_error" else []
    socket.close()
    return prompt_id, errors


@pytest.mark.slow
class TestInComfyUI:
    def test_without_points_the_user_is_told_and_the_picker_gets_its_picture(self, comfyui: ComfyHost) -> None:
        prompt_id, errors = errors_of(comfyui, prompt(""))
        assert errors and all("Drag Latent Optimize: points is empty" in error for error in errors)
        outputs = comfyui.get(f"/history/{prompt_id}")[prompt_id]["outputs"]
        (file,) = outputs["drag"]["picker_image"]
        with Image.open(comfyui.temp_folder / file["subfolder"] / file["filename"]) as picture:
            assert picture.size == (64, 64)
        assert "pictures" not in outputs and "paths" not in outputs

    def test_with_points_it_runs_once_and_is_cached_then(self, comfyui: ComfyHost) -> None:
        with_points = prompt(as_text([(NOSE, (40, 40))]))
        first = comfyui.wait(comfyui.queue(with_points))
        assert first.was_executed("drag") and first.was_executed("sample")
        assert len(first.entry["outputs"]["pictures"]["images"]) == 2
        assert len(first.entry["outputs"]["drag"]["picker_image"]) == 1
        second = comfyui.wait(comfyui.queue(with_points))
        assert second.was_cached("drag") and not second.executed

    def test_an_error_names_the_node_and_the_input(self, comfyui: ComfyHost) -> None:
        with pytest.raises(RunFailed, match="Node drag .*Drag Latent Optimize: points has .* odd number"):
            comfyui.wait(comfyui.queue(prompt('[{"x": 1, "y": 1}]')))
