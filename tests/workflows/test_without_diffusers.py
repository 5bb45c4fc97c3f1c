"""Nodes that optimise, in a running ComfyUI where importing diffusers, or what it pulls in, is an error."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from morph_tests.comfy_host import ComfyHost, running_comfyui, why_comfyui_cannot_run
from morph_tests.promises import absent

pytestmark = pytest.mark.slow
FORBIDDEN = ("diffusers", "peft", "lpips")
SPACING = {"steps": 10, "scheduler": "ddim_uniform", "start_at_step": 4}


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ComfyHost]:
    if reason := why_comfyui_cannot_run():
        absent("comfyui", reason)
    for package in FORBIDDEN:
        (tmp_path / "forbidden" / package).mkdir(parents=True)
        code = f"raise AssertionError('{package} was imported')"
        (tmp_path / "forbidden" / package / "__init__.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "forbidden"))
    with running_comfyui(tmp_path) as host:
        yield host


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def test_nodes_that_optimise_import_nothing_heavy(comfyui: ComfyHost) -> None:
    drawing = {"animal": "cat", "colour": "red", "mood": "happy", "background": "mint", "seed": 0}
    fit = {"rank": 2, "steps": 2, "learning_rate": 0.001, "seed": 0}
    done = comfyui.wait(
        comfyui.queue(
            {
                "toy": node("MorphDragLoadToyModel"),
                "drawing": node("MorphDragToyDrawing", **drawing),
                "text": node("CLIPTextEncode", clip=["toy", 1], text=["drawing", 1]),
                "image": node("VAEEncode", pixels=["drawing", 0], vae=["toy", 2]),
                "lora": node(
                    "MorphDragFitImageLora", model=["toy", 0], latent=["image", 0], positive=["text", 0], **fit
                ),
                "knowing": node(
                    "LoraModelLoader", model=["toy", 0], lora=["lora", 0], strength_model=1.0, bypass=False
                ),
                "noise": node(
                    "MorphDragDdimInvert",
                    **{"model": ["knowing", 0], "positive": ["text", 0], "latent_image": ["image", 0], **SPACING},
                ),
                "drag": node(
                    "MorphDragDragLatentOptimize",
                    **{"model": ["knowing", 0], "positive": ["text", 0], "latent": ["noise", 0]},
                    **{"image": ["drawing", 0], "points": '[{"x": 30, "y": 30}, {"x": 40, "y": 30}]'},
                    **{"objective": "DragDiffusion", **SPACING},
                ),
                "null": node(
                    "MorphDragNullTextInversion",
                    **{"model": ["knowing", 0], "trajectory": ["noise", 1], "negative": ["text", 0], "cfg": 3.0},
                    **{"inner_steps": 1, "learning_rate": 0.01, "early_stop": 1e-5, "budget": 2},
                ),
                "decoded": node("VAEDecode", samples=["drag", 0], vae=["toy", 2]),
                "saved": node("SaveImage", images=["decoded", 0], filename_prefix="drag"),
                "sampled": node(
                    "KSampler",
                    **{"model": ["toy", 0], "positive": ["text", 0], "negative": ["null", 0]},
                    **{"latent_image": ["noise", 0], "seed": 0, "steps": 2, "cfg": 3.0, "sampler_name": "ddim"},
                    **{"scheduler": "ddim_uniform", "denoise": 1.0},
                ),
                "sampled saved": node("SaveLatent", samples=["sampled", 0], filename_prefix="sampled"),
            }
        )
    )
    assert {"lora", "drag", "null"} <= done.executed and len(done.files) >= 2
    assert "was imported" not in comfyui.log_text()
