"""Images that a model takes as patches in their own proportions, with their grids in another input."""

import warnings

import literal
import numpy as np
import pytest
import torch
from nets import CLASSES, Residual
from torch import nn

from pytorch_grad_cam import EigenCAM, GradCAM, ScoreCAM
from pytorch_grad_cam.engine.inputs import PackedPatches
from pytorch_grad_cam.locate.search import layout_of

ROWS, COLUMNS = 4, 6
NUMBERS = DIM = 12


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Packed(nn.Module):
    """NaFlex: patches (N, patches, numbers), padded, of which a mean is taken; `shapes` says which are of the image."""

    def __init__(self, key, shapes):
        super().__init__()
        torch.manual_seed(0)
        self.key, self.shapes = key, shapes
        self.embed, self.body, self.norm = nn.Linear(NUMBERS, DIM), Residual(DIM), nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, **inputs):
        tokens = self.norm(self.body(self.embed(inputs[self.key])))
        shapes = inputs[self.shapes]
        cells = shapes.prod(1) if shapes.ndim == 2 else shapes.amax(1).add(1).prod(1)
        is_cell = torch.arange(tokens.shape[1]) < cells[:, None]
        return self.head((tokens * is_cell[..., None]).square().sum(1) / cells[:, None])


def packed(key, shapes, samples=1, grid=(ROWS, COLUMNS)):
    """Inputs with five patches of padding, of zeros; the grids as shapes or as the patches' coordinates."""
    cells = grid[0] * grid[1]
    patches = torch.cat([drawn(samples, cells, NUMBERS), torch.zeros(samples, 5, NUMBERS)], dim=1)
    of_images = torch.tensor([grid] * samples)
    if shapes == "patch_coord":
        coordinates = torch.stack(torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij"), dim=-1)
        of_images = torch.cat([coordinates.flatten(0, 1), torch.zeros(5, 2, dtype=torch.long)]).repeat(samples, 1, 1)
    return {key: patches, shapes: of_images}


class BeginningWithPlaces(Packed):
    """Pix2Struct: the first two numbers of a patch are its row and column, from 1, of padding 0."""

    def __init__(self):
        super().__init__("flattened_patches", "flattened_patches")
        self.rows, self.columns = nn.Embedding(ROWS + 1, DIM), nn.Embedding(COLUMNS + 1, DIM)

    def forward(self, flattened_patches):
        rows, columns = flattened_patches[..., :2].long().unbind(-1)
        tokens = self.embed(flattened_patches[..., 2:]) + self.rows(rows) + self.columns(columns)
        is_cell = (rows > 0)[..., None]
        return self.head((self.norm(self.body(tokens)) * is_cell).square().sum(1) / is_cell.sum(1))


class WordsAndPatches(nn.Module):
    """A language model that looks at images: patches (patches of all images, numbers) come two by two, are merged and
    put in the place of words; the score is that of the last word.
    """

    spatial_merge_size = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.merge = nn.Embedding(10, DIM), nn.Linear(4 * NUMBERS, DIM)
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(2))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(DIM, 2, batch_first=True) for _ in range(2))
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, input_ids, pixel_values, image_grid_thw):
        patches = self.merge(pixel_values.unflatten(0, (-1, 4)).flatten(1))
        tokens = self.words(input_ids)
        tokens = tokens.masked_scatter((input_ids == 9)[..., None], patches)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            normed = norm(tokens)
            tokens = tokens + attention(normed, normed, normed, need_weights=False)[0]
        return self.head(tokens[:, -1])


class WithDecoder(WordsAndPatches):
    """Says which of its modules read text: there are no maps of the image in them."""

    def __init__(self):
        super().__init__()
        self.patch_norm = nn.LayerNorm(NUMBERS)
        self.decoder = nn.ModuleList([self.norms, self.attentions])

    def get_decoder(self):
        return self.decoder

    def forward(self, input_ids, pixel_values, image_grid_thw):
        return super().forward(input_ids, self.patch_norm(pixel_values), image_grid_thw)


