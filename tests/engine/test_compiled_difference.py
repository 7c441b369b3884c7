"""What a compiled forward gives is held against what the model as it was written gave."""

import pytest
import torch

from pytorch_grad_cam.engine.compiled_difference import difference

ANOTHER = "what it gives when it is compiled is not the same"


def values(dtype=torch.float32, off=0.0):
    """Of which the largest is 4; the smallest is off by a share of that."""
    found = torch.tensor([[1.0, -4.0], [0.5, 2.0]], dtype=dtype)
    found[1, 0] += 4 * off
    return found


@pytest.mark.parametrize(
    ("dtype", "rounded"),
    [(torch.float32, 1e-3), (torch.float64, 1e-3), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)],
)
def test_rounding_is_no_difference(dtype, rounded):
    assert difference(lambda: values(dtype, 0.8 * rounded), values(dtype)) is None
    assert difference(lambda: values(dtype, -0.8 * rounded), values(dtype)) is None
    assert difference(lambda: values(dtype, 1.5 * rounded), values(dtype)) == ANOTHER


def test_each_leaf_of_a_tree_counts():
    written = {"logits": values(), "maps": [values(), None, 3]}
    assert difference(lambda: {"logits": values(), "maps": [values(), None, 3]}, written) is None
    assert difference(lambda: {"logits": values(), "maps": [values(off=1), None, 3]}, written) == ANOTHER
    assert difference(lambda: {"logits": values(off=1), "maps": [values(), None, 3]}, written) == ANOTHER


@pytest.mark.parametrize(
    "found",
    [
        [values()],
        [values(), values(), values()],
        [values(), values()[:1]],
        [values(), values().T.contiguous().reshape(1, 4)],
        [values(), values(torch.float64)],
    ],
    ids=["fewer", "more", "smaller", "of another shape", "of another type"],
)
def test_another_form(found):
    assert difference(lambda: found, [values(), values()]) == ANOTHER


def test_numbers_that_are_no_fractions_are_not_compared():
    assert difference(lambda: [values(), torch.tensor([1, 2])], [values(), torch.tensor([3, 4])]) is None


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_hides_nothing(number):
    """As the logit of a class that the model masks."""
    written, other = values(), values(off=1)
    written[0, 0] = other[0, 0] = number
    assert difference(written.clone, written) is None
    assert difference(lambda: other, written) == ANOTHER
    assert difference(values, written) == ANOTHER
    assert difference(lambda: written, values()) == ANOTHER


def test_nothing_is_nothing():
    assert difference(lambda: torch.empty(0, 4), torch.empty(0, 4)) is None
    assert difference(lambda: torch.full((2,), torch.nan), torch.full((2,), torch.nan)) is None


def test_gradients_are_compared_by_their_values():
    written = values().requires_grad_()
    assert difference(values, written) is None


def test_what_cannot_be_compiled_says_why():
    def fails():
        raise RuntimeError("no kernel\nfor this")

    assert difference(fails, values()) == "RuntimeError: no kernel"
