"""Models that say flex attention in their configuration run plain attention within a call, and say it again then."""

import pytest
import torch
from attentive import Attentive
from nets import in_threads

from pytorch_grad_cam import LeGrad
from pytorch_grad_cam.attention.flex_attention import flex_as_plain_attention


class Configuration:
    def __init__(self):
        self._attn_implementation = "flex_attention"


class Configured(Attentive):
    """It runs what its configuration says, as models of transformers do; flex attention on a CPU has no gradient."""

    def __init__(self):
        super().__init__("fused")
        self.config, self.ran = Configuration(), []

    def forward(self, x):
        self.ran.append(self.config._attn_implementation)
        if self.config._attn_implementation == "flex_attention":
            with torch.no_grad():
                raise NotImplementedError("FlexAttention does not support backward on CPU")
        return super().forward(x)


def test_plain_attention_within_the_call():
    model, x = Configured(), torch.randn(1, 3, 12, 16)
    torch.testing.assert_close(LeGrad(model)(x, 3, as_tensor=True), LeGrad(Attentive("fused"))(x, 3, as_tensor=True))
    assert set(model.ran) == {"sdpa"}
    assert model.config._attn_implementation == "flex_attention"


def test_put_back_whatever_happens_and_by_the_last_thread():
    model = Configured()
    with pytest.raises(KeyboardInterrupt), flex_as_plain_attention(model):
        raise KeyboardInterrupt
    assert model.config._attn_implementation == "flex_attention"

    def work(index):
        for _ in range(20):
            with flex_as_plain_attention(model):
                assert model.config._attn_implementation == "sdpa"

    in_threads(work, 4)
    assert model.config._attn_implementation == "flex_attention"
    with flex_as_plain_attention(Attentive()):
        pass