def with_words(samples=1, grid=(ROWS, COLUMNS)):
    cells = grid[0] * grid[1]
    ids = torch.tensor([[1, 2, *[9] * (cells // 4), *range(1, 9), *range(1, 9), *range(1, 9)]] * samples)
    shapes = torch.tensor([[1, *grid]] * samples)
    return {"input_ids": ids, "pixel_values": drawn(samples * cells, NUMBERS), "image_grid_thw": shapes}


NAFLEX = [("pixel_values", "spatial_shapes"), ("patches", "patch_coord")]


@pytest.mark.parametrize("layer", [None, "norm"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("key", "shapes"), NAFLEX)
def test_patches_with_padding_have_a_map_with_a_cell_for_each_patch(key, shapes, samples, layer):
    model, inputs = Packed(key, shapes).eval(), packed(key, shapes, samples)
    cam = GradCAM(model, layer)
    maps = cam(inputs, 1)

    def as_map(tokens):
        return tokens[:, : ROWS * COLUMNS].mT.unflatten(2, (ROWS, COLUMNS))

    assert maps.shape == (samples, ROWS, COLUMNS)
    expected = literal.grad_cam(model, model.norm, inputs, lambda output: output[:, 1].sum(), (ROWS, COLUMNS), as_map)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [None, "norm"])
@pytest.mark.parametrize("samples", [1, 3])
def test_patches_that_begin_with_their_places(samples, layer):
    model, inputs = BeginningWithPlaces().eval(), packed("patches", "patch_coord", samples)
    places = torch.where(torch.arange(ROWS * COLUMNS + 5)[:, None] < ROWS * COLUMNS, inputs["patch_coord"] + 1, 0)
    inputs = {"flattened_patches": torch.cat([places, inputs["patches"]], dim=2)}

    def as_map(tokens):
        return tokens[:, : ROWS * COLUMNS].mT.unflatten(2, (ROWS, COLUMNS))

    maps = GradCAM(model, layer)(inputs, 1)
    assert maps.shape == (samples, ROWS, COLUMNS)
    expected = literal.grad_cam(model, model.norm, inputs, lambda output: output[:, 1].sum(), (ROWS, COLUMNS), as_map)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
def test_patches_in_the_place_of_words_have_a_map_with_a_cell_for_each_patch(samples):
    model, inputs = WordsAndPatches().eval(), with_words(samples)
    maps = GradCAM(model, "norms.1")(inputs, 1)
    grid = ROWS // 2, COLUMNS // 2
    layout = layout_of(model, inputs, model.norms[1], PackedPatches("pixel_values", "image_grid_thw", 2))
    assert (layout.grid, layout.spans) == (grid, ((2, 8),))

    def as_map(tokens):
        return tokens[:, 2:8].mT.unflatten(2, grid)

    expected = literal.grad_cam(
        model, model.norms[1], inputs, lambda output: output[:, 1].sum(), (ROWS, COLUMNS), as_map
    )
    assert maps.shape == (samples, ROWS, COLUMNS)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(("layer", "name"), [(None, "merge"), ("merge", "merge"), ("patch_norm", "patch_norm")])
def test_patches_of_all_images_one_behind_the_other(layer, name, samples):
    """Those that are merged lie row by row, those in front of the merging two by two."""
    rows, columns = 2 * ROWS, 2 * COLUMNS
    model, inputs = WithDecoder().eval(), with_words(samples, (rows, columns))
    cam = GradCAM(model, layer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = cam(inputs, 1)
    if layer is None:
        assert (cam.location.name, cam.location.layout.grid) == (name, (rows // 2, columns // 2))
        assert cam.location.shape == (rows * columns // 4, DIM)

    def as_map(patches):
        squares = patches.unflatten(0, (samples, rows // 2, columns // 2, -1)) if name == "patch_norm" else None
        if squares is None:
            return patches.unflatten(0, (samples, rows // 2, columns // 2)).movedim(-1, 1)
        upper, lower = (torch.stack([squares[..., at, :], squares[..., at + 1, :]], 3) for at in (0, 2))
        return torch.stack([upper.flatten(2, 3), lower.flatten(2, 3)], 2).flatten(1, 2).movedim(-1, 1)

    expected = literal.grad_cam(
        model, model.get_submodule(name), inputs, lambda output: output[:, 1].sum(), (rows, columns), as_map
    )
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_patches_two_by_two_lie_in_their_places():
    inputs, place = with_words(2), PackedPatches("pixel_values", "image_grid_thw", 2)
    image = place.image_in(inputs)
    assert image.shape == (2, NUMBERS, ROWS, COLUMNS)
    # The third patch is the first of the second row, the fifth the third of the first row.
    for number, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]):
        assert torch.equal(image[0, :, row, column], inputs["pixel_values"][number])
    assert torch.equal(place.with_image(inputs, image)["pixel_values"], inputs["pixel_values"])


@pytest.mark.parametrize("cam_class", [EigenCAM, ScoreCAM])
def test_other_methods_read_packed_patches(cam_class):
    assert cam_class(Packed(*NAFLEX[0]).eval())(packed(*NAFLEX[0], 2), 1).shape == (2, ROWS, COLUMNS)
    assert cam_class(WordsAndPatches().eval())(with_words(2), 1).shape == (2, ROWS, COLUMNS)


def test_images_of_several_grids_and_videos_are_refused():
    inputs = packed(*NAFLEX[0], 2)
    inputs["spatial_shapes"] = torch.tensor([[ROWS, COLUMNS], [COLUMNS, ROWS]])
    with pytest.raises(
        ValueError, match=r"several grids of patches, \[\(4, 6\), \(6, 4\)\]: call the CAM once for each"
    ):
        GradCAM(Packed(*NAFLEX[0]).eval())(inputs, 1)
    inputs = with_words()
    inputs["image_grid_thw"] = torch.tensor([[2, 2, COLUMNS]])
    with pytest.raises(ValueError, match="a grid of patches 2 x 2 x 6: maps are made for images, not videos"):
        GradCAM(WordsAndPatches().eval())(inputs, 1)
