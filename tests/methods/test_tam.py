"""TAM against a literal re-implementation of the paper, in loops, on tiny models of each family."""

import numpy as np
import pytest
import torch
from nets import state_of
from vlms import CASES, IMAGE, VIDEO, TileTokenizer, model_called

from pytorch_grad_cam import TokenTarget
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.demo.reader import DigitsReader, ReaderProcessor
from pytorch_grad_cam.tam import TAM, rank_gaussian, token_activations, without_interference
from pytorch_grad_cam.words.image_tokens import image_tokens

WORDS = 4
GREEDY = {"max_new_tokens": WORDS, "do_sample": False, "eos_token_id": None, "suppress_tokens": [IMAGE, VIDEO]}


def literal_maps(ids, prompt, states, head, views):
    """For each token behind the prompt its map on each view: one logit after the other, in float64."""
    states, rows = states.double().numpy(), head.weight.detach().double().numpy()
    ids = ids.tolist()

    def logit(place, token):
        return max(0.0, float(states[place] @ rows[token]))

    cells = [place for view in views for place in view.flatten().tolist()]
    text = range(max(cells) + 1, len(ids))
    activated = {place: np.array([logit(cell, ids[place]) for cell in cells]) for place in text}
    maps = []
    for said in range(prompt, len(ids)):
        own = activated[said]
        context = [place for place in text if place < said and ids[place] != ids[said]]
        relevance = [logit(place if place < prompt else place - 1, ids[said]) for place in context]
        if sum(relevance) > 0:
            mean = sum(r * activated[place] for r, place in zip(relevance, context, strict=True)) / sum(relevance)
            if mean @ mean > 0:
                own = np.maximum(0, own - (own @ mean) / (mean @ mean) * mean)
        of_views, start = [], 0
        for view in views:
            values = own[start : start + view.numel()].reshape(-1, *view.shape[-2:])
            start += view.numel()
            of_views.append(np.stack([literal_filter(frame) for frame in values]).reshape(view.shape))
        maps.append(of_views)
    return maps


def literal_filter(values):
    padded, filtered = np.pad(values, 1, mode="reflect"), np.zeros_like(values)
    for row, column in np.ndindex(values.shape):
        window = np.sort(padded[row : row + 3, column : column + 3].flatten())
        if window.mean() > 0:
            width = window.std() / window.mean()
            ranks = np.arange(9) - 4
            weights = np.exp(-(ranks**2) / (2 * width**2)) if width > 0 else ranks == 0
            filtered[row, column] = (window * weights).sum() / weights.sum()
    return filtered


@pytest.fixture(scope="module", params=CASES)
def case(request):
    name, inputs, grids = CASES[request.param]
    model = model_called(name)
    with torch.no_grad():
        model(**inputs)  # transformers installs hooks of its own in the first forward
    before, runs = state_of(model), []
    handle = model.register_forward_hook(lambda *_: runs.append(1))
    said = TAM(model, TileTokenizer())(inputs, **GREEDY)
    handle.remove()
    assert state_of(model) == before
    return model, inputs, grids, said, len(runs)


def test_one_cached_pass(case):
    """As many forwards as words, the first of all tokens and the others of one: none is for the maps."""
    *_, said, runs = case
    assert runs == len(said.ids) == WORDS


def test_maps_of_the_paper(case):
    model, inputs, grids, said, _ = case
    assert [tuple(of_image.shape) for of_image in said.evidence] == [(WORDS, *grid) for grid in grids]
    with torch.no_grad():
        whole = model(**said.inputs, output_hidden_states=True)
    views = image_tokens(model, inputs, TileTokenizer())
    flat = [view for of_image in views for view in of_image]
    states, head = whole.hidden_states[-1][0, :-1], model.get_output_embeddings()
    expected = literal_maps(said.inputs["input_ids"][0], said.places.start, states, head, flat)
    for number, of_views in enumerate(expected):
        found = iter(of_views)
        for of_image, evidence in zip(views, said.evidence, strict=True):
            drawn = [torch.from_numpy(next(found)) for _ in of_image]
            if len(drawn) == 2:
                overview = torch.nn.functional.interpolate(drawn[0][None, None], drawn[1].shape, mode="bilinear")[0, 0]
                drawn = [(overview + drawn[1]) / 2]
            np.testing.assert_allclose(evidence[number], drawn[0], atol=1e-5)
    assert max(float(evidence.max()) for evidence in said.evidence) > 1e-3


