"""A network's weights as its layers compute with them, whatever form ComfyUI keeps them in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...morph_core.errors import UnsupportedModel

PLAIN = (Tensor, nn.Parameter)


def computing_weights(network: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Path -> weight or bias of every layer, as plain tensors of this type on this device.

    Where a layer has it so, it is the layer's own tensor. Else it is a copy: moved (offloaded layers), with the LoRAs
    that ComfyUI applies only as an offloaded layer runs, converted (fp8), scaled or unpacked (quantised layers).
    Raises `UnsupportedModel` for weights in another pack's packing.
    """
    return {
        f"{path}.{name}": _computing_weight(layer, name, tensor, device, dtype)
        for path, layer in network.named_modules()
        for name, tensor in layer.named_parameters(recurse=False)
        if name in ("weight", "bias")
    }


def _computing_weight(layer: nn.Module, name: str, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    changes: list[Callable[[Tensor], Tensor]] = list(getattr(layer, f"{name}_function", ()))
    convert: Any = getattr(layer, f"convert_{name}", None)  # of layers that keep a scale beside their weight
    if convert:
        changes.append(convert)
    smoothing = getattr(layer, "pre_quant_scale", None)  # of some quantised layers: their input is multiplied by it
    if smoothing is not None and name == "weight":
        changes.append(lambda weight: weight * smoothing.to(weight))
    if type(tensor) in PLAIN and not changes:
        return tensor.to(device, dtype)
    weight = _unpacked(tensor.to(device, dtype, copy=True))
    for change in changes:
        weight = change(weight)
    return weight


def _unpacked(tensor: Tensor) -> Tensor:
    kind = type(tensor)
    if kind in PLAIN:
        return tensor
    if kind.dequantize is Tensor.dequantize:  # torch's own takes the packed bytes for numbers
        raise UnsupportedModel(
            f"model keeps its weights as {kind.__name__}, which cannot be unpacked here; "
            "load the checkpoint unquantised, or as fp8"
        )
    return tensor.dequantize()
