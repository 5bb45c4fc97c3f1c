"""Direct Inversion: rows of the sampled batch that end as the image that was inverted."""

from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from torch import Tensor

from ..morph_core.crop import free_cells, mask_seen_by_vae
from ..morph_core.errors import InvalidInput
from ..morph_core.sampling import direct_inversion
from ..morph_core.sampling.trajectory import Trajectory
from .host.adapters import CATEGORY
from .host.inputs import checked
from .host.named_errors import named
from .host.predictions import DIRECT_INVERSION, current_step, wrap_prediction
from .host.trajectories import TrajectoryType, trajectory_input
from .host.versions import known, schema

NODE = "Direct Inversion"
LEAD_ASTRAY = "morph_drag_lead_astray"
"""In transformer_options during a sampling run: what to say of a row that is not on its trajectory."""
EULER = "euler"  # ComfyUI's ddim is this function too
MAX_DRIFT = 1e-3  # see `Trajectory.drift`: a row this far from its trajectory was not brought there by ddim


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
                "Puts a row of the sampled batch, or all, back on an inversion's trajectory after every step, so that "
                "it ends as exactly the image that was inverted, whatever the guidance. For KSampler with ddim or "
                "euler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with; its other patches stay."),
                TrajectoryType.Input("trajectory", tooltip="From the image to its noise, from DDIM Invert."),
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
                known(
                    io.Boolean.Input,
                    "all_rows",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Put every row back, not only one (row has no effect then): for a morph of a part of the "
                        "picture, whose mask it is, so that the rest stays the image in every frame."
                    ),
                ),
            ],
            outputs=[io.Model.Output("patched_model", display_name="MODEL", tooltip="The model with the patch.")],
        )

    @classmethod
    @checked
    def execute(
        cls, model: Any, trajectory: Any, row: int, mask: Tensor | None = None, all_rows: bool = False
    ) -> io.NodeOutput:
        inverted = trajectory_input(model, trajectory).trajectory
        pinned = _PinnedRows(inverted, None if all_rows else row, _free_cells(mask, inverted))
        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, DIRECT_INVERSION, pinned.sample)
        wrap_prediction(patched, DIRECT_INVERSION, pinned.predict)
        return io.NodeOutput(patched)


def _free_cells(mask: Tensor | None, trajectory: Trajectory) -> Tensor | None:
    """(h, w) of the latent, True for the cells that the mask lets differ; None for none of them."""
    if mask is None:
        return None
    height, width = trajectory.latents.shape[-2:]
    seen = mask_seen_by_vae(mask, (width, height), "trajectory's latent")
    return free_cells(seen, (height, width)) if seen.any() else None


class _PinnedRows:
    """The patches of one row, or of all rows where it is None."""

    def __init__(self, trajectory: Trajectory, row: int | None, free: Tensor | None) -> None:
        self.trajectory, self.row, self.free = trajectory, row, free

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
        """Around a whole sampling run: refuses, before it or at its end, what keeps a row from its trajectory."""
        options = extra["model_options"]["transformer_options"]
        options[LEAD_ASTRAY] = _what_may_lead_astray(executor.class_obj, options.get("wrappers", {}))
        with named(NODE):
            self._check_unmasked(denoise_mask, self._rows_of(noise))
        sampled: Tensor = executor(guider, sigmas, extra, callback, noise, latent_image, denoise_mask, *rest)
        if len(sigmas) > 1:
            x = guider.inner_model.model_sampling.noise_scaling(sigmas[-1], torch.zeros_like(sampled), sampled)
            with named(NODE):
                self._check_on_trajectory(x, sigmas[-1], options)
        return sampled

    def predict(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any = None
    ) -> Tensor:
        """Around the whole prediction: a row's is replaced by the one that leads where it belongs."""
        denoised: Tensor = executor(x, timestep, model_options, seed)
        with named(NODE):
            pinned = dict.fromkeys(self._rows_of(x), self.trajectory)
            step, sigma, next_sigma = current_step(timestep, model_options)
            correction = direct_inversion.DirectInversion(pinned, self.free)
            corrected = correction(denoised, x, sigma, next_sigma)
            if step > 0:
                self._check_on_trajectory(x, sigma, model_options["transformer_options"])
            return corrected

    def _rows_of(self, x: Tensor) -> list[int]:
        if self.row is not None and not -len(x) <= self.row < len(x):
            raise InvalidInput(f"row is {self.row} but the sampled latent is a batch of {len(x)}")
        shape = self.trajectory.latents.shape
        if x.shape[1:] != shape[2:]:
            inverted, sampled = (f"{s[-1]}x{s[-2]} with {s[-3]} channels" for s in (shape, x.shape))
            raise InvalidInput(f"trajectory is of a latent of {inverted}, the sampled latent is {sampled}")
        return [*range(len(x))] if self.row is None else [self.row % len(x)]

    def _check_unmasked(self, denoise_mask: Tensor | None, rows: list[int]) -> None:
        if denoise_mask is None:
            return
        for row in rows:
            if (denoise_mask[min(row, len(denoise_mask) - 1)] < 1).any():
                raise InvalidInput(
                    f"the sampled latent has a noise mask, which keeps row {self._named(row)} from its trajectory; "
                    "remove Set Latent Noise Mask, and connect the mask to Direct Inversion"
                )

    def _check_on_trajectory(self, x: Tensor, sigma: Tensor, options: dict[str, Any]) -> None:
        """Raises unless the rows at this sigma are where the step before was to lead them."""
        pinned = None if self.free is None else ~self.free
        rows = self._rows_of(x)
        drifts = torch.stack([self.trajectory.drift(x[row], sigma.to(x), pinned) for row in rows]).tolist()
        for row, drift in zip(rows, drifts, strict=True):
            if not drift <= MAX_DRIFT:  # NaN neither
                raise InvalidInput(f"row {self._named(row)} is not where it was put: {options[LEAD_ASTRAY]}")

    def _named(self, row: int) -> int:
        """As the input `row` has it."""
        return row if self.row is None else self.row


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
