"""A loop through four toy drawings."""

from ..description import CYAN, RED, Group, Node, Workflow
from ..parts.models import TOY_MODEL
from ..parts.notes import note
from ..parts.pictures import BLUE_RABBIT, PURPLE_RABBIT, RED_CAT, Looks
from ..parts.results import animation, enlarged, video
from ..parts.sampling import decoded, ksampler
from ..parts.sequence import blend, keyframes, pictures

GREEN_BEAR: Looks = {"animal": "bear", "colour": "green", "mood": "happy", "background": "lilac", "seed": 4}
FOUR = [RED_CAT, BLUE_RABBIT, GREEN_BEAR, PURPLE_RABBIT]


def workflow() -> Workflow:
    """The pictures are learnt and inverted as a list, and sampled as one batch."""
    prompts = {"positive": "blended.CONDITIONING", "negative": "empty prompt"}
    sampler = ksampler("latents", {"model": "blended.MODEL", **prompts, "latent_image": "blended.LATENT"})
    arranged = Node("shown", "MorphDragArrangeFrames", {"images": "frames", "alphas": "alphas"})
    measured = {"images": "shown", "alphas": "alphas"}
    report = Node("report", "MorphDragMorphReport", measured, {"closed": True}, 480, room=460)
    made, film = video("large", "toy_sequence")
    return [
        [note(__file__, 560), TOY_MODEL],
        [pictures(FOUR)],
        [keyframes(f"pictures {len(FOUR)}", 60, 0.001)],
        [blend("9", "linear", "2", closed=True)],
        [Group("Sample", RED, [[sampler, decoded("frames", sampler.name)], [arranged, None]])],
        [
            Group(
                "Result",
                CYAN,
                [[enlarged("large", "shown"), animation("saved", "large", "toy_sequence"), film], [made, report, None]],
            )
        ],
    ]
