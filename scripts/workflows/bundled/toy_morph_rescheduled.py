"""The toy morph in even steps: a second pass with rescheduled alphas."""

from ..description import CYAN, Group, Node, Workflow
from ..parts.models import TOY_MODEL
from ..parts.morphing import TOY_ENDS, report, two_passes
from ..parts.notes import note
from ..parts.results import animation, enlarged, video


def workflow() -> Workflow:
    """Both passes are saved as animations, the second as a video too, and measured."""
    second = [*_result(2, "toy_second_pass"), *video("large 2", "toy_second_pass"), report("A picture", "B picture")]
    return [
        [note(__file__, 480), TOY_MODEL],
        TOY_ENDS,
        *two_passes(
            Group("First pass: result", CYAN, [_result(1, "toy_first_pass")]),
            Group("Second pass: result", CYAN, [second]),
        ),
    ]


def _result(number: int, prefix: str) -> list[Node]:
    """A pass's frames are enlarged and animated."""
    large = enlarged(f"large {number}", f"frames {number}")
    return [large, animation(f"saved {number}", large.name, prefix)]
