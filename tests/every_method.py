"""The methods that a test with an argument `method` runs for, and the markers that name some of them."""

import pytorch_grad_cam
from pytorch_grad_cam import CAM, BaseCAM, MetaCAM, SlidingWindowCAM
from pytorch_grad_cam.attention.attention_cam import AttentionCAM

EXPORTED = [
    method
    for name in pytorch_grad_cam.__all__
    if isinstance(method := getattr(pytorch_grad_cam, name), type) and issubclass(method, BaseCAM | MetaCAM)
]
EXPORTED.remove(BaseCAM)
EXPORTED.remove(MetaCAM)
# A way to call a method, on images of any size; its contract is in tests/volumes.
EXPORTED.remove(SlidingWindowCAM)
# Those on attention explain no convolutional network; their contract is in test_attention_methods.py.
ATTENTION_METHODS = [method for method in EXPORTED if issubclass(method, AttentionCAM)]
# CAM refuses a head that is not pooling and one linear layer; its contract is in test_cam.py.
METHODS = [method for method in EXPORTED if method not in (*ATTENTION_METHODS, CAM)]

# Tests of every method are slow for these: many forwards where others have one, in ways that other methods take, too.
COSTLY = ["SSCAM", "ISCAM", "GScoreCAM", "SESS"]


def named(mark) -> set[str]:
    """The methods that a marker names."""
    names = {method.__name__ for method in METHODS}
    if not mark.args:
        raise ValueError(f"{mark.name} takes names of methods")
    for name in mark.args:
        if name not in names:
            raise ValueError(f"{mark.name} names {name!r}, which is no method: {sorted(names)}")
    return set(mark.args)


def excepted(mark) -> set[str]:
    """The methods that `@pytest.mark.except_for("RandomCAM", ..., reason="why")` takes away from a test."""
    if mark.kwargs.keys() != {"reason"}:
        raise ValueError(f"except_for takes names of methods and the keyword `reason`, not {mark.kwargs}")
    return named(mark)
