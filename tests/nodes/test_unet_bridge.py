"""The original layout is built here by hand, block by block; diffusers' own converter says which name is which."""

import pytest
import torch

from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.nodes.host.shadow import ordinary_alias
from morph_tests.nodes.unet_bridge import build_shared_unet, diffusers_config

SD1 = {  # two levels, attention on the first only, heads by number and convolutions around the transformers
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": [2, 2],
    "transformer_depth": [1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 0, 0, 0],
    "context_dim": 16,
    "num_heads": 4,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
}
SD2 = {**SD1, "num_heads": -1, "num_head_channels": 16, "use_linear_in_transformer": True}


def same_in_diffusers(linear, heads):
    """The same network's arguments for diffusers, written independently of the code under test."""
    return {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "layers_per_block": 2,
        "cross_attention_dim": 16,
        "attention_head_dim": heads,
        "use_linear_projection": linear,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }


class OriginalLayout:
    """Random weights under the names and in the shapes of the original Stable Diffusion code."""

    def __init__(self, linear, seed=0):
        self.state = {}
        self.linear = linear
        self.generator = torch.Generator().manual_seed(seed)
        self.fill()

    def weight(self, name, *shape, bias=True):
        fan_in = torch.empty(shape)[0].numel()
        self.state[f"{name}.weight"] = torch.randn(shape, generator=self.generator) / fan_in**0.5
        if bias:
            self.state[f"{name}.bias"] = torch.randn(shape[0], generator=self.generator) / 10

    def norm(self, name, width):
        self.state[f"{name}.weight"] = 1 + torch.randn(width, generator=self.generator) / 10
        self.state[f"{name}.bias"] = torch.randn(width, generator=self.generator) / 10

    def residual(self, name, into, out):
        self.norm(f"{name}.in_layers.0", into)
        self.weight(f"{name}.in_layers.2", out, into, 3, 3)
        self.weight(f"{name}.emb_layers.1", out, 128)
        self.norm(f"{name}.out_layers.0", out)
        self.weight(f"{name}.out_layers.3", out, out, 3, 3)
        if into != out:
            self.weight(f"{name}.skip_connection", out, into, 1, 1)

    def transformer(self, name, width):
        kernel = () if self.linear else (1, 1)
        self.norm(f"{name}.norm", width)
        self.weight(f"{name}.proj_in", width, width, *kernel)
        self.weight(f"{name}.proj_out", width, width, *kernel)
        block = f"{name}.transformer_blocks.0"
        for i in (1, 2, 3):
            self.norm(f"{block}.norm{i}", width)
        for attention, context in (("attn1", width), ("attn2", 16)):
            self.weight(f"{block}.{attention}.to_q", width, width, bias=False)
            self.weight(f"{block}.{attention}.to_k", width, context, bias=False)
            self.weight(f"{block}.{attention}.to_v", width, context, bias=False)
            self.weight(f"{block}.{attention}.to_out.0", width, width)
        self.weight(f"{block}.ff.net.0.proj", 8 * width, width)
        self.weight(f"{block}.ff.net.2", width, 4 * width)

    def fill(self):
        self.weight("time_embed.0", 128, 32)
        self.weight("time_embed.2", 128, 128)
        self.weight("input_blocks.0.0", 32, 4, 3, 3)
        for i, into, out, attention in ((1, 32, 32, True), (2, 32, 32, True), (4, 32, 64, False), (5, 64, 64, False)):
            self.residual(f"input_blocks.{i}.0", into, out)
            if attention:
                self.transformer(f"input_blocks.{i}.1", out)
        self.weight("input_blocks.3.0.op", 32, 32, 3, 3)
        self.residual("middle_block.0", 64, 64)
        self.transformer("middle_block.1", 64)
        self.residual("middle_block.2", 64, 64)
        for i, into, out, attention in (
            (0, 64 + 64, 64, False),
            (1, 64 + 64, 64, False),
            (2, 64 + 32, 64, False),
            (3, 64 + 32, 32, True),
            (4, 32 + 32, 32, True),
            (5, 32 + 32, 32, True),
        ):
            self.residual(f"output_blocks.{i}.0", into, out)
            if attention:
                self.transformer(f"output_blocks.{i}.1", out)
        self.weight("output_blocks.2.1.conv", 64, 64, 3, 3)
        self.norm("out.0", 32)
        self.weight("out.2", 4, 32, 3, 3)


