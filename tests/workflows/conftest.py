"""Fixtures of the tests of workflow files."""

import pytest

from morph_tests.comfy_host import running_comfyui, why_comfyui_cannot_run
from morph_tests.workflows.schemas import Definitions


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Definitions:
    """Every node's definition, from a real ComfyUI with this pack."""
    if reason := why_comfyui_cannot_run():
        pytest.skip(reason)
    with running_comfyui(tmp_path_factory.mktemp("workflows")) as host:
        return host.object_info()
