"""The toy drag: a drawing's head, ear and eye, of which the latter two with a mask."""

from ..description import CYAN, GREEN, RED, YELLOW, Group, Node, Workflow
from ..parts.dragging import START, drag, reference, sample_drag, toy_mask, toy_settings, track
from ..parts.inversion import inverted_image
from ..parts.models import TOY_MODEL
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, toy_source
from ..parts.results import enlarged, picture
from ..parts.sampling import empty_prompt


def workflow() -> Workflow:
    """Three drags start from one inverted image."""
    drags = [
        drag("head", [0.501, 0.621], [0.361, 0.621], options="options"),
        drag("ear", [0.698, 0.116], [0.798, 0.156], options="options", mask="ear mask"),
        drag("eye", [0.399, 0.505], [0.399, 0.455], options="options", mask="eye mask"),
    ]
    masks = [toy_settings(), toy_mask("ear", 36, 1, 22, 26), toy_mask("eye", 15, 20, 21, 21)]
    results = [_result(node.name) for node in drags]
    return [
        [note(__file__, 480), TOY_MODEL],
        [inverted_image("D", toy_source("D", PURPLE_RABBIT), 80, 0.001, START, "Image")],
        [Group("Masks and options", YELLOW, masks)],
        [Group("Drag", GREEN, [[node] for node in drags])],
        [_samples()],
        [Group("Result: original and dragged, and the handle's way", CYAN, results)],
    ]


def _samples() -> Group:
    """Each drag is sampled by itself, all with one reference and one empty prompt."""
    rows = [[reference(), *sample_drag("head")], [empty_prompt(), *sample_drag("ear")], [None, *sample_drag("eye")]]
    return Group("Sample", RED, rows)


def _result(dragged: str) -> list[Node]:
    """A drag is saved enlarged, with its handle's way beside it."""
    large = enlarged(f"{dragged} large", f"{dragged} images")
    return [large, picture(f"{dragged} saved", large.name, f"toy_drag_{dragged}"), track(dragged, 300)]
