"""An inversion's trajectory as a value between nodes, and Direct Inversion, which holds rows of a batch to it."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from ..morph_core.errors import InvalidInput
from ..morph_core.sampling.trajectory import Trajectory, x0_leading_to
from .adapters import CATEGORY
from .inputs import checked
from .named_errors import named
from .predictions import PUT_BACK, step_under_way, wrap_prediction
from .versions import schema

TrajectoryType = io.Custom("INVERSION_TRAJECTORY")
NODE = "Direct Inversion"
LEAD_ASTRAY = "morph_drag_lead_astray"
"""In transformer_options during a sampling run: what to say of a row that is not on its trajectory."""
EULER = "euler"  # ComfyUI's ddim is this function too
LOST = 1e-3  # of a latent of unit variance: a row this far from its trajectory was not brought there by ddim


@dataclass(frozen=True)
class Inverted:
    """INVERSION_TRAJECTORY: the way, as the UNet takes latents, the prompt it was walked with, and whose it is."""

    way: Trajectory
    positive: list[Any]
    network: "weakref.ref[Any]"


def trajectory_input(model: Any, value: Any) -> Inverted:
    """The value of an input `trajectory`. Raises `InvalidInput` for other values and another model's trajectory."""
    if not isinstance(value, Inverted):
        raise InvalidInput(f"trajectory must come from DDIM Invert, got {type(value).__name__}")
    if value.network() is not model.model:
        raise InvalidInput("trajectory was inverted with another model; connect both nodes to one checkpoint's MODEL")
    return value


