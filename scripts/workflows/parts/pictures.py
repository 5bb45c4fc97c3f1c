"""A source is a picture with its prompt and its latent: the first two columns of two rows of a group.

`end` begins the names of its nodes: "A" and "B" are a morph's images, "D" is the dragged one.
"""

from typing import Any

from ..description import NARROW, Node

Looks = dict[str, Any]  # of a Toy Drawing
Source = tuple[list[Node | None], list[Node | None]]  # rows

RED_CAT: Looks = {"animal": "cat", "colour": "red", "mood": "happy", "background": "mint", "seed": 1}
BLUE_RABBIT: Looks = {"animal": "rabbit", "colour": "blue", "mood": "surprised", "background": "sand", "seed": 2}
LOW_LEFT_CAT: Looks = {"animal": "cat", "colour": "orange", "mood": "happy", "background": "sky", "seed": 3}
RIGHT_MOUSE: Looks = {"animal": "mouse", "colour": "green", "mood": "calm", "background": "rose", "seed": 42}
PURPLE_RABBIT: Looks = {"animal": "rabbit", "colour": "purple", "mood": "calm", "background": "mint", "seed": 7}


def toy_source(end: str, looks: Looks) -> Source:
    """The toy model is prompted with the drawing's own caption."""
    links = {"clip": "model.CLIP", "text": f"{end} picture.caption"}
    prompt = Node(f"{end} prompt", "CLIPTextEncode", links, room=30)
    return [_drawing(end, looks), prompt], [None, _latent(end, f"{end} picture")]


def large_source(end: str, looks: Looks, side: int) -> Source:
    """The caption of a model of `side` pixels, which knows many words, says that it is a drawing."""
    picture = _drawing(end, {**looks, "size": side})
    return [picture, _drawing_prompt(end, looks)], [None, _latent(end, picture.name)]


def replaceable_source(end: str, looks: Looks, side: int) -> Source:
    """Any other picture can be connected to one place, where it is cropped to the model's size."""
    picture = _drawing(end, {**looks, "size": side})
    crop = {"upscale_method": "lanczos", "width": side, "height": side, "crop": "center"}
    title = f"Image {end}: connect yours here"
    square = Node(f"{end} square", "ImageScale", {"image": picture.name}, crop, 280, title=title)
    return [picture, _drawing_prompt(end, looks)], [square, _latent(end, square.name)]


def _drawing(end: str, looks: Looks) -> Node:
    """Toy Drawing shows its picture."""
    return Node(f"{end} picture", "MorphDragToyDrawing", {}, looks, room=200)


def _drawing_prompt(end: str, looks: Looks) -> Node:
    """The prompt says what a Toy Drawing shows, in words that every model knows."""
    text = "a drawing of a {mood} {colour} {animal}'s face".format_map(looks)
    return Node(f"{end} prompt", "CLIPTextEncode", {"clip": "model.CLIP"}, {"text": text}, room=80)


def _latent(end: str, picture: str) -> Node:
    """VAE Encode encodes the picture."""
    return Node(f"{end} latent", "VAEEncode", {"pixels": picture, "vae": "model.VAE"}, width=NARROW)
