"""LoRA Blend's patch: of each frame's two pictures, the frame's own share of both LoRAs."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import nn

from ...morph_core.errors import InvalidInput
from ...morph_core.lora.blend import StackedLoras
from ...morph_core.lora.low_rank import LowRank
from ...morph_core.morphing.alphas import Alphas
from .frame_batches import current_alphas, current_frames, parts_first
from .named_errors import named

KEY = "morph_drag_lora_blend"  # of the wrappers
TRANSFORMER_OPTIONS = 5  # its place among the arguments of ComfyUI's `apply_model`


class BlendedLoras:
    """Wrappers around a run of a sampler and one call of the network, which not every family has one of its own for.

    node: for errors. loras: of each picture, by the path of a layer; of a morph they are two. alphas: of the frames.
    """

    def __init__(self, node: str, loras: Sequence[dict[str, LowRank]], alphas: Alphas) -> None:
        self.node, self.loras, self.alphas = node, loras, alphas
        self.stacked: dict[Any, StackedLoras] | None = None  # of the run that is under way

    def patch(self, model: Any) -> None:
        """Put both on a clone of a MODEL."""
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.run)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self.call)
        parts_first(model)

    def run(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """What is stacked for a run, on the device that computes, goes with it."""
        self.stacked = {}
        try:
            return executor(*args, **kwargs)
        finally:
            self.stacked = None

    def call(self, executor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        options: dict[str, Any] = kwargs.get("transformer_options") or args[TRANSFORMER_OPTIONS]
        with named(self.node):
            rows = len(args[0])
            alphas = current_alphas(rows, options, self.alphas)
            ends = current_frames(rows, options).ends
            pair = (0, 1) if ends is None else (ends.start, ends.end)
            with self._stacked(executor.class_obj.diffusion_model, pair).applied(alphas, rows):
                return executor(*args, **kwargs)  # type: ignore[no-any-return]

    def _stacked(self, network: nn.Module, pair: tuple[int, int]) -> StackedLoras:
        stacked = {} if self.stacked is None else self.stacked  # a network may be called without a sampler
        if (network, pair) not in stacked:
            if max(pair) >= len(self.loras):
                raise InvalidInput("the MODEL has Blend Keyframes, which blends LoRAs itself; use one of the two")
            start, end = (_located(network, self.loras[number]) for number in pair)
            stacked[network, pair] = StackedLoras(start, end)
        return stacked[network, pair]


def _located(network: nn.Module, layers: dict[str, LowRank]) -> dict[nn.Module, LowRank]:
    return {network.get_submodule(path): update for path, update in layers.items()}
