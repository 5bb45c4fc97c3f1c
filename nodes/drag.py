"""Drag Latent Optimize and its options: a point of an image moved to where it should be."""

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

import comfy.utils
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..morph_core.crop import CentreCrop, masked_crop, seen_by_vae
from ..morph_core.dragging.latent import PUBLISHED, DragLatent, DragResult, OnDrag, drag_latent, published
from ..morph_core.dragging.points import DragPoints, parse_points, points_in_crop
from ..morph_core.errors import InvalidInput
from ..morph_core.models.features import DEFAULT_BLOCK, FEATURE_BLOCKS, check_block, up_block_features
from ..morph_core.pictures.handle_tracks import as_image, draw_paths
from .host.adapters import CATEGORY, image_of_one, single_latent
from .host.backbone import check_latent, shadowed, unet_config
from .host.inputs import checked
from .host.noise import as_latent, noisy_latent
from .host.picker import shown_to_picker, without_points
from .host.prompt import Prompt, read_prompt
from .host.sigmas import SIGMA_KEY, check_noise_level, remaining_sigmas, schedule_inputs
from .host.versions import schema

OptionsType = io.Custom("DRAG_OPTIONS")
AS_PUBLISHED = -1
PREVIEW_SIDE = 512  # pixels


@dataclass(frozen=True)
class _Options:
    """DRAG_OPTIONS. numbers: fields of `DragLatent` that are not to be as published."""

    numbers: dict[str, float]
    block: str
    checkpointing: bool


