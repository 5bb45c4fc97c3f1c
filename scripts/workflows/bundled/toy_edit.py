"""The toy edit: one word of the prompt changes, and the rest of the drawing stays."""

from ..description import BLUE, CYAN, GREEN, NARROW, RED, WIDE, Group, Node, Workflow
from ..parts.inversion import inversion, pinned
from ..parts.models import TOY_MODEL
from ..parts.notes import note
from ..parts.pictures import RED_CAT, toy_source
from ..parts.results import enlarged, picture
from ..parts.sampling import decoded, empty_prompt, ksampler


def workflow() -> Workflow:
    """The drawing and its edit are sampled from one noise."""
    first, second = toy_source("D", {**RED_CAT, "seed": 3})
    results = [enlarged("large", "images"), picture("saved", "large", "toy_edit")]
    return [
        [note(__file__, 480), TOY_MODEL],
        [Group("Image", BLUE, [[*first, None], [*second, inversion("D", "model.MODEL")]])],
        [Group("Edit", GREEN, [[_edit(), pinned("pinned", "prompts.MODEL", "D noise", 0)]])],
        [_samples()],
        [Group("Result: the drawing and its edit", CYAN, [results])],
    ]


def _edit() -> Node:
    """Prompt To Prompt turns the cat into a rabbit."""
    links = {"model": "model.MODEL", "clip": "model.CLIP", "source_prompt": "D picture.caption"}
    words = {"edited_prompt": "a happy red rabbit on mint", "blend_words": "cat, rabbit", "blend_threshold": 0.6}
    return Node("prompts", "MorphDragPromptToPrompt", links, words, WIDE, room=160)


def _samples() -> Group:
    """Two rows are sampled with guidance, the second by the edited prompt."""
    twice = Node("twice", "RepeatLatentBatch", {"samples": "D noise"}, {"amount": 2}, NARROW)
    prompts = {"positive": "prompts.CONDITIONING", "negative": "empty prompt"}
    sampler = ksampler("latents", {"model": "pinned", **prompts, "latent_image": twice.name}, cfg=7.5)
    return Group("Sample", RED, [[twice, sampler], [empty_prompt(), decoded("images", sampler.name, width=240)]])
