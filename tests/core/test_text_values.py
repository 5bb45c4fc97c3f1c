"""Text values: what is blended and put together, and what does not go together."""

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.text import Text, concatenated
from morph_pack.morph_core.morphing.blend_text import blend_text, blended


def text(seed, tokens=5, pooled=True):
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, tokens, 8, generator=generator)
    sizes = torch.tensor([[64.0 * seed, 64, 0, 0, 64, 64]])
    return Text(context, torch.randn(1, 6, generator=generator), sizes) if pooled else Text(context)


def test_every_part_is_blended():
    start, end, alphas = text(1), text(2), (0.0, 0.25, 1.0)
    result = blended(start, end, alphas)
    assert torch.equal(result.context, blend_text(start.context, end.context, alphas))
    torch.testing.assert_close(result.pooled, torch.cat([torch.lerp(start.pooled, end.pooled, a) for a in alphas]))
    assert result.sizes[:, 0].tolist() == [64, 80, 128]
    assert blended(text(1, pooled=False), text(2, pooled=False), alphas).pooled is None


def test_every_part_has_its_middle():
    start, end, middle = text(1), text(2), text(3)
    result = blended(start, end, (0.0, 0.5, 1.0), middle)
    for row, one in enumerate((start, middle, end)):
        for name in ("context", "pooled", "sizes"):
            assert torch.equal(getattr(result, name)[row], getattr(one, name)[0])
    plain, without = blended(start, end, (0.0, 0.5, 1.0)), blended(start, end, (0.0, 0.5, 1.0), middle, 0.0)
    assert all(torch.equal(getattr(plain, name), getattr(without, name)) for name in ("context", "pooled", "sizes"))
    with pytest.raises(InvalidInput, match="one text has pooled, another has not"):
        blended(start, end, (0.0, 1.0), text(3, pooled=False))


def test_rows_are_put_one_after_the_other():
    both = concatenated([text(1), text(2)])
    for row, one in enumerate((text(1), text(2))):
        assert torch.equal(both.context[row], one.context[0]) and torch.equal(both.pooled[row], one.pooled[0])
        assert torch.equal(both.sizes[row], one.sizes[0])


def test_texts_of_two_models_do_not_go_together():
    with pytest.raises(InvalidInput, match="pooled"):
        concatenated([text(1), text(2, pooled=False)])
    with pytest.raises(InvalidInput, match="one text has pooled, another has not"):
        blended(text(1), text(2, pooled=False), (0.0, 1.0))
    with pytest.raises(InvalidInput, match="different lengths"):
        concatenated([text(1), text(2, tokens=6)])
