"""Without the packages of requirements.txt: the node that needs one says so under its name, the others work."""

import importlib.metadata
import sys
from typing import Any

import pytest
import torch

from morph_pack.morph_core.errors import MissingPackage
from morph_tests.nodes.graph import conditioning, latent, run

PICTURES = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
FIT = {"rank": 2, "steps": 1, "learning_rate": 1e-3, "seed": 0}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a package as absent as one that was never installed."""
    real = importlib.metadata.version

    def remove(package: str) -> None:
        def version(name: str) -> str:
            if name == package:
                raise importlib.metadata.PackageNotFoundError(name)
            return real(name)

        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr(importlib.metadata, "version", version)

    return remove


def test_without_diffusers_the_nodes_that_need_it_say_so_and_the_others_work(model: Any, without: Any) -> None:
    without("diffusers")
    inputs = {"model": model, "latent": latent(size=(8, 8)), "positive": conditioning(), **FIT}
    with pytest.raises(
        MissingPackage, match=r"^Fit Image LoRA: diffusers is not installed\. Install it with: .*pip inst"
    ):
        run("FitImageLora", **inputs)
    assert run("LoadToyModel")
    (alphas,) = run("AlphaSchedule", frames=3, easing="linear")[:1]
    (frames,) = run("SlerpLatents", start=latent(0), end=latent(1), alphas=alphas)
    assert len(frames["samples"]) == 3
    (blend,) = run("BlendConditioning", start=conditioning(0), end=conditioning(1), alphas=alphas)
    (injected,) = run(
        "AttentionKVInject", model=model, alphas=alphas, strength=1.0, end_percent=1.0, blocks="all blocks"
    )
    assert blend and injected
    settings = {"steps": 2, "scheduler": "ddim_uniform", "start_at_step": 0}
    assert run("DdimInvert", model=model, latent_image=latent(size=(8, 8)), positive=conditioning(), **settings)


def test_without_lpips_the_other_metric_works(without: Any) -> None:
    without("lpips")
    inputs = {"images": PICTURES, "alphas": (0.0, 0.5, 1.0), "frames": 0}
    with pytest.raises(MissingPackage, match=r"^Reschedule Alphas: lpips is not installed\."):
        run("RescheduleAlphas", metric="lpips (alex)", **inputs)
    assert run("RescheduleAlphas", metric="laplacian pyramid", **inputs)
