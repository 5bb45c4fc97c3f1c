"""Fixtures of the tests of workflow files."""

import pytest

from morph_tests.comfy_host import ComfyHost
from morph_tests.workflows.schemas import Definitions


@pytest.fixture(scope="session")
def definitions(comfyui: ComfyHost) -> Definitions:
    """Every node's definition, from a real ComfyUI with this pack."""
    return comfyui.object_info()
