"""A batch of frames through the UNet in parts, for morphs of more frames than memory holds at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...morph_core.attention.end_frames import Ends
from ...morph_core.errors import InvalidInput
from ...morph_core.morphing.alphas import Alphas
from ...morph_core.morphing.timeline import Segment, Timeline
from ...morph_core.recipes.morph_frames import parted
from .named_errors import named

PART = "morph_drag_part"
"""In transformer_options while a part of the frames goes through the network: its `FramePart`."""


PARTS = "morph_drag_parts"  # the wrappers' key


@dataclass(frozen=True)
class FramePart:
    """Which of `total` frames the rows of a call are.

    Of 7 frames in parts of 2 it is frames 0 and 6 first, then 1 and 2, then 3 and 4, then 5. ends: which pictures they
    lie between, and what patches have computed of those in an earlier part; None where the first and last row are the
    ends. alphas: where the part itself decides them.
    """

    frames: Sequence[int]
    total: int
    ends: Ends | None = None
    alphas: Alphas | None = None


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
    if part.alphas is not None:
        return part.alphas
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

    node, advice = "Attention KV Inject", "frames_per_batch cannot part what {} the frames; set it to 0"

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
        with named(self.node):
            parts = [] if PART in options else self.parts(whole.total)
        if not parts:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **others)  # type: ignore[no-any-return]
        if len(parts) > 1:
            with named(self.node):
                _refuse_what_cannot_be_parted(options, self.advice)
        outputs: list[Tensor] = []
        order: list[int] = []  # the rows that the outputs are of
        for part in parts:
            rows = [first + frame for first in range(0, len(x), whole.total) for frame in part.frames]
            inputs = [_rows_of(value, rows, len(x)) for value in (x, t, c_concat, c_crossattn, control)]
            of_part = {**options, PART: part, **_animatediff_part(part.frames, whole.total)}
            outputs.append(executor(*inputs, of_part, **_rows_of(others, rows, len(x))))
            order += rows
            self.forget(part)
        return torch.cat(outputs)[torch.tensor(order).argsort()]

    def patch(self, model: Any) -> None:
        """Put it on a clone of a MODEL."""
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, PARTS, self)
        model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, PARTS, self.prepare)
        parts_first(model)

    def prepare(self, executor: Any, model: Any, noise_shape: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        """Wrapper around ComfyUI's `prepare_sampling`: room for one part is all that the model must leave."""
        with named(self.node):
            rows = min(noise_shape[0], self.largest(noise_shape[0]))
        return executor(model, [rows, *noise_shape[1:]], *args, **kwargs)

    def largest(self, total: int) -> int:
        """How many of so many frames the largest part has."""
        return max((len(part.frames) for part in self.parts(total)), default=total)

    def forget(self, part: FramePart) -> None:
        """What no part after this one needs."""

    def parts(self, total: int) -> list[FramePart]:
        """Of one call. Of what is computed in them the later ones find what they need in the same `Ends.made`."""
        if total <= max(2, self.size):
            return []
        made: dict[Any, Tensor] = {}
        ends = {0: 0, 1: 1}
        parts = parted(total, self.size, [0, total - 1])
        return [FramePart(rows, total, Ends(0, 1, ends if part == 0 else {}, made)) for part, rows in enumerate(parts)]


class InSegments(InParts):
    """The same of a sequence: segment by segment, each picture with the first segment that it ends."""

    node = "Blend Keyframes"
    advice = "segments go through the model one after the other, which cannot be with what {} the frames; leave it out"

    def __init__(self, timeline: Timeline, frames_per_batch: int) -> None:
        self.timeline, self.size = timeline, frames_per_batch

    def parts(self, total: int) -> list[FramePart]:
        """Raises `InvalidInput` when the batch is not what is to be sampled for the timeline."""
        if total != len(self.timeline.sampled):
            raise InvalidInput(
                f"the sequence has {len(self.timeline.sampled)} frames to sample but the sampled latent is a batch of "
                f"{total}; connect the LATENT or NOISE of the same Blend Keyframes"
            )
        made: dict[Any, Tensor] = {}
        seen: set[int] = set()
        parts: list[FramePart] = []
        for segment in self.timeline.segments:
            pictures = {number: alpha for number, alpha in segment.ends.items() if number not in seen}
            seen |= pictures.keys()
            parts += self._parts_of(segment, pictures, total, made)
        return parts

    def forget(self, part: FramePart) -> None:
        """Of the pictures before this segment; the first one is needed again where the sequence is closed."""
        if part.ends is not None:
            needed = (0, part.ends.start, part.ends.end)
            for key in [key for key in part.ends.made if key[1] not in needed]:
                del part.ends.made[key]

    def _parts_of(
        self, segment: Segment, pictures: dict[int, float], total: int, made: dict[Any, Tensor]
    ) -> list[FramePart]:
        """Of a segment with those of its pictures that no other had. pictures: number -> alpha."""
        row_of = self.timeline.picture_rows
        alphas = dict(zip(segment.rows, segment.alphas, strict=True)) | {row_of[n]: pictures[n] for n in pictures}
        rows = sorted(alphas, key=alphas.__getitem__)
        first = [place for place, row in enumerate(rows) if row not in segment.rows]
        found = []
        for places in parted(len(rows), self.size, first):
            part = [rows[place] for place in places]
            here = {number: part.index(row_of[number]) for number in pictures if row_of[number] in part}
            ends = Ends(segment.start, segment.end, here, made)
            found.append(FramePart(part, total, ends, tuple(alphas[row] for row in part)))
        return found


def _refuse_what_cannot_be_parted(options: dict[str, Any], advice: str) -> None:
    """Patches that add to the whole batch, or keep of it, what they would not find again in a part."""
    replacements = options.get("patches_replace", {}).get("attn1", {}).values()
    refused = {
        "GLIGEN adds to": options.get("patches", {}).get("middle_patch"),
        "Self-Attention Guidance keeps of": any(_is_of(patch, "SelfAttentionGuidance") for patch in replacements),
        "EasyCache keeps of": "easycache" in options.get("wrappers", {}).get(WrappersMP.DIFFUSION_MODEL, {}),
    }
    for what, is_there in refused.items():
        if is_there:
            raise InvalidInput(advice.format(what))


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