def converted(state, **config):
    """The state under diffusers' names; the tensors are the same objects."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}
    return convert_ldm_unet_checkpoint(prefixed, {"layers_per_block": 2, **config})


def key_map(state):
    """Diffusers' names to the original's."""
    name_of = {id(tensor): name for name, tensor in state.items()}
    return {name: name_of[id(tensor)] for name, tensor in converted(state).items()}


VARIANTS = [(SD1, False, (4, 4)), (SD2, True, (2, 4))]


def forward(unet, x=None):
    generator = torch.Generator().manual_seed(5)
    noise, context = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 5, 16)))
    return unet(noise if x is None else x, 500, context).sample


@pytest.mark.parametrize(("config", "linear", "heads"), VARIANTS)
def test_it_computes_what_the_converted_model_computes(config, linear, heads):
    from diffusers import UNet2DConditionModel

    state = OriginalLayout(linear).state
    reference = UNet2DConditionModel(**same_in_diffusers(linear, heads)).eval()
    reference.load_state_dict(converted(state))
    unet = build_shared_unet(state, config, key_map(state))
    with torch.no_grad():
        expected = forward(reference)
        torch.testing.assert_close(forward(unet), expected, rtol=0, atol=1e-6)
        unet.up_blocks[1].attentions[0].transformer_blocks[0].attn1.heads = 8  # a wrong number of heads would show
        assert (forward(unet) - expected).abs().max() > 1e-3


def test_the_vector_beside_the_text_is_sdxls_pooled_text_and_sizes():
    """Diffusers' own SDXL UNet embeds the six sizes itself; the original layout takes them embedded, in one vector."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.embeddings import get_timestep_embedding

    layout = OriginalLayout(True)
    layout.weight("label_emb.0.0", 128, 16 + 6 * 8)
    layout.weight("label_emb.0.2", 128, 128)
    reference = UNet2DConditionModel(
        **same_in_diffusers(True, (2, 4)),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    ).eval()
    reference.load_state_dict(converted(layout.state, addition_embed_type="text_time"))
    names = key_map(layout.state) | {
        f"class_embedding.linear_{i}.{part}": f"label_emb.0.{2 * (i - 1)}.{part}"
        for i in (1, 2)
        for part in ("weight", "bias")
    }
    unet = build_shared_unet(layout.state, {**SD2, "adm_in_channels": 16 + 6 * 8}, names)
    pooled, sizes = torch.randn(2, 16), torch.tensor([[512.0, 768, 0, 8, 512, 768], [64, 64, 4, 0, 64, 64]])
    embedded = get_timestep_embedding(sizes.flatten(), 8, flip_sin_to_cos=True, downscale_freq_shift=0)
    vector = torch.cat([pooled, embedded.reshape(2, -1)], dim=1)
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = reference(x, 500, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample
        torch.testing.assert_close(unet(x, 500, context, vector).sample, expected, rtol=0, atol=1e-6)
        assert (unet(x, 500, context, vector.flip(0)).sample - expected).abs().max() > 1e-3


@pytest.mark.parametrize(("config", "linear", "heads"), VARIANTS)
def test_head_counts(config, linear, heads):
    assert diffusers_config(config)["attention_head_dim"] == heads


def test_every_parameter_is_the_models_own_memory():
    state = OriginalLayout(False).state
    names = key_map(state)
    unet = build_shared_unet(state, SD1, names)
    for name, parameter in unet.state_dict().items():
        source = state[names[name]]
        assert parameter.data_ptr() == source.data_ptr()
        assert (parameter.shape, parameter.stride(), parameter.dtype) == (source.shape, source.stride(), source.dtype)
    assert len(names) == len(state)  # nothing of the model was left over
    before = forward(unet)
    state["out.2.bias"] += 1
    torch.testing.assert_close(forward(unet), before + 1)


def test_it_is_frozen_and_in_eval_mode():
    state = OriginalLayout(False).state
    unet = build_shared_unet(state, SD1, key_map(state))
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    assert not any(module.training for module in unet.modules())
    assert not any(tensor.is_meta for tensor in (*unet.parameters(), *unet.buffers()))


def test_gradients_go_through_weights_made_in_inference_mode():
    with torch.inference_mode():
        state = OriginalLayout(False).state
    assert state["out.2.weight"].is_inference()
    unet = build_shared_unet(state, SD1, key_map(state))
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    forward(unet, x).square().sum().backward()
    assert x.grad.abs().max() > 0
    weight = unet.conv_out.weight.requires_grad_(True)
    forward(unet).square().sum().backward()
    assert weight.grad.abs().max() > 0


def test_it_can_be_built_in_inference_mode():
    state = OriginalLayout(False).state
    with torch.inference_mode():
        unet = build_shared_unet(state, SD1, key_map(state))
    assert not any(parameter.is_inference() for parameter in unet.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_alias_of_a_view_has_its_place_and_strides(dtype):
    whole = torch.arange(24, dtype=dtype).reshape(4, 6)
    view = whole.T[2:5, 1:]
    alias = ordinary_alias(view)
    assert torch.equal(alias, view)
    assert (alias.data_ptr(), alias.stride(), alias.dtype) == (view.data_ptr(), view.stride(), dtype)
    alias[0, 0] = -1
    assert whole[1, 2] == -1


def test_an_alias_of_an_inference_tensor_is_an_ordinary_one():
    with torch.inference_mode():
        tensor = torch.ones(3)
        alias = ordinary_alias(tensor)
    assert tensor.is_inference() and not alias.is_inference()
    alias.requires_grad_(True)
    (2 * alias).sum().backward()
    assert alias.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"in_channels": 9}, "takes 9 channels and returns 4: an inpainting"),
        ({"num_res_blocks": [2, 1]}, r"num_res_blocks is \[2, 1\], expected \[2, 2\]: a pruned"),
        ({"transformer_depth": [1, 2, 0, 0]}, r"transformer_depth is \[1, 2, 0, 0\], expected \[1, 1, 0, 0\]"),
        ({"transformer_depth_middle": -1}, "transformer_depth_middle is -1, expected 1"),
        ({"transformer_depth_output": [1, 1, 2, 0, 0, 0]}, "transformer_depth_output"),
    ],
)
def test_unets_of_other_kinds_are_refused(change, complaint):
    with pytest.raises(UnsupportedModel, match=complaint):
        diffusers_config({**SD1, **change})


