"""A morph with a published checkpoint in two passes, which differs from model to model only in size and memory."""

from ..description import CYAN, Group, Node, Workflow
from ..parts.inversion import inverted_image
from ..parts.models import Checkpoint, large_model
from ..parts.morphing import report, two_passes
from ..parts.notes import note
from ..parts.pictures import BLUE_RABBIT, RED_CAT, Looks, replaceable_source
from ..parts.results import animation, video


def large_morph(checkpoint: Checkpoint, prefix: str, save_memory: bool) -> Workflow:
    """Both passes are saved as animations, the second as a video too, and measured."""
    film = video("frames 2", f"{prefix}_second_pass")
    second = [_animation(2, f"{prefix}_second_pass"), *film, report("A square", "B square")]
    return [
        [note(__file__, 680, checkpoint), large_model(checkpoint)],
        [_image("A", RED_CAT, checkpoint, save_memory), _image("B", BLUE_RABBIT, checkpoint, save_memory)],
        *two_passes(
            Group("First pass: result", CYAN, [[_animation(1, f"{prefix}_first_pass")]]),
            Group("Second pass: result", CYAN, [second]),
            frames_per_batch=4 if save_memory else 0,
        ),
    ]


def _image(end: str, looks: Looks, checkpoint: Checkpoint, save_memory: bool) -> Group:
    """An image is learnt as published, and can be replaced."""
    source = replaceable_source(end, looks, checkpoint.side)
    return inverted_image(end, source, 200, 0.0002, save_memory=save_memory)


def _animation(number: int, prefix: str) -> Node:
    """A pass's frames are large, so they are not saved without loss."""
    return animation(f"saved {number}", f"frames {number}", prefix, lossless=False)
