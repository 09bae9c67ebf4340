"""The fast form against torch's tanh form, in value and in slope."""

import pytest
import torch
from torch.nn import functional as F

from vitexp.nn.mlp import GELUS, gelu


def value_and_slope(form: object, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    out = form(x)  # type: ignore[operator]
    out.backward(torch.linspace(-1, 1, len(x), dtype=x.dtype))
    return out.detach(), x.grad


def test_equals_the_tanh_form_and_not_the_exact_one() -> None:
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e4, -0.0, 0.0, 1e4])])
    value, slope = value_and_slope(gelu, x)
    expected = [result.float() for result in value_and_slope(lambda z: F.gelu(z, approximate="tanh"), x.double())]
    torch.testing.assert_close(value, expected[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slope, expected[1], rtol=1e-5, atol=1e-6)
    assert (value - F.gelu(x)).abs().max() > 1e-4


def test_exact_is_the_normal_distribution() -> None:
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    torch.testing.assert_close(GELUS["exact"](x), x * torch.distributions.Normal(0, 1).cdf(x), rtol=1e-12, atol=1e-12)


def test_input_is_left_as_it_was() -> None:
    x = torch.randn(100)
    before = x.clone()
    gelu(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_use_torch(dtype: torch.dtype) -> None:
    x = torch.randn(100, dtype=dtype)
    assert torch.equal(gelu(x), F.gelu(x, approximate="tanh"))
