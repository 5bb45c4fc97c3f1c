"""Drag Warp: what a mask covers, moved as points say; a sampler only has to heal what was left."""

from typing import Any, get_args

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..morph_core.crop import CentreCrop, free_cells, masked_crop, seen_by_vae
from ..morph_core.dragging.backward import Field
from ..morph_core.dragging.moves import Warp
from ..morph_core.dragging.points import DragPoints, parse_points, points_in_crop
from ..morph_core.dragging.warp import Warped, warp_image, warp_latent
from ..morph_core.errors import InvalidInput
from ..morph_core.pictures.handle_tracks import as_image
from ..morph_core.pictures.warp_picture import draw_warp
from .host.adapters import CATEGORY, image_of_one, images_batch, latent_batch
from .host.inputs import checked
from .host.picker import shown_to_picker, without_points
from .host.versions import schema, stock_name

LEFT, WHOLE = "what was left, and the rim", "all that moved, too"


class DragWarp(io.ComfyNode):
    """A drag without a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragDragWarp",
            display_name="Drag Warp",
            category=f"{CATEGORY}/drag",
            search_aliases=["drag", "warp", "liquify", "puppet", "Inpaint4Drag", "instant drag", "move"],
            has_intermediate_output=True,  # its picture is shown again when it comes from the cache
            description=(
                "Moves what the mask covers as the points you picked say, at once and without a model. What it left "
                "free is filled smoothly and named in the MASK, for any model to repaint: "
                f"{stock_name('VAEEncode')}, {stock_name('SetLatentNoiseMask')}, KSampler with a denoise below 1."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The picture to pick points on, or frames that all move alike."),
                io.String.Input(
                    "points",
                    default="",
                    multiline=True,
                    tooltip=(
                        "Click a handle on the picture, then where it should go; with Shift, a pin that stays. As "
                        "text: JSON, see the help page."
                    ),
                ),
                io.Combo.Input(
                    "field",
                    options=list(get_args(Field)),
                    tooltip=(
                        "rigid: parts move and turn and keep their size. similarity: they grow and shrink, too. As "
                        "published: inverse distance (Inpaint4Drag), fading (FastDrag), nearest (GeoDrag)."
                    ),
                ),
                io.Float.Input(
                    "radius",
                    default=0.25,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Without a mask: how far around the arrows everything moves, as a share of the picture's "
                        "shorter side; beyond, less and less."
                    ),
                ),
                io.Combo.Input(
                    "repaint",
                    options=[LEFT, WHOLE],
                    tooltip=(
                        "What the MASK output names. All that moved: to heal what a photograph's warp has stretched, "
                        "with a low denoise."
                    ),
                ),
                io.Int.Input(
                    "rim",
                    default=5,
                    min=0,
                    max=256,
                    tooltip="How many pixels to either side of a moved edge the MASK output names.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "White on what moves; each piece moves for itself, by the handles in it. All black is as none."
                    ),
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip=(
                        "Moved in the same way, value by value: from DDIM Invert, to be sampled or as a start for "
                        "Drag Latent Optimize."
                    ),
                ),
                io.Image.Input(
                    "depth",
                    optional=True,
                    tooltip="For the field nearest: a depth map of the image, white near. What is near moves more.",
                ),
            ],
            outputs=[
                io.Image.Output("warped", display_name="IMAGE", tooltip="The picture with everything moved."),
                io.Mask.Output("to_repaint", display_name="MASK", tooltip="White where a model is to paint."),
                io.Latent.Output("warped_latent", display_name="LATENT", tooltip="The latent, moved in the same way."),
                io.Image.Output("paths", display_name="paths", tooltip="What moves, whereto, and what is pinned."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: Tensor,
        points: str,
        field: Field,
        radius: float,
        repaint: str,
        rim: int,
        mask: Tensor | None = None,
        latent: dict[str, Any] | None = None,
        depth: Tensor | None = None,
    ) -> io.NodeOutput:
        pictures = images_batch(image, "image")
        shown = shown_to_picker(pictures[:1], cls)
        if nothing := without_points(points, "Drag Warp", 4, shown):
            return nothing
        size = (pictures.shape[2], pictures.shape[1])
        pairs = parse_points(points, size)
        where = None if mask is None else masked_crop(mask, CentreCrop(size, size))
        near = None if depth is None else _depth(depth, size)
        config = Warp(field, radius)
        warped = warp_image(pictures.movedim(-1, 1), pairs, where, config, near)
        moved_latent = _moved_latent(latent, size, pairs, mask, config, near)
        paths = as_image(draw_warp(pictures[0], pairs, warped.pieces[0, 0]))
        return io.NodeOutput(warped.values.movedim(1, -1), _mask(warped, repaint, rim), moved_latent, paths, ui=shown)


def _mask(warped: Warped, repaint: str, rim: int) -> Tensor:
    """(1, H, W)."""
    return warped.to_repaint(rim, whole=repaint == WHOLE)[0].float()


def _depth(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 1, H, W), of one map of the image's size."""
    maps = image_of_one(depth, "depth").mean(-1)
    if maps.shape != (size[1], size[0]):
        raise InvalidInput(
            f"depth is {maps.shape[1]}x{maps.shape[0]}, image is {size[0]}x{size[1]}; scale the map to the image's size"
        )
    return maps[None, None]


def _moved_latent(
    latent: dict[str, Any] | None,
    size: tuple[int, int],
    points: DragPoints,
    mask: Tensor | None,
    config: Warp,
    depth: Tensor | None,
) -> dict[str, Any] | ExecutionBlocker:
    """The LATENT with its values moved; where there is none, what says so to whoever is connected."""
    if latent is None:
        return ExecutionBlocker("Drag Warp: LATENT moves what is connected to latent, and nothing is")
    samples = latent_batch(latent, "latent")
    cells = (samples.shape[-2], samples.shape[-1])
    crop = seen_by_vae(size, (cells[1], cells[0]))
    painted = None if mask is None else masked_crop(mask, crop)
    where = None if painted is None else free_cells(painted, cells)[None, None]
    near = None if depth is None else adaptive_avg_pool2d(crop.cut(depth), cells)
    moved = warp_latent(samples, points_in_crop(points, crop), where, config, near)
    return {**latent, "samples": moved.values.to(samples)}
