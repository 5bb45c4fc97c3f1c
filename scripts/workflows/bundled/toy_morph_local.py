"""The toy morph of a part: only the ears change, whatever else is different in the second drawing."""

from ..description import CYAN, NARROW, YELLOW, Group, Node, Workflow
from ..parts.dragging import black_mask
from ..parts.inversion import all_pinned, inverted_image, pinned
from ..parts.models import TOY_MODEL
from ..parts.morphing import blend, sample, schedule
from ..parts.notes import note
from ..parts.pictures import RED_CAT, toy_source
from ..parts.results import animation, enlarged, video

SURPRISED_RABBIT = {**RED_CAT, "animal": "rabbit", "mood": "surprised"}  # of the cat's seed: its head is where that is
SIDE = 64


def workflow() -> Workflow:
    """The mask goes to all that blends; then what is black in it is held to A, and the ends to both images."""
    cat, rabbit = (
        inverted_image(end, toy_source(end, looks), 100, 0.001)
        for end, looks in (("A", RED_CAT), ("B", SURPRISED_RABBIT))
    )
    held = [
        all_pinned("rest held", "patched", "A noise", "mask"),
        pinned("A held", "rest held", "A noise", 0),
        pinned("both held", "A held", "B noise", -1, "rest"),
    ]
    return [
        [note(__file__, 560), TOY_MODEL],
        [cat, rabbit],
        [Group("Where", YELLOW, [_mask()])],
        [blend("Blend", "", schedule(), mask="mask")],
        [Group("Hold the rest, and the ends", YELLOW, [[pin] for pin in held])],
        [sample("Sample", "", "both held")],
        [_result()],
    ]


def _mask() -> list[Node]:
    """The upper part of the picture, with a soft lower rim, and what is left of it."""
    white = Node("white", "SolidMask", {}, {"value": 1.0, "width": SIDE, "height": 36}, NARROW)
    soft = Node("soft", "FeatherMask", {"mask": "white"}, {"bottom": 6}, NARROW)
    placed = {"destination": "black", "source": "soft"}
    mask = Node("mask", "MaskComposite", placed, {"operation": "add"}, NARROW)
    return [black_mask(SIDE), white, soft, mask, Node("rest", "InvertMask", {"mask": "mask"}, width=NARROW)]


def _result() -> Group:
    """The frames come over image A's own pixels, outside the mask, and enlarged."""
    links = {"destination": "frames", "source": "A picture", "mask": "rest"}
    pasted = Node("pasted", "ImageCompositeMasked", links, {}, NARROW)
    large, (made, film) = enlarged("large", "pasted"), video("large", "toy_morph_local")
    frames = Node("all frames", "PreviewImage", {"images": "large"}, width=360, room=360)
    saved = animation("saved", "large", "toy_morph_local")
    return Group("Result", CYAN, [[pasted, large, saved], [made, frames, film]])
