"""A MODEL's network once more, on the same memory, as ordinary PyTorch modules that gradients go through.

ComfyUI runs nodes in inference mode, where its own network's weights can take no part in a backward pass, and its
layers cast, move and patch their weights as they run. The shadow has neither: every parameter is an ordinary alias of
the original's memory (or, where that is not what the layer computes with, a plain copy that is), and every layer of
`comfy.ops` is the layer of `torch.nn` that it extends. The original is not changed by so much as a hook.
"""

import copy
from typing import Any

import comfy.model_base
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

from ...morph_core.errors import UnsupportedModel
from .weights import computing_weights

PATCHES_OF_A_LAYER = ("weight_function", "bias_function")  # lists; what they do is in `computing_weights`


def shadow_model(
    model: comfy.model_base.BaseModel, sampling: Any, device: torch.device, dtype: torch.dtype
) -> comfy.model_base.BaseModel:
    """A `BaseModel` whose `apply_model(x, sigma, ...) -> x0` takes gradients; make it outside inference mode.

    sampling: the `model_sampling` to use, which a MODEL may have patched. device, dtype: what it computes with.
    Raises `UnsupportedModel` for networks that cannot be copied so.
    """
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin._modules["diffusion_model"] = shadow_network(model.diffusion_model, device, dtype)
    aliases = {id(buffer): ordinary_alias(buffer) for buffer in sampling.buffers()}
    twin._modules["model_sampling"] = copy.deepcopy(sampling, aliases)
    return twin


def shadow_network(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network, frozen, on its own memory; see this file's beginning."""
    if "_orig_mod" in network._modules:  # as torch.compile wraps it; asking for its class would import the compiler
        raise UnsupportedModel("model has a compiled network; connect it without TorchCompileModel")
    memo: dict[int, Any] = {}
    plain = computing_weights(network, device, dtype)
    for path, layer in network.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            tensor = plain.get(f"{path}.{name}" if path else name, parameter)
            memo[id(parameter)] = nn.Parameter(ordinary_alias(tensor.to(device)), requires_grad=False)
        for buffer in layer.buffers(recurse=False):
            memo[id(buffer)] = ordinary_alias(buffer.to(device))
        for patches in (getattr(layer, name, None) for name in PATCHES_OF_A_LAYER):
            if isinstance(patches, list):
                memo[id(patches)] = []
    try:
        twin = copy.deepcopy(network, memo)
    except Exception as error:
        raise UnsupportedModel(
            f"model's network, {type(network).__name__}, cannot take gradients here ({type(error).__name__}: {error})"
        ) from error
    for layer in twin.modules():
        if type(layer).__module__ == "comfy.ops":
            layer.__class__ = _torch_class(type(layer))
    return twin.eval()


def _torch_class(layer: type) -> type:
    """comfy.ops calls its layers as torch.nn does, the quantised ones too, which do not descend from them."""
    found = getattr(nn, layer.__name__, None)
    if found is None:
        raise UnsupportedModel(
            f"model has layers of an unknown kind, {layer.__name__}, which cannot take gradients here"
        )
    return found  # type: ignore[no-any-return]


def ordinary_alias(tensor: Tensor) -> Tensor:
    """A tensor on the same memory that autograd accepts even if `tensor` was made in inference mode."""
    with torch.inference_mode(False):
        alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def pytorch_attention(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """ComfyUI's `optimized_attention_override`: PyTorch's attention; the one that was chosen may have no backward."""
    return attention_pytorch(*args, **kwargs)  # type: ignore[no-any-return]
