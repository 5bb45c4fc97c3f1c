"""Any number of images to one sequence of frames, open or closed, with the frames wherever a timeline has them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..models.latent_diffusion import LatentDiffusion
from ..morphing.alphas import Alphas, alpha_schedule, path_at
from ..morphing.perceptual import perceptual_distances
from ..morphing.timeline import Timeline
from .image import PreparedImage, prepare_image
from .keyframe import Frame, Keyframe, keyframes_of
from .morph_frames import MorphFrames
from .morph_settings import Morph
from .search import searched_alphas
from .stages import OnStage


@dataclass(frozen=True)
class SequenceResult:
    """frames: (F, 3, H, W) in 0..1, as shown. latents: (F, C, h, w). timeline: of both, rescheduled or as given."""

    frames: Tensor
    latents: Tensor
    timeline: Timeline


def sequence(
    model: LatentDiffusion,
    images: Sequence[Tensor],
    captions: Sequence[str],
    timeline: Timeline,
    config: Morph | None = None,
    on_stage: OnStage | None = None,
) -> SequenceResult:
    """Morph each image into the next, see `sequence_prepared`.

    images: one of (1, 3, H, W) in 0..1 for each picture of the timeline, all of one size. captions: what each shows.
    """
    config = config or Morph()
    perceptual_distances(torch.zeros(2, 3, 64, 64), config.metric)  # fails before the work, not after it
    if not len(images) == len(captions) == timeline.pictures:
        raise InvalidInput(
            f"the timeline is of {timeline.pictures} pictures, got {len(images)} images and {len(captions)} captions"
        )
    if any(image.shape != images[0].shape or len(image) != 1 for image in images):
        shapes = ", ".join(str(tuple(image.shape)) for image in images)
        raise InvalidInput(f"a sequence takes images of the same shape (1, 3, H, W), got {shapes}")
    prepared = [
        prepare_image(model, image, caption, config.lora, on_stage)
        for image, caption in zip(images, captions, strict=True)
    ]
    return sequence_prepared(model, prepared, timeline, config, on_stage)


@torch.no_grad()
def sequence_prepared(
    model: LatentDiffusion,
    images: Sequence[PreparedImage],
    timeline: Timeline,
    config: Morph,
    on_stage: OnStage | None = None,
) -> SequenceResult:
    """The sequence of prepared images, segment by segment; each image is inverted once, each frame sampled once.

    With `config.reschedule` each segment is measured by a first pass of `config.frames` at even alphas, and a position
    then says how much of its segment's path a frame has gone. `rescheduling="search"` is for segments of even
    positions; others are measured as by "path". The config's attention, LoRAs, AdaIN and exact ends act between the two
    pictures of a segment.
    """
    keyframes = keyframes_of(model, images, config, on_stage)
    shown: dict[float, Frame] = {}
    placed: dict[float, float] = {}
    for segment in timeline.segments:
        start, end = keyframes[segment.start], keyframes[segment.end]
        frames = MorphFrames(model, start, end, config, on_stage)
        alphas = segment.alphas
        if config.reschedule and alphas:
            alphas = _rescheduled(frames, segment.alphas, config)
        found = frames.at((0.0, *alphas, 1.0) if alphas else (0.0,))
        shown[float(segment.start)], shown[float(segment.end)] = found[0], found[-1]
        for place, alpha, frame in zip(segment.alphas, alphas, found[1:-1], strict=True):
            shown[segment.start + place] = frame
            placed[segment.start + place] = segment.start + alpha
        _forget(keyframes, segment.start)
    in_order = [shown[position] for position in timeline.positions]
    positions = tuple(placed.get(position, position) for position in timeline.positions)
    latents, pictures = (torch.cat([getattr(frame, name) for frame in in_order]) for name in ("latent", "picture"))
    return SequenceResult(pictures, latents, Timeline(positions, timeline.pictures))


def _rescheduled(frames: MorphFrames, places: Alphas, config: Morph) -> Alphas:
    """The alphas at which these shares of a segment's path have been gone."""
    if config.rescheduling == "search" and np.allclose(places, alpha_schedule(len(places) + 2)[1:-1]):
        return searched_alphas(frames, len(places) + 2, config.metric)[1:-1]
    even = alpha_schedule(config.frames)
    measured = frames.at(even, config.first_pass_stride)
    distances = perceptual_distances(torch.cat([frame.picture for frame in measured]), config.metric)
    alpha_at = path_at(even, distances.tolist())
    return tuple(alpha_at(place) for place in places)


def _forget(keyframes: Sequence[Keyframe], number: int) -> None:
    """What a picture's attention was made of, once no segment needs it; a closed sequence's last needs the first's."""
    if number:
        keyframes[number].contexts.clear()
