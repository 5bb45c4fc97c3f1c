"""A batch of frames through the UNet in parts, for morphs of more frames than memory holds at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...morph_core.errors import InvalidInput
from ...morph_core.morphing.alphas import Alphas
from .named_errors import named

PART = "morph_drag_part"
"""In transformer_options while a part of the frames goes through the network: its `FramePart`."""


PARTS = "morph_drag_parts"  # the wrappers' key


@dataclass(frozen=True)
class FramePart:
    """Which of `total` frames the rows of a call are.

    Of 7 frames in parts of 2 it is frames 0 and 6 first, then 1 and 2, then 3 and 4, then 5. of_ends: what a patch has
    computed of frames 0 and 6, for the parts after them.
    """

    frames: Sequence[int]
    total: int
    of_ends: dict[Any, Tensor] = field(default_factory=dict)


def current_frames(rows: int, options: dict[str, Any]) -> FramePart:
    """The frames of a call with so many rows: the current part's, or all.

    ComfyUI may evaluate k prompts in one batch, which then repeats the frames k times: 7 frames are 14 rows.
    """
    part: FramePart | None = options.get(PART)
    frames = rows // len(options["cond_or_uncond"])
    return part or FramePart(range(frames), frames)


def current_alphas(rows: int, options: dict[str, Any], alphas: Alphas) -> Alphas:
    """The weights of the frames of a call. Raises `InvalidInput` when alphas is for another number of frames."""
    part = current_frames(rows, options)
    if part.total != len(alphas):
        raise InvalidInput(
            f"alphas is for {len(alphas)} frames but the sampled latent is a batch of {part.total}; "
            "sample as many frames as there are alphas, for example those of Slerp Latents"
        )
    return tuple(alphas[frame] for frame in part.frames)


def parts_first(model: Any) -> None:
    """Let a MODEL's frames be parted outside of every other wrapper around the network, whatever the nodes' order."""
    wrappers = model.wrappers.get(WrappersMP.APPLY_MODEL, {})
    if PARTS in wrappers:
        model.wrappers[WrappersMP.APPLY_MODEL] = {PARTS: wrappers[PARTS], **wrappers}


class InParts:
    """Wrapper around ComfyUI's `apply_model`: the first and last frame, then so many of the others at a time."""

    def __init__(self, frames_per_batch: int) -> None:
        if frames_per_batch < 1:
            raise InvalidInput(f"frames_per_batch must be at least 1 to part the frames, got {frames_per_batch}")
        self.size = frames_per_batch

    def __call__(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **others: Any,
    ) -> Tensor:
        options = transformer_options or {}
        whole = current_frames(len(x), options)
        if PART in options or whole.total <= max(2, self.size):
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **others)  # type: ignore[no-any-return]
        with named("Attention KV Inject"):
            _refuse_what_cannot_be_parted(options)
        outputs: list[Tensor] = []
        order: list[int] = []  # the rows that the outputs are of
        of_ends: dict[Any, Tensor] = {}
        for frames in self._parts(whole.total):
            rows = [first + frame for first in range(0, len(x), whole.total) for frame in frames]
            inputs = [_rows_of(value, rows, len(x)) for value in (x, t, c_concat, c_crossattn, control)]
            part = {**options, PART: FramePart(frames, whole.total, of_ends), **_animatediff_part(frames, whole.total)}
            outputs.append(executor(*inputs, part, **_rows_of(others, rows, len(x))))
            order += rows
        return torch.cat(outputs)[torch.tensor(order).argsort()]

    def prepare(self, executor: Any, model: Any, noise_shape: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        """Wrapper around ComfyUI's `prepare_sampling`: room for one part is all that the model must leave."""
        rows = min(noise_shape[0], max(2, self.size))
        return executor(model, [rows, *noise_shape[1:]], *args, **kwargs)

    def _parts(self, total: int) -> Iterator[Sequence[int]]:
        yield (0, total - 1)
        inner = range(1, total - 1)
        for first in range(0, len(inner), self.size):
            yield inner[first : first + self.size]


def _refuse_what_cannot_be_parted(options: dict[str, Any]) -> None:
    """Patches that add to the whole batch, or keep of it, what they would not find again in a part."""
    replacements = options.get("patches_replace", {}).get("attn1", {}).values()
    refused = {
        "GLIGEN adds to": options.get("patches", {}).get("middle_patch"),
        "Self-Attention Guidance keeps of": any(_is_of(patch, "SelfAttentionGuidance") for patch in replacements),
        "EasyCache keeps of": "easycache" in options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {}),
    }
    for what, is_there in refused.items():
        if is_there:
            raise InvalidInput(f"frames_per_batch cannot part what {what} the frames; set it to 0")


def _is_of(patch: Any, node: str) -> bool:
    """Whether a patch is a function that was made in this class of a node."""
    return getattr(patch, "__qualname__", "").startswith(f"{node}.")


def _animatediff_part(frames: Sequence[int], total: int) -> dict[str, Any]:
    """The current frames as AnimateDiff names them: patches with one item a frame (IPAdapter's) look here."""
    return {"ad_params": {"sub_idxs": list(frames), "full_length": total}}


def _rows_of(value: Any, rows: list[int], count: int) -> Any:
    """The rows of every tensor in it that has `count` of them; what has one for all stays as it is."""
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and len(value) == count else value
    if isinstance(value, dict):
        return {key: _rows_of(item, rows, count) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_rows_of(item, rows, count) for item in value)
    return value
