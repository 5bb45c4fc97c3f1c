"""A GUIDER of two predictions, and what a SAMPLER of ours needs of a run that it guides."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.samplers
import node_helpers
from comfy_api.latest import io
from torch import Tensor

from ...morph_core.denoise import Denoise
from ...morph_core.errors import InvalidInput
from .model_sampling import ModelSampling
from .versions import stock_name

EDIT_GUIDER = "Edit Guider"
SOURCE = "morph_drag_source"
"""In a prediction's model_options: that it is to be the source's, not the target's."""


@dataclass(frozen=True)
class Side:
    """What one of the two predictions is made of. negative: None only where cfg is 1."""

    positive: list[Any]
    negative: list[Any] | None
    cfg: float


class SourceTargetGuider(comfy.samplers.CFGGuider):
    """ComfyUI's guider with a second pair of prompts. Samplers that do not ask for the source's get the target's."""

    def __init__(self, model: Any, source: Side, target: Side) -> None:
        super().__init__(model)
        self.source_cfg = source.cfg
        self.set_cfg(target.cfg)
        conds = {"positive": target.positive, "negative": target.negative}
        for kind, prompt in (("positive", source.positive), ("negative", source.negative)):
            if prompt is not None:  # said apart, because ComfyUI tells a model the names of the keys
                conds[f"source_{kind}"] = node_helpers.conditioning_set_values(prompt, {"prompt_type": kind})
        self.inner_set_conds({name: prompt for name, prompt in conds.items() if prompt is not None})

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: Any = None) -> Tensor:
        """ComfyUI's own, of the one side or the other."""
        options = model_options or {}
        prefix, cfg = ("source_", self.source_cfg) if options.get(SOURCE) else ("", self.cfg)
        positive, negative = (self.conds.get(f"{prefix}{kind}") for kind in ("positive", "negative"))
        return comfy.samplers.sampling_function(  # type: ignore[no-any-return]
            self.inner_model, x, timestep, negative, positive, cfg, model_options=options, seed=seed
        )


@dataclass(frozen=True)
class EditRun:
    """A sampling run as the core takes it: both predictions, the clean image (B, C, ...), what of it may change."""

    source: Denoise
    target: Denoise
    image: Tensor
    mask: Tensor | None
    schedule: ModelSampling
    seed: int
    on_step: Callable[[int, int, Tensor], None]

    @staticmethod
    def of(model: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any) -> "EditRun":
        """From the arguments of a sampler function. Raises `InvalidInput` for another guider and for no image."""
        guider = model.inner_model
        advanced = stock_name("SamplerCustomAdvanced")
        if not isinstance(guider, SourceTargetGuider):
            raise InvalidInput(
                f"it is run with the guider {type(guider).__name__}, which has one prompt where an edit needs the "
                f"image's and its own; connect {EDIT_GUIDER} to the guider of {advanced}"
            )
        image = model.latent_image  # not what noise was added to, which of flow matching is nothing at sigma 1
        if not image.count_nonzero():
            raise InvalidInput(
                f"the latent_image of {advanced} is empty, and there is nothing to edit; connect VAE Encode's"
            )
        steps = len(sigmas) - 1

        def predicted(is_source: bool) -> Denoise:
            options = {**extra_args["model_options"], SOURCE: is_source}
            # Without the mask, which would put noise of the run's own into what both are to see.
            arguments = {**extra_args, "model_options": options, "denoise_mask": None}

            def denoise(x: Tensor, sigma: Tensor) -> Tensor:
                comfy.model_management.throw_exception_if_processing_interrupted()
                return model(x, sigma * x.new_ones(len(x)), **arguments)

            return denoise

        def on_step(done: int, total: int, x0: Tensor) -> None:
            if callback:
                callback({"i": max(0, math.ceil(done * steps / total) - 1), "denoised": x0, "x": x0})

        return EditRun(
            source=predicted(True),
            target=predicted(False),
            image=image,
            mask=extra_args.get("denoise_mask"),
            schedule=ModelSampling(guider.inner_model.model_sampling),
            seed=extra_args.get("seed") or 0,
            on_step=on_step,
        )


def sampler_output() -> Any:
    """The output of a node that makes an `edit_sampler`."""
    beside = f"For {stock_name('SamplerCustomAdvanced')}, beside {EDIT_GUIDER}'s GUIDER."
    return io.Sampler.Output("sampler", display_name="SAMPLER", tooltip=beside)


def edit_sampler(function: Callable[..., Tensor], config: Any) -> Any:
    """A SAMPLER of ComfyUI's whose function gets this config."""
    return comfy.samplers.KSAMPLER(function, {"config": config})
