import pytest
import torch

from moebius.lab.model.build import build_model
from moebius.lab.model.cost import multiply_adds
from moebius.lab.training.precision import WORTH_CASTING, choose_precision

FACTS = {"features": 1024, "channels": 1, "size": 32, "classes": 20, "domains": 2}
CPU = torch.device("cpu")
SMALL = {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}
LARGE = {"gate": {"kind": "linear"}, "experts": {"kind": "conv", "count": 2, "filters": [32, 32], "hidden": [32]}}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_the_recipe_says_holds(precision):
    model = build_model(SMALL, FACTS)
    assert choose_precision(precision, lambda: model, FACTS, CPU) == (precision, "as the recipe says")


def test_small_models_stay_in_fp32_and_the_reason_says_why():
    model = build_model(SMALL, FACTS)
    precision, reason = choose_precision("auto", lambda: model, FACTS, CPU)
    assert precision == "fp32"
    assert "no bf16 products" in reason or f"{1024 * (2 + 2 * 20) + 2 * 20:,} multiply-adds" in reason


def test_large_models_take_bf16_where_the_device_has_it():
    model = build_model(LARGE, FACTS)
    assert multiply_adds(model, FACTS) > WORTH_CASTING
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert choose_precision("auto", lambda: model, FACTS, CPU)[0] == ("bf16" if native else "fp32")


def test_choosing_leaves_the_model_in_its_mode():
    model = build_model(LARGE, FACTS).train()
    choose_precision("auto", lambda: model, FACTS, CPU)
    assert model.training
