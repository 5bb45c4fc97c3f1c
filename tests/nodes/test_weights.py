"""The forms in which ComfyUI keeps weights: the shadow computes with what ComfyUI's layers compute with."""

from typing import Any

import comfy.model_management
import comfy.ops
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.nodes.host.backbone import shadowed
from morph_pack.nodes.host.weights import computing_weights
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, normal, random_lora, with_lora
from morph_tests.nodes.test_shadow import assert_same_output, through_comfyui, through_shadow

SIGMA = torch.tensor(1.0)
X = normal(2, 4, 8, 8)
TEXT = conditioning()


try:
    from comfy.quant_ops import QUANT_ALGOS as QUANTISED
except ImportError:  # of ComfyUIs before 0.4
    QUANTISED: dict[str, dict[str, Any]] = {}


@pytest.fixture
def offloading(monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI with little memory: whatever asks for a model, only its first megabyte is loaded whole."""

    def load(wanted: list[ModelPatcher], **_: Any) -> None:
        for model in wanted:
            model.unpatch_model(model.offload_device)
            model.patch_model(model.load_device, lowvram_model_memory=1_000_000)
            assert model.model.model_lowvram

    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)


def layers_that_patch_as_they_run(model: ModelPatcher) -> int:
    return sum(bool(getattr(layer, "weight_function", ())) for layer in model.model.diffusion_model.modules())


def test_loras_that_are_applied_as_an_offloaded_layer_runs(model: Any, offloading: None) -> None:
    carrying = with_lora(model, random_lora(0))
    expected = through_comfyui(carrying, X, SIGMA, TEXT)
    assert layers_that_patch_as_they_run(carrying) > 5
    assert_same_output(through_shadow(carrying, X, SIGMA, TEXT), expected, X)
    carrying.unpatch_model(carrying.offload_device)
    plain = through_comfyui(model, X, SIGMA, TEXT)
    assert (expected - plain).abs().max() > 1e-3
    model.unpatch_model(model.offload_device)


def test_weights_in_half_precision_that_are_computed_with_in_single() -> None:
    model = models.stored_as(models.sd1(), torch.float16)
    with torch.inference_mode(), shadowed(model) as backbone:
        assert backbone.dtype == torch.float32
    assert_same_output(through_shadow(model, X, SIGMA, TEXT), through_comfyui(model, X, SIGMA, TEXT), X)


def test_eight_bit_weights() -> None:
    """And they are as coarse as they should be: the comparison is not of the weights they were made from."""
    whole, coarse = models.sd1(), models.stored_as(models.sd1(), torch.float8_e4m3fn)
    expected = through_comfyui(coarse, X, SIGMA, TEXT)
    assert_same_output(through_shadow(coarse, X, SIGMA, TEXT), expected, X)
    assert (through_comfyui(whole, X, SIGMA, TEXT) - expected).abs().max() > 1e-3


@pytest.mark.slow
def test_eight_bit_weights_with_a_lora(model: Any) -> None:
    coarse = models.stored_as(model, torch.float8_e4m3fn)
    carrying = with_lora(coarse, random_lora(0))
    actual = through_shadow(carrying, X, SIGMA, TEXT)
    assert_same_output(actual, through_comfyui(carrying, X, SIGMA, TEXT), X)
    assert (actual - through_shadow(coarse, X, SIGMA, TEXT)).abs().max() > 1e-3


def linear(kind: Any, dtype: torch.dtype) -> nn.Linear:
    layer = kind(8, 8, dtype=dtype)
    layer.weight = nn.Parameter(normal(8, 8).to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(normal(8, seed=1).to(dtype), requires_grad=False)
    return layer


def weights_of(layer: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return computing_weights(nn.ModuleDict({"layer": layer}), torch.device("cpu"), dtype)


def assert_computes_the_same(layer: nn.Linear) -> None:
    x = normal(3, 8, seed=2)
    weights = weights_of(layer)
    expected = layer.forward_comfy_cast_weights(x)
    torch.testing.assert_close(nn.functional.linear(x, weights["layer.weight"], weights["layer.bias"]), expected)


@pytest.mark.skipif(QUANTISED, reason="this ComfyUI keeps scaled fp8 as quantised weights")
def test_eight_bit_weights_with_a_scale() -> None:
    layer = linear(comfy.ops.scaled_fp8_ops(override_dtype=torch.float8_e4m3fn).Linear, torch.float8_e4m3fn)
    layer.scale_weight.data.fill_(3.0)
    assert_computes_the_same(layer)
    assert weights_of(layer).keys() == {"layer.weight", "layer.bias"}


def test_functions_of_a_weight_and_of_a_bias() -> None:
    layer = linear(comfy.ops.manual_cast.Linear, torch.float16)
    layer.weight_function = [lambda weight: weight + 1, lambda weight: 2 * weight]
    layer.bias_function = [lambda bias: -bias]
    assert_computes_the_same(layer)


def test_a_scale_of_the_layers_input() -> None:
    """Which newer ComfyUIs keep beside some quantised weights and multiply the input by."""
    layer = linear(comfy.ops.manual_cast.Linear, torch.float32)
    layer.pre_quant_scale = nn.Parameter(normal(8, seed=3), requires_grad=False)
    x, weights = normal(3, 8, seed=2), weights_of(layer)
    expected = layer(x * layer.pre_quant_scale)
    torch.testing.assert_close(nn.functional.linear(x, weights["layer.weight"], weights["layer.bias"]), expected)


def test_a_plain_weight_is_the_layers_own_and_a_changed_one_is_not() -> None:
    layer = linear(comfy.ops.disable_weight_init.Linear, torch.float32)
    assert weights_of(layer)["layer.weight"].data_ptr() == layer.weight.data_ptr()
    before = layer.weight.clone()
    layer.weight_function = [lambda weight: weight.add_(1)]
    assert torch.equal(weights_of(layer)["layer.weight"], before + 1)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_layers(kind: str) -> None:
    """As ComfyUI makes them of comfy_kitchen's tensors, where it does, on a device without its fast products."""
    from comfy.quant_ops import QuantizedTensor

    layout, weight = QUANTISED[kind]["comfy_tensor_layout"], normal(64, 256)
    layer = comfy.ops.mixed_precision_ops(compute_dtype=torch.float32, full_precision_mm=True).Linear(256, 64)
    layer.quant_format, layer.layout_type = kind, layout
    layer.weight = nn.Parameter(QuantizedTensor.from_float(weight.bfloat16(), layout), requires_grad=False)
    layer.bias = nn.Parameter(normal(64, seed=1), requires_grad=False)
    x, weights = normal(16, 256, seed=2), weights_of(layer)
    with torch.inference_mode():
        expected = layer(x)
    torch.testing.assert_close(nn.functional.linear(x, weights["layer.weight"], weights["layer.bias"]), expected)
    coarseness = (weights["layer.weight"] - weight).abs().mean()
    assert type(weights["layer.weight"]) is Tensor and 1e-3 < coarseness < 0.2


class Packed(Tensor):
    """Stands for the tensors of ComfyUI's quantised layers, which unpack themselves."""

    @staticmethod
    def __new__(cls, tensor: Tensor) -> "Packed":
        return Tensor._make_subclass(cls, tensor)

    def dequantize(self) -> Tensor:
        return 2 * self.as_subclass(Tensor)


class Unknown(Tensor):
    """Stands for a packing of another pack's, as GGUF's."""

    @staticmethod
    def __new__(cls, tensor: Tensor) -> "Unknown":
        return Tensor._make_subclass(cls, tensor)


def test_quantised_weights_are_unpacked() -> None:
    layer = linear(comfy.ops.manual_cast.Linear, torch.float32)
    expected = 2 * layer.weight.detach()
    layer.weight = nn.Parameter(Packed(layer.weight.detach()), requires_grad=False)
    weight = weights_of(layer)["layer.weight"]
    assert type(weight) is Tensor and torch.equal(weight, expected)


def test_weights_in_an_unknown_packing_are_refused() -> None:
    layer = linear(comfy.ops.manual_cast.Linear, torch.float32)
    layer.weight = nn.Parameter(Unknown(layer.weight.detach()), requires_grad=False)
    with pytest.raises(UnsupportedModel, match="keeps its weights as Unknown, which cannot be unpacked"):
        weights_of(layer)


def test_a_model_whose_weights_are_read_as_they_are_needed_is_loaded_whole(model: Any) -> None:
    """Dynamic VRAM, of newer ComfyUIs than the one this may run in: `is_dynamic` and `clone(disable_dynamic=True)`."""

    class Dynamic(ModelPatcher):
        def is_dynamic(self) -> bool:
            return True

        def clone(self, disable_dynamic: bool = False) -> ModelPatcher:
            assert disable_dynamic
            return model.clone()

    class Unloadable(Dynamic):
        def clone(self, disable_dynamic: bool = False) -> ModelPatcher:
            raise RuntimeError("cached_patcher_init is not initialized")

    hollow = models.sd1()
    unloadable = Unloadable(hollow.model, hollow.load_device, hollow.offload_device)
    with pytest.raises(UnsupportedModel, match="cannot be loaded whole .*; load it with Load Checkpoint"):
        through_shadow(unloadable, X, SIGMA, TEXT)
    for parameter in hollow.model.parameters():
        parameter.data = torch.full_like(parameter, float("nan"))
    dynamic = Dynamic(hollow.model, hollow.load_device, hollow.offload_device)
    dynamic.model.model_config = model.model.model_config
    assert_same_output(through_shadow(dynamic, X, SIGMA, TEXT), through_comfyui(model, X, SIGMA, TEXT), X)
