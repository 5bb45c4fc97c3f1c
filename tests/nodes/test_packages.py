"""Without the packages of requirements.txt: the node that needs one says so under its name, the others work."""

import importlib.metadata
import sys
from typing import Any

import pytest
import torch

from morph_pack.morph_core.errors import MissingPackage
from morph_tests.nodes.graph import run

PICTURES = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))


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


def test_without_lpips_the_other_metric_works(without: Any) -> None:
    without("lpips")
    inputs = {"images": PICTURES, "alphas": (0.0, 0.5, 1.0), "frames": 0}
    with pytest.raises(MissingPackage, match=r"^Reschedule Alphas: lpips is not installed\."):
        run("RescheduleAlphas", metric="lpips (alex)", **inputs)
    assert run("RescheduleAlphas", metric="laplacian pyramid", **inputs)
