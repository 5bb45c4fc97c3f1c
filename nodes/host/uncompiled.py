"""Patches that a compiled network would not see: while they act it runs as it was before torch.compile.

Compiled code is kept for later calls as long as what it was made from has not changed. PyTorch does not look at the
hooks of a layer for that, nor, in TorchCompileModel of newer ComfyUI versions, at the patches of a MODEL: a network
that ran once without a patch would then run without it for good.
"""

import logging
import sys
import threading
from contextlib import ExitStack
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ...morph_core.errors import InvalidInput
from .named_errors import named


def run_uncompiled(patched: Any, node: str) -> None:
    """Let this MODEL run uncompiled, wherever TorchCompileModel stands in the graph. node: display name."""
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "morph_drag_uncompiled", _Uncompiled(node))


class _Uncompiled:
    """Wrapper around ComfyUI's `apply_model`, which calls the network, compiled or not."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.has_said_so = False

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:  # nothing was compiled yet; importing it takes seconds
            return executor(*args, **kwargs)
        self._say_so(args, kwargs)
        with EAGER:
            return executor(*args, **kwargs)

    def _say_so(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        options = kwargs.get("transformer_options") or args[5]
        if self.has_said_so or COMPILE_KEY not in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):
            return
        with named(self.node):
            if not hasattr(torch.compiler, "set_stance"):
                raise InvalidInput(
                    f"a compiled model needs PyTorch 2.6 or newer here, this is {torch.__version__}; "
                    "update it or leave out TorchCompileModel"
                )
        logging.warning(f"{self.node}: the model runs uncompiled, because a compiled one does not see this patch")
        self.has_said_so = True


class _Eager:
    """Within this context compiled code runs as it was written. Several threads may be inside: one for each GPU."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stance = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside and hasattr(torch.compiler, "set_stance"):
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stance.close()


EAGER = _Eager()