class DragOptions(io.ComfyNode):
    """Every number of a drag."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragDragOptions",
            display_name="Drag Options",
            category=f"{CATEGORY}/drag",
            search_aliases=["drag", "DragDiffusion", "GoodDrag"],
            description=(
                "Settings for Drag Latent Optimize other than the published ones; -1 keeps what the chosen objective's "
                "authors published. Lengths are cells of the feature map, four to a latent cell: two pixels each "
                "for Stable Diffusion."
            ),
            inputs=[
                _number(io.Int, "iterations", "Updates of the latent at each noise level, at most.", 1000),
                _number(io.Float, "learning_rate", "Of Adam, on the latent.", 1.0, 0.001),
                _number(io.Int, "motion_radius", "r1: patches of (2r + 1)² cells are moved.", 64),
                _number(io.Float, "drag_distance", "How far ahead of the handle its patch is wanted.", 64.0, 0.5),
                _number(io.Int, "tracking_radius", "r2: the handle is looked for in (2r + 1)² cells.", 64),
                _number(io.Int, "drags_per_tracking", "Updates between two looks for the handle.", 100),
                _number(io.Int, "levels", "Noise levels to drag at, one sampling step apart.", 100),
                _number(io.Float, "mask_weight", "λ: what a change outside the mask costs.", 100.0, 0.05),
                _number(io.Float, "reach", "A handle this near to its target has arrived.", 64.0, 0.25),
                io.Combo.Input(
                    "feature_block", options=list(FEATURE_BLOCKS), tooltip="Whose features are moved and tracked."
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    tooltip="Computes the network twice to keep less of it in memory. Try it when memory runs out.",
                ),
            ],
            outputs=[OptionsType.Output("options", display_name="DRAG_OPTIONS", tooltip="For Drag Latent Optimize.")],
        )

    @classmethod
    @checked
    def execute(cls, feature_block: str, gradient_checkpointing: bool, **numbers: float) -> io.NodeOutput:
        changed = {name: value for name, value in numbers.items() if value != AS_PUBLISHED}
        check_block(feature_block)
        replace(DragLatent(), **changed)  # refuses what cannot be used
        return io.NodeOutput(_Options(changed, feature_block, gradient_checkpointing))


def _number(kind: Any, name: str, tooltip: str, most: float, step: float = 1) -> Any:
    """A number of `DragLatent` as an input; its tooltip tells the published values."""
    values = ", ".join(f"{getattr(published(objective), name):g} ({objective})" for objective in PUBLISHED)
    tooltip = f"{tooltip} Published: {values}."
    return kind.Input(name, default=AS_PUBLISHED, min=AS_PUBLISHED, max=most, step=step, tooltip=tooltip)


class DragLatentOptimize(io.ComfyNode):
    """DragDiffusion's latent optimisation, between DDIM Invert and KSampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragDragLatentOptimize",
            display_name="Drag Latent Optimize",
            category=f"{CATEGORY}/drag",
            search_aliases=["drag", "point", "DragDiffusion", "GoodDrag", "DragGAN", "move"],
            has_intermediate_output=True,  # its picture is shown again when it comes from the cache
            description=(
                "Changes an image's inverted latent until each handle you picked has moved to its target. Sample the "
                "result with KSampler (Advanced), from the step it returns, after Attention KV Inject."
            ),
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion UNet; with the image's LoRA, as DragDiffusion."),
                io.Conditioning.Input("positive", tooltip="A prompt that describes the image."),
                io.Latent.Input("latent", tooltip="The image, from DDIM Invert with the same start_at_step."),
                io.Image.Input("image", tooltip="The picture to pick points on: the one that was encoded."),
                io.String.Input(
                    "points",
                    default="",
                    multiline=True,
                    tooltip="Click a handle on the picture, then where it should go. As text: JSON, see the help page.",
                ),
                *schedule_inputs("DDIM Invert", start_at_step=15),
                io.Combo.Input(
                    "objective",
                    options=list(PUBLISHED),
                    tooltip="DragDiffusion drags at one noise level; GoodDrag drags and denoises by turns.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where the image may change; all black is as no mask."
                ),
                OptionsType.Input("options", optional=True, tooltip="From Drag Options; else as published."),
                io.Latent.Input(
                    "start",
                    optional=True,
                    tooltip="The same latent from Drag Warp, with the same points: the drag begins near its end.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "dragged", display_name="LATENT", tooltip="The original and the dragged latent, as one batch."
                ),
                io.Int.Output("next_step", display_name="start_at_step", tooltip="Where KSampler (Advanced) goes on."),
                io.Image.Output("paths", display_name="paths", tooltip="The track of each handle, on the picture."),
                io.String.Output(
                    "tracks",
                    display_name="tracks",
                    tooltip="Each handle's track in pixels, as JSON: [[{x, y}, ...], ...].",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        positive: list[Any],
        latent: dict[str, Any],
        image: Tensor,
        points: str,
        steps: int,
        scheduler: str,
        start_at_step: int,
        objective: str,
        mask: Tensor | None = None,
        options: dict[str, Any] | None = None,
        start: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        picture = image_of_one(image, "image")
        shown = shown_to_picker(picture[None], cls)
        if nothing := without_points(points, "Drag Latent Optimize", 4, shown):
            return nothing
        unet_config(model, ", or use Drag Warp, which asks no model")  # whose features it follows
        samples = single_latent(latent, "latent")
        check_latent(model, samples, "latent")
        prompt = read_prompt(model, positive, "positive", samples)
        size = (picture.shape[1], picture.shape[0])
        crop = seen_by_vae(size, (samples.shape[3], samples.shape[2]))
        pairs = points_in_crop(parse_points(points, size), crop)
        sigmas = remaining_sigmas(model, scheduler, steps, start_at_step)
        check_noise_level(model, latent, sigmas[0], start_at_step)
        ahead = None if start is None else _check_start(model, start, samples, sigmas[0], start_at_step)
        settings = _check_options(options)
        config = replace(published(objective), **settings.numbers)
        watch = _Watch(picture, crop, pairs)
        result, rows = _optimise(
            model, samples, prompt, sigmas, pairs, config, _masked(mask, crop), settings, watch, ahead
        )
        _tell(result)
        batch = {**latent, "samples": rows, SIGMA_KEY: sigmas[result.level].item()}
        if "batch_index" in latent:
            batch["batch_index"] = 2 * list(latent["batch_index"])
        tracks = crop.pixels(result.tracks.cpu())
        return io.NodeOutput(
            batch, start_at_step + result.level, as_image(watch.draw(tracks)), _as_json(tracks), ui=shown
        )


def _tell(result: DragResult) -> None:
    """Say in the log whether the handles arrived."""
    left = ", ".join(f"{distance:.1f}" for distance in result.remaining.tolist())
    logging.info(f"Drag Latent Optimize: {len(result.losses)} updates; cells left to the targets: {left}")


def _check_start(model: Any, start: dict[str, Any], samples: Tensor, sigma: Tensor, start_at_step: int) -> Tensor:
    """The samples of a start, which must be of the latent's size and noise level."""
    ahead = single_latent(start, "start")
    if ahead.shape != samples.shape:
        raise InvalidInput(
            f"start is of shape {tuple(ahead.shape)}, latent of {tuple(samples.shape)}; connect Drag Warp's LATENT of "
            "the same latent"
        )
    check_noise_level(model, start, sigma, start_at_step, "start")
    return ahead


def _check_options(options: Any) -> _Options:
    if options is None:
        return _Options({}, DEFAULT_BLOCK, False)
    if not isinstance(options, _Options):
        raise InvalidInput(f"options must come from Drag Options, got {type(options).__name__}")
    return options


def _optimise(
    model: Any,
    samples: Tensor,
    prompt: Prompt,
    sigmas: Tensor,
    points: DragPoints,
    config: DragLatent,
    mask: Tensor | None,
    options: _Options,
    watch: OnDrag,
    ahead: Tensor | None,
) -> tuple[DragResult, Tensor]:
    """The drag, and its two rows as a LATENT's samples."""

    def noisy(latent: Tensor) -> Tensor:
        return noisy_latent(model, latent.clone(), sigmas[0].clone()).to(backbone.device, torch.float32)

    with shadowed(model) as backbone:
        if options.checkpointing:
            backbone.enable_gradient_checkpointing()
        denoise = backbone.denoiser(prompt.to(backbone.device))
        result = drag_latent(
            up_block_features(backbone.up_blocks(), denoise, options.block),
            backbone.schedule,
            noisy(samples),
            sigmas.clone().to(backbone.device),
            points,
            config,
            None if mask is None else mask.clone().to(backbone.device),
            watch,
            None if ahead is None else noisy(ahead),
        )
        rows = as_latent(model, torch.cat([result.original, result.dragged]), sigmas[result.level].clone())
        assert rows is not None  # only at sigma 1, where no LATENT can have come from
    return result, rows.to(samples)


class _Watch:
    """`on_drag` that moves the progress bar and shows the handles where they are; raises on Cancel."""

    def __init__(self, picture: Tensor, crop: CentreCrop, points: DragPoints) -> None:
        self.picture, self.crop, self.targets = picture, crop, crop.pixels(points.targets)
        self.tracks: list[Tensor] = []
        self.bar: Any = None
        self.scale = min(1.0, PREVIEW_SIDE / max(picture.shape[:2]))
        size = [max(1, round(side * self.scale)) for side in picture.shape[:2]]
        self.small = interpolate(picture.movedim(-1, 0)[None], size, mode="area")[0].movedim(0, -1)

    def __call__(self, done: int, total: int, handles: Tensor) -> None:
        self.bar = self.bar or comfy.utils.ProgressBar(total)
        self.tracks.append(self.crop.pixels(handles.cpu()))
        throw_exception_if_processing_interrupted()
        now = draw_paths(self.small, torch.stack(self.tracks) * self.scale, self.targets * self.scale)
        self.bar.update_absolute(done, total, ("JPEG", now, PREVIEW_SIDE))

    def draw(self, tracks: Tensor) -> Image:
        """The picture with the tracks (I, N, 2) so far, in pixels."""
        return draw_paths(self.picture, tracks, self.targets)


def _masked(mask: Tensor | None, crop: CentreCrop) -> Tensor | None:
    """A MASK as the core takes it. Load Image gives a small black one when there is none."""
    return None if mask is None else masked_crop(mask, crop)


def _as_json(tracks: Tensor) -> str:
    """(I, N, 2) as one list of places a handle."""
    handles = [[{"x": round(x, 2), "y": round(y, 2)} for x, y in track] for track in tracks.movedim(1, 0).tolist()]
    return json.dumps(handles)
