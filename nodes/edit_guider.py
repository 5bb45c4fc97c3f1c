"""Edit Guider: what an image shows and what it is to show, as one GUIDER."""

import math
from typing import Any

from comfy_api.latest import io

from ..morph_core.errors import InvalidInput
from .host.adapters import CATEGORY
from .host.edit_guider import EDIT_GUIDER, Side, SourceTargetGuider
from .host.inputs import checked
from .host.versions import schema, stock_name


class EditGuider(io.ComfyNode):
    """Two prompts and two guidances for Flow Edit Sampler and Uni-Edit Sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragEditGuider",
            display_name=EDIT_GUIDER,
            category=f"{CATEGORY}/edit",
            search_aliases=["flowedit", "uniedit", "source and target", "edit by prompt", "guider"],
            description=(
                "Holds the prompt that describes an image and the prompt of what it is to become, for "
                f"{stock_name('SamplerCustomAdvanced')} with Flow Edit Sampler or Uni-Edit Sampler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="Any MODEL, flow matching or not, with any patches."),
                io.Conditioning.Input("source_positive", tooltip="A prompt that describes the image as it is."),
                io.Conditioning.Input("target_positive", tooltip="The same prompt with what is to be different."),
                _guidance("source_cfg", "3.5 was published for SD 3 with FlowEdit"),
                _guidance("target_cfg", "13.5 was published for SD 3 with FlowEdit"),
                io.Conditioning.Input("source_negative", optional=True, tooltip="Needed where source_cfg is not 1."),
                io.Conditioning.Input("target_negative", optional=True, tooltip="Needed where target_cfg is not 1."),
            ],
            outputs=[
                io.Guider.Output(
                    "guider",
                    display_name="GUIDER",
                    tooltip=f"For {stock_name('SamplerCustomAdvanced')}, beside Flow Edit Sampler or Uni-Edit Sampler.",
                )
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        source_positive: list[Any],
        target_positive: list[Any],
        source_cfg: float,
        target_cfg: float,
        source_negative: list[Any] | None = None,
        target_negative: list[Any] | None = None,
    ) -> io.NodeOutput:
        source = Side(source_positive, source_negative, source_cfg)
        target = Side(target_positive, target_negative, target_cfg)
        for name, side in (("source", source), ("target", target)):
            if side.negative is None and not math.isclose(side.cfg, 1.0):
                raise InvalidInput(
                    f"{name}_cfg is {side.cfg:g} but {name}_negative is not connected; connect a prompt there, an "
                    f"empty one will do, or set {name}_cfg to 1"
                )
        return io.NodeOutput(SourceTargetGuider(model, source, target))


def _guidance(name: str, published: str) -> Any:
    return io.Float.Input(
        name,
        default=1.0,
        min=0.0,
        max=100.0,
        step=0.1,
        tooltip=f"As cfg of KSampler; {published}. 1 for Uni-Edit, and for Flux.1 dev, whose guidance is FluxGuidance.",
    )
