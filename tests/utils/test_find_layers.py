import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam.utils.find_layers import (
    find_layer_predicate_recursive,
    find_layer_types_recursive,
    replace_all_layer_type_recursive,
    replace_layer_recursive,
)


class SubclassedReLU(nn.ReLU):
    pass


def nested():
    model = nn.Sequential(convolutional(), nn.Sequential(nn.ReLU(), SubclassedReLU()))
    model.removed = None
    return model


def test_find():
    model = nested()
    assert find_layer_types_recursive(model, [nn.ReLU]) == [model[0].first, model[0].last, model[1][0]]
    named = find_layer_predicate_recursive(model, lambda layer: isinstance(layer, nn.ReLU))
    assert named == [model[0].first, model[0].last, *model[1]]
    assert find_layer_predicate_recursive(model, lambda layer: layer is model) == []


def test_replace_one():
    model = nested()
    old, new = model[1][0], nn.Identity()
    assert replace_layer_recursive(model, old, new)
    assert model[1][0] is new
    assert not replace_layer_recursive(model, old, new)


def test_replace_all_of_a_type():
    model, x = convolutional(), images()
    shared = nn.ReLU()
    model.add_module("again", shared)
    model.add_module("and_again", shared)
    replace_all_layer_type_recursive(model, nn.ReLU, nn.Identity())
    assert find_layer_types_recursive(model, [nn.ReLU]) == []
    torch.testing.assert_close(
        model(x), model.head(model.tanh(model.hidden(model.pool(model.conv(model.stem(x))).flatten(1))))
    )