class DirectInversion(io.ComfyNode):
    """Ju et al.'s Direct Inversion as a model patch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragDirectInversion",
            display_name=NODE,
            category=f"{CATEGORY}/inversion",
            search_aliases=["inversion", "exact reconstruction", "pin", "PnP inversion"],
            description=(
                "Puts one row of the sampled batch back on its inversion's trajectory after every step, so that it "
                "ends as exactly the image that was inverted, whatever the guidance. For KSampler with ddim or euler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with; its other patches stay."),
                TrajectoryType.Input("trajectory", tooltip="The image's way to noise, from DDIM Invert."),
                io.Int.Input(
                    "row",
                    default=0,
                    min=-1024,
                    max=1023,
                    tooltip="Which of the batch: 0 is the first (a drag's original), -1 the last (a morph's end).",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the row may differ from the image: only the rest is put back. None: all.",
                ),
            ],
            outputs=[io.Model.Output("patched_model", display_name="MODEL", tooltip="The model with the patch.")],
        )

    @classmethod
    @checked
    def execute(cls, model: Any, trajectory: Any, row: int, mask: Tensor | None = None) -> io.NodeOutput:
        way = trajectory_input(model, trajectory).way
        put_back = _PutBack(way, row, _pinned_cells(mask, way))
        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, PUT_BACK, put_back.sample)
        wrap_prediction(patched, PUT_BACK, put_back.predict)
        return io.NodeOutput(patched)


def _pinned_cells(mask: Tensor | None, way: Trajectory) -> Tensor:
    """(h, w) of the latent, whether a cell is put back: none of whose pixels the mask lets differ."""
    size = way.latents.shape[-2:]
    if mask is None or not mask.any():
        return torch.ones(size, dtype=torch.bool)
    if mask.ndim not in (2, 3) or len(mask.reshape(-1, *mask.shape[-2:])) != 1:
        raise InvalidInput(f"mask must be one mask (H, W), got shape {tuple(mask.shape)}")
    free = adaptive_max_pool2d(mask.reshape(1, 1, *mask.shape[-2:]).float(), size)
    return free[0, 0] <= 0


class _PutBack:
    """The patches of one row."""

    def __init__(self, way: Trajectory, row: int, pinned: Tensor) -> None:
        self.way, self.row, self.pinned = way, row, pinned

    def sample(
        self,
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Any = None,
        denoise_mask: Tensor | None = None,
        *rest: Any,
    ) -> Tensor:
        """Around a whole sampling run: refuses, before it or at its end, what keeps the row from its trajectory."""
        options = extra["model_options"]["transformer_options"]
        options[LEAD_ASTRAY] = _what_may_lead_astray(executor.class_obj, options.get("wrappers", {}))
        with named(NODE):
            self._check_unmasked(denoise_mask, self._row_of(noise))
        sampled: Tensor = executor(guider, sigmas, extra, callback, noise, latent_image, denoise_mask, *rest)
        if len(sigmas) > 1:
            end = int((self.way.sigmas - sigmas[-1].to(self.way.sigmas)).abs().argmin())
            with named(NODE):
                self._check_on_its_way(sampled, end, options)
        return sampled

    def predict(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any = None
    ) -> Tensor:
        """Around the whole prediction: the row's is replaced by the one that leads where it belongs."""
        denoised: Tensor = executor(x, timestep, model_options, seed)
        with named(NODE):
            return self._put_back(denoised, x, timestep, model_options)

    def _put_back(self, denoised: Tensor, x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> Tensor:
        row = self._row_of(x)
        place, sigma, next_sigma = step_under_way(timestep, model_options)
        step = self.way.step_between(sigma, next_sigma)
        if place > 0:
            self._check_on_its_way(x, step, model_options["transformer_options"])
        target = self.way.latents[step + 1, 0].to(x)
        led = x0_leading_to(target, x[row], sigma, next_sigma)
        result = denoised.clone()
        result[row] = torch.where(self.pinned.to(x.device), led, denoised[row])
        return result

    def _row_of(self, x: Tensor) -> int:
        if not -len(x) <= self.row < len(x):
            raise InvalidInput(f"row is {self.row} but the sampled latent is a batch of {len(x)}")
        if x.shape[1:] != self.way.latents.shape[2:]:
            inverted, sampled = (f"{s[-1]}x{s[-2]} with {s[-3]} channels" for s in (self.way.latents.shape, x.shape))
            raise InvalidInput(f"trajectory is of a latent of {inverted}, the sampled latent is {sampled}")
        return self.row % len(x)

    def _check_unmasked(self, denoise_mask: Tensor | None, row: int) -> None:
        if denoise_mask is not None and (denoise_mask[min(row, len(denoise_mask) - 1)] < 1).any():
            raise InvalidInput(
                f"the sampled latent has a noise mask, which keeps row {self.row} from its trajectory; remove Set "
                "Latent Noise Mask, and connect the mask to Direct Inversion"
            )

    def _check_on_its_way(self, x: Tensor, step: int, options: dict[str, Any]) -> None:
        """Raises unless the row, as `step` finds it, is where the step before was to lead it."""
        expected, sigma = self.way.latents[step, 0].to(x), self.way.sigmas[step].to(x)
        error = (x[self.row] - expected)[:, self.pinned.to(x.device)]
        away = (error.square().sum() / max(1, error.numel())).sqrt() / (sigma**2 + 1) ** 0.5
        if not away <= LOST:  # NaN neither
            raise InvalidInput(f"row {self.row} is not where it was put: {options[LEAD_ASTRAY]}")


def _what_may_lead_astray(sampler: Any, wrappers: dict[str, dict[Any, Any]]) -> str:
    """What is wrong if the sampler's steps do not lead to where they should, and what to do about it."""
    function = getattr(sampler, "sampler_function", sampler)
    name = getattr(function, "__name__", type(function).__name__).removeprefix("sample_")
    if name != EULER:
        return f"KSampler uses {name}; use ddim or euler, whose steps are those of the inversion"
    kinds = (WrappersMP.OUTER_SAMPLE, WrappersMP.SAMPLER_SAMPLE, WrappersMP.PREDICT_NOISE)
    keys = {str(key) for kind in kinds for key in wrappers.get(kind, {}) if not str(key).startswith("morph_drag")}
    found = f" (the MODEL has {', '.join(sorted(keys))})" if keys else ""
    return f"another patch changes what KSampler does after Direct Inversion{found}; connect the MODEL without that"
