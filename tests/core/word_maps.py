"""What the tests of Prompt-to-Prompt share: words as CLIP numbers them, random attention maps, simple controls."""

import torch

from morph_pack.morph_core.attention.token_alignment import (
    WordControl,
    word_control,
)

START, END = 49406, 49407  # as CLIP's
A, CAT, FLUFFY, MAINE, COON, ON, RED = 1, 2, 3, 4, 5, 6, 7
SIGMAS = torch.arange(10.0, -1, -1)  # of ten steps
SIZE = (8, 8)  # of the latents of `unet`, whose layers have 64, 16 and 4 positions
TOKENS = 5


def clip(*words):
    return [START, *words] + [END] * (76 - len(words))


def blended(run, x, sigma):
    """What a last step, which leads to x itself, leads to with the local blend."""
    return run.blend(x, torch.zeros_like(x), sigma, torch.zeros(()))


def randoms(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(*shape, seed=1):
    return randoms(*shape, seed=seed).softmax(-1)


def identity(tokens=TOKENS):
    return word_control(range(tokens), range(tokens), "replace")


def keep_own(tokens=TOKENS):
    return WordControl(torch.eye(tokens), torch.ones(tokens), torch.ones(tokens))
