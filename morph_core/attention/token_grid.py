"""How the tokens of an attention layer lie on the latent."""

from ..errors import InvalidInput


def token_grid(tokens: int, latent_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer's tokens, of a latent of (h, w) cells halved as often as it takes.

    An odd side is halved as strided convolutions and padded patches do it, upwards. Raises `InvalidInput` when no
    halving of the latent has so many tokens.
    """
    height, width = latent_size
    while height * width > tokens and (height > 1 or width > 1):
        height, width = -(-height // 2), -(-width // 2)
    if height * width != tokens:
        raise InvalidInput(
            f"a layer has {tokens} tokens, which is no halving of a latent of {latent_size[1]}x{latent_size[0]} cells; "
            "use a latent whose sides are multiples of 8, or leave out the mask and the matches"
        )
    return height, width