def test_what_was_said(case):
    model, _, _, said, _ = case
    with torch.no_grad():
        logits = model(**said.inputs).logits[0]
    for place, token, probability in zip(said.places, said.ids, said.probabilities, strict=True):
        assert said.inputs["input_ids"][0, place] == token
        torch.testing.assert_close(logits[place - 1].softmax(0)[token], probability)


def test_beams_and_several_conversations():
    model, inputs = model_called("Llava"), CASES["LLaVA"][1]
    with pytest.raises(ValueError, match="one beam"):
        TAM(model)(inputs, **GREEDY, num_beams=2)
    with pytest.raises(ValueError, match="2 conversations"):
        TAM(model)({name: torch.cat([value] * 2) for name, value in inputs.items()}, **GREEDY)


def test_the_demo_is_such_a_model():
    """Nothing of transformers is needed; what was found with a cache is what one forward of all words gives."""
    torch.manual_seed(0)
    model, inputs = DigitsReader().eval(), ReaderProcessor()(example_scene())
    said = TAM(model)(inputs, max_new_tokens=3)
    with torch.no_grad():
        logits = model(**said.inputs)["logits"][0]
    for place, token, probability in zip(said.places, said.ids, said.probabilities, strict=True):
        torch.testing.assert_close(logits[place - 1].softmax(0)[token], probability)
    assert [of_image.shape for of_image in said.evidence] == [(len(said.ids), 16, 16)]


def test_activations_by_hand():
    states, rows = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    assert token_activations(states, rows).tolist() == [[3.0, 0.0], [2.0, 0.0]]
    assert token_activations(states, rows, torch.tensor([1.0, -3.0])).tolist() == [[4.0, 0.5], [0.0, 0.0]]


def test_interference_by_hand():
    """The mean of (2, 0, 0) and (0, 2, 0), three to one, is (1.5, 0.5, 0); its share in (3, 0, 1) is 4.5 / 2.5."""
    found = without_interference(
        torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([[3.0, 1.0]])
    )
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.0, 1.0]]))
    nothing_before = without_interference(torch.tensor([[3.0, 1.0]]), torch.zeros(2, 2), torch.zeros(1, 2))
    assert nothing_before.tolist() == [[3.0, 1.0]]


def test_the_filter_takes_out_lone_cells_and_keeps_flat_ones():
    lone = torch.zeros(1, 5, 5)
    lone[0, 2, 2] = 9
    assert rank_gaussian(lone).max() < 1
    flat = torch.full((1, 4, 4), 2.5)
    torch.testing.assert_close(rank_gaussian(flat), flat)
    assert rank_gaussian(torch.rand(2, 1, 3)).shape == (2, 1, 3)
    assert rank_gaussian(torch.zeros(1, 3, 3)).tolist() == torch.zeros(1, 3, 3).tolist()


def test_token_targets_by_hand():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 2.0]])
    assert [float(TokenTarget(place)(logits)) for place in (1, 2, -1)] == [3.0, 5.0, 3.0]
    assert float(TokenTarget(2, 1)(logits)) == 4.0
    for place in (0, 3, -2):
        with pytest.raises(IndexError, match="has logits for 1 to 2"):
            TokenTarget(place)(logits)


def test_targets_of_an_answer_are_the_logits_of_what_was_said(case):
    model, _, _, said, _ = case
    with torch.no_grad():
        logits = model(**said.inputs).logits[0]
    for place, token in zip(said.places, said.ids, strict=True):
        assert TokenTarget(place, int(token))(logits) == logits[place - 1, token]
