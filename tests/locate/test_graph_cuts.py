"""The cuts of an autograd graph: which tensors every path goes through, and where tensors are put together."""

import pytest
import torch
from torch.autograd.graph import get_gradient_edge

from pytorch_grad_cam.locate.graph_cuts import Paths, dead_edges, edges_on, joins_before


@pytest.fixture
def image():
    return torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()


def edge(score):
    return get_gradient_edge(score)


def names(nodes):
    return [node.name() for node in nodes]


def test_a_chain_is_cut_by_each_of_its_tensors(image):
    first = image * 2
    second = first.exp()
    is_cut = Paths(edge(second.sum()), image).are_cut_by
    assert is_cut(first)
    assert is_cut(second)


def test_a_branch_is_no_cut_and_what_they_come_from_is(image):
    trunk = image * 2
    left, right = trunk.exp(), trunk.sin()
    both = left + right
    is_cut = Paths(edge(both.sum()), image).are_cut_by
    assert [is_cut(tensor) for tensor in (trunk, left, right, both)] == [True, False, False, True]


def test_a_tensor_that_is_read_twice_by_one_operation_is_a_cut(image):
    trunk = image * 2
    is_cut = Paths(edge((trunk * trunk).sum()), image).are_cut_by
    assert is_cut(trunk)


def test_what_lies_on_all_ways_between_two(image):
    """As in a U-Net: the step up does, what it is joined with, and what comes before the end, does not."""
    before = image * 2
    end = before.exp()
    beside = before.sin()
    left, right = end.cos(), end.tanh()
    joined = left + right + beside
    score = joined.relu().sum()
    tensors = before, end, beside, left, right, joined, score
    is_cut = Paths(edge(score), end).are_cut_by
    assert [is_cut(tensor) for tensor in tensors] == [False, True, False, False, False, True, True]
    assert not any(map(Paths(edge(beside), end).are_cut_by, tensors))


def test_many_branches_in_a_row_are_counted_exactly(image):
    """Two paths at each of 80 steps are 2 ** 80 paths, which a float does not count to one."""
    trunk = image * 2
    x = trunk
    for _ in range(80):
        x = x.sin() + x.cos()
    beside = trunk.exp()
    is_cut = Paths(edge((x + beside).sum()), image).are_cut_by
    assert is_cut(trunk)
    assert not is_cut(x)
    assert not is_cut(beside)


def test_paths_to_parameters_do_not_count(image):
    weight = torch.ones(1, requires_grad=True)
    trunk = image * weight
    behind = trunk + weight.exp()
    assert Paths(edge(behind.sum()), image).are_cut_by(trunk)


def test_each_output_of_an_operation_is_counted_alone(image):
    first, second = (image * 2).split(1, dim=1)
    is_cut = Paths(edge(first.sum()), image).are_cut_by
    assert is_cut(first)
    assert not is_cut(second)


def test_nothing_is_a_cut_where_the_image_is_not_reached(image):
    other = torch.ones(1, requires_grad=True)
    score = (other * 2).sum()
    assert not Paths(edge(score), image).are_cut_by(score)


PUT_TOGETHER = {
    "Cat": lambda left, right: torch.cat([left, right], dim=1),
    "Stack": lambda left, right: torch.stack([left, right], dim=1).flatten(1, 2),
    "IndexPut": lambda left, right: (
        left.new_zeros(1, 4, 4, 4)
        .index_put((torch.tensor([[0]]), torch.tensor([[0, 1]])), left)
        .index_put((torch.tensor([[0]]), torch.tensor([[2, 3]])), right)
    ),
    "CopySlices": lambda left, right: written(left, right),
    "Scatter": lambda left, right: (
        torch.zeros(1, 4, 4, 4)
        .scatter(1, torch.tensor([0, 1]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4), left)
        .scatter(1, torch.tensor([2, 3]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4), right)
    ),
    "Where": lambda left, right: torch.where(
        torch.arange(4).reshape(1, 4, 1, 1) < 2, torch.cat([left, left], 1), torch.cat([right, right], 1)
    ),
}


def written(left, right):
    table = left.new_zeros(1, 4, 4, 4)
    table[:, :2] = left
    table[:, 2:] = right
    return table


@pytest.mark.parametrize("kind", PUT_TOGETHER)
def test_an_edge_without_a_gradient_is_no_path(image, kind):
    trunk = image * 2
    left, right = trunk.exp(), trunk.sin()
    both = PUT_TOGETHER[kind](left, right)
    for score, alive in ((both[:, :2].sum(), left), (both[:, 2:].sum(), right)):
        joins = joins_before(edge(score), [trunk.grad_fn])
        assert any(kind in name for name in names(joins))
        dead = dead_edges(score, joins)
        assert dead
        is_cut = Paths(edge(score), image, dead).are_cut_by
        assert [is_cut(tensor) for tensor in (left, right)] == [alive is left, alive is right]
        assert not Paths(edge(score), image).are_cut_by(alive)


def test_no_edge_is_dead_where_all_are_read(image):
    both = torch.cat([image.exp(), image.sin()], dim=1)
    score = both.sum()
    joins = joins_before(edge(score), [])
    assert names(joins) == ["CatBackward0"]
    assert dead_edges(score, joins) == set()
    assert len(edges_on(joins[0], set())) == 2


def test_a_gate_that_is_shut_is_no_dead_edge(image):
    """Its gradient is zero by accident of this image: only what puts tensors together is looked at."""
    trunk = image * 2
    gate = (trunk.mean() * 0 - 1).relu()
    score = (trunk.exp() + gate * trunk.sin()).sum()
    assert joins_before(edge(score), []) == []


def test_joins_come_before_those_that_they_lead_to(image):
    inner = torch.cat([image.exp(), image.sin()], dim=1)
    outer = torch.stack([inner, inner.cos()])
    assert names(joins_before(edge(outer.sum()), [])) == ["StackBackward0", "CatBackward0"]


def test_joins_behind_the_ends_are_left_out(image):
    inner = torch.cat([image.exp(), image.sin()], dim=1)
    behind = inner * 2
    outer = torch.stack([behind, behind.cos()])
    assert names(joins_before(edge(outer.sum()), [behind.grad_fn])) == ["StackBackward0"]


def test_a_join_with_one_living_edge_is_none(image):
    both = torch.cat([image.exp(), image.sin()], dim=1)
    score = both[:, :2].sum()
    dead = dead_edges(score, joins_before(edge(score), []))
    assert joins_before(edge(score), [], dead) == []


def test_no_node_has_no_dead_edge(image):
    assert dead_edges(image.sum(), []) == set()