def test_a_missing_weight_is_refused_by_name():
    state = OriginalLayout(False).state
    names = key_map(state)
    del state["out.2.bias"]
    with pytest.raises(UnsupportedModel, match="weight for conv_out.bias is missing"):
        build_shared_unet(state, SD1, names)
    with pytest.raises(UnsupportedModel, match="is missing"):
        build_shared_unet(OriginalLayout(False).state, SD1, {})


def test_a_weight_of_another_shape_is_refused_with_both_shapes():
    state = OriginalLayout(False).state
    names = key_map(state)
    state["out.2.weight"] = torch.zeros(8, 32, 3, 3)
    with pytest.raises(
        UnsupportedModel, match=r"conv_out.weight is of shape \(8, 32, 3, 3\), expected \(4, 32, 3, 3\)"
    ):
        build_shared_unet(state, SD1, names)


@pytest.mark.parametrize("levels", [3, 4])
def test_the_configurations_of_stable_diffusion(levels):
    """SD 1.5's own numbers give diffusers' own configuration of it."""
    config = diffusers_config(
        {
            **SD1,
            "model_channels": 320,
            "channel_mult": [1, 2, 4, 4][:levels],
            "num_res_blocks": [2] * levels,
            "transformer_depth": [1, 1] * (levels - 1) + [0, 0],
            "transformer_depth_output": [1, 1, 1] * (levels - 1) + [0, 0, 0],
            "context_dim": 768,
            "num_heads": 8,
        }
    )
    assert config["block_out_channels"] == (320, 640, 1280, 1280)[:levels]
    assert config["down_block_types"] == ("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",)
    assert config["up_block_types"] == ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1)
    assert config["attention_head_dim"] == (8,) * levels
    assert config["cross_attention_dim"] == 768
    wide = diffusers_config({**SD1, "model_channels": 320, "num_head_channels": 64})
    assert wide["attention_head_dim"] == (5, 10)
