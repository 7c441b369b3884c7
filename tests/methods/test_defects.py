"""What was wrong in grad-cam 1.5.7, row by row of the list of its defects: none of it is here.

The numbers are those of the list; `net` and `x` are its. First silently wrong results, then damage, then crashes.
"""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from nets import Transformer, images, in_threads, state_of
from PIL import Image
from torch import nn
from torchvision import models

import pytorch_grad_cam as P
from pytorch_grad_cam.ablation_cam import ablation_cam_weights
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.cam_warning import CamWarning
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import run_dff_on_image
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
from pytorch_grad_cam.metrics.perturbation_confidence import RemoveLeastRelevantFirst, RemoveMostRelevantFirst
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined
from pytorch_grad_cam.sobel_cam import sobel_cam
from pytorch_grad_cam.utils.image import (
    preprocess_image,
    scale_accross_batch_and_channels,
    scale_cam_image,
    show_cam_on_image,
    show_factorization_on_image,
)
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    RawScoresOutputTarget,
    SemanticSegmentationTarget,
    SoftmaxOutputTarget,
)
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

T = ClassifierOutputTarget


def net(in_place: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential()
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(in_place), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(in_place)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    for name, layer in zip(["c1", "r1", "c2", "r2", "p", "f", "fc"], layers, strict=True):
        model.add_module(name, layer)
    return model


@pytest.fixture
def m() -> nn.Sequential:
    return net()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def both(cam, x):
    return cam(x, [T(0)] * 2)


class TestSilentlyWrong:
    @pytest.mark.parametrize("cam_class", [P.GradCAM, P.EigenCAM, P.LayerCAM])
    def test_1_in_place_operation_behind_the_layer(self, cam_class, x):
        maps = [both(cam_class(net(in_place), "c2"), x) for in_place in (True, False)]
        np.testing.assert_array_equal(*maps)

    def test_1_densenets_features(self, x):
        torch.manual_seed(0)
        model = models.DenseNet(4, (2, 2), 8, num_classes=5).eval()
        kept = []
        cam = P.GradCAM(model, model.features[-1])
        cam.get_cam_image = lambda image, layer, targets, a, g, smooth: kept.append(a) or a.sum(1)
        cam(torch.randn(1, 3, 64, 64), 0)
        assert kept[0].min() < 0, "the output of the last norm, before the rectifier in place"

    def test_2_ablation_of_a_negative_score(self, m, x):
        signs = []
        for bias in (5.0, -50.0):
            m.fc.bias.data[0] = bias
            cam = P.AblationCAM(m, [m.r2])
            activations = m[:4](x[:1]).detach().numpy()
            signs.append(np.sign(cam.get_cam_weights(x[:1], m.r2, [T(0)], activations, None)))
        np.testing.assert_array_equal(*signs)
        assert torch.isfinite(ablation_cam_weights(torch.tensor(0.0), torch.ones(3))).all()

    def test_3_ablated_is_zero_in_every_row(self):
        layer = P.AblationLayer()
        layer.indices = np.arange(4)
        layer.set_next_batch(0, torch.randn(1, 4, 2, 2), 4)
        rows = layer(None)
        assert [rows[i, i].abs().max().item() for i in range(4)] == [0, 0, 0, 0]

    def test_3_whatever_the_batch_size(self, m, x):
        maps = [P.AblationCAM(m, "c2", batch_size=size)(x, 0) for size in (1, 4, 8)]
        for other in maps[1:]:
            np.testing.assert_allclose(other, maps[0], atol=1e-5)

    def test_4_share_of_the_channels(self, m, x):
        activations = m[:4](x[:1]).detach().numpy()
        for ratio, expected in ((0.25, 2), (0.5, 4), (0.75, 6)):
            cam = P.AblationCAM(m, [m.r2], ratio_channels_to_ablate=ratio)
            assert np.count_nonzero(cam.get_cam_weights(x[:1], m.r2, [T(0)], activations, None)) == expected

    def test_5_sign_of_the_first_component(self):
        rng = np.random.default_rng(0)
        values = np.abs(rng.standard_normal((1, 16, 8, 8)))
        for _ in range(30):
            permuted = get_2d_projection(values[:, rng.permutation(16)])
            assert np.corrcoef(get_2d_projection(values).ravel(), permuted.ravel())[0, 1] > 0.99

    def test_6_epsilon_of_grad_cam_plusplus(self):
        for scale in (1e-5, 1e-2):
            g = np.ones((1, 2, 4, 4)) * np.array([1, 2]).reshape(1, 2, 1, 1) * scale
            weights = P.GradCAMPlusPlus.get_cam_weights(None, None, None, None, np.zeros_like(g), g)[0]
            assert weights[1] / weights[0] == pytest.approx(2)

    def test_7_epsilon_of_the_scaling(self):
        ramp = np.linspace(0, 1, 16).reshape(1, 4, 4)
        assert [scale_cam_image(ramp * k).max() for k in (1, 1e-6, 1e-8, 1e-10)] == [1, 1, 1, 1]

    def test_8_too_few_targets(self, m, x):
        with pytest.raises(ValueError, match="1 target"):
            P.GradCAM(m, [m.c2])(x, [T(0)])

    def test_9_sequential_is_one_layer(self, m, x):
        block = nn.Sequential(*m[:4])
        model = nn.Sequential(block, *m[4:])
        np.testing.assert_array_equal(both(P.GradCAM(model, block), x), both(P.GradCAM(model, [block]), x))

    def test_10_outputs_and_class_of_aug_smooth(self, m, x):
        cam = P.GradCAM(m, [m.c2])
        cam(x, [T(0)] * 2, aug_smooth=True)
        torch.testing.assert_close(cam.outputs, m(x).detach())
        explained = []
        left = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())

        class TopOfTheLeft(nn.Module):
            def __init__(self):
                super().__init__()
                self.left = left

            def forward(self, images):
                halves = self.left(images).mean((1, 2)).unflatten(1, (2, -1)).mean(2)
                explained.append(halves.argmax(1).tolist())
                return halves

        asked = []
        cam = P.GradCAM(TopOfTheLeft(), left)
        cam.get_cam_weights = lambda image, layer, targets, a, g: (
            asked.append([t.category for t in targets]) or g.mean((2, 3))
        )
        cam(x, aug_smooth=True)
        assert len({tuple(categories) for categories in asked}) == 1, "one class, that of the image itself"
        assert len({tuple(categories) for categories in explained}) > 1, "though flipping changes the highest one"

    @pytest.mark.parametrize("remove", [RemoveMostRelevantFirst, RemoveLeastRelevantFirst])
    @pytest.mark.parametrize("percentile", [10, 50, 90])
    def test_11_ties_in_sparse_maps(self, x, remove, percentile):
        q, kept = torch.zeros(16, 16), []
        q[4:8, 4:8] = 1
        remove(percentile, lambda image, mask: kept.append(int(mask.sum())))(x[0], q)
        assert kept[0] == pytest.approx(256 * percentile / 100, abs=1)

    def test_12_otsu_removes_the_relevant(self, x):
        q, kept = torch.zeros(16, 16), []
        q[:, :8] = 0.9
        RemoveMostRelevantFirst("auto", lambda image, mask: kept.append((float(mask[0, 0]), float(mask[0, 15]))))(
            x[0], q
        )
        assert kept == [(0, 1)]

    def test_13_colours_and_ranges_of_the_overlay(self):
        black, quarter = np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.25)
        hot = show_cam_on_image(black, np.full((2, 2), 1.000001), use_rgb=True)[0, 0]
        assert hot[0] > hot[2], "not cold"
        assert show_cam_on_image(quarter, np.zeros((2, 2)), image_weight=1.0)[0, 0, 0] == pytest.approx(64, abs=1)
        for image, mask in ((black - 1.5, np.zeros((2, 2))), (black, np.full((2, 2), np.nan))):
            with pytest.raises(ValueError, match=r"."):
                show_cam_on_image(image, mask)

    def test_14_order_of_registration(self):
        class Reversed(nn.Module):
            def __init__(self, first: str) -> None:
                super().__init__()
                layers = {"a": nn.Conv2d(3, 8, 3, padding=1), "b": nn.Conv2d(8, 8, 3, padding=1)}
                for name in (first, "ab".replace(first, "")):
                    self.add_module(name, layers[name])
                self.fc = nn.Linear(8, 5)

            def forward(self, x):
                return self.fc(self.b(self.a(x).relu()).relu().mean((2, 3)))

        other = Reversed("b")
        one = Reversed("a")
        one.load_state_dict(other.state_dict())
        x = images()
        np.testing.assert_allclose(P.FullGrad(one, [])(x, 0), P.FullGrad(other, [])(x, 0), atol=1e-6)

        class Norm(nn.BatchNorm2d):
            pass

        torch.manual_seed(0)
        plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        plain[1].running_mean += 0.3
        subclassed = copy.deepcopy(plain)
        subclassed[1].__class__ = Norm
        np.testing.assert_array_equal(P.FullGrad(plain, [])(x, 0), P.FullGrad(subclassed, [])(x, 0))


class TestDamage:
    def test_15_errors_within_with(self, m, x):
        for wrong in (lambda cam: [][0], lambda cam: cam(x, [T(99)] * 2)):
            with pytest.raises(IndexError), P.GradCAM(m, [m.c2]) as cam:
                wrong(cam)

    def test_16_training_mode_gradients_and_graph(self, m, x):
        m.train()
        m(x).sum().backward()
        before = {name: parameter.grad.clone() for name, parameter in m.named_parameters()}
        cam = P.GradCAM(m, [m.c2])
        both(cam, x)
        assert m.training
        assert all(torch.equal(before[name], parameter.grad) for name, parameter in m.named_parameters())
        assert cam.outputs.grad_fn is None

    def test_17_other_forwards_leave_nothing(self, m, x):
        cam, other = P.GradCAM(m, [m.c2]), P.ScoreCAM(m, [m.c2])
        for _ in range(5):
            m(x)
        assert cam.activations_and_grads.activations == []
        both(other, x)
        assert cam.activations_and_grads.activations == other.activations_and_grads.activations == []

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_18_an_exception_leaves_the_model(self, m, x, error):
        def raising(output):
            raise error

        before = state_of(m)
        with pytest.raises(error):
            P.AblationCAM(m, [m.r2])(x, [raising] * 2)
        with pytest.raises(RuntimeError):
            P.GuidedBackpropReLUModel(m)(torch.randn(1, 4, 8, 8))
        P.GuidedBackpropReLUModel(m)(x[:1], 0)
        assert state_of(m) == before
        assert m.r1 is not m.r2

    def test_19_the_callers_image(self, m, x):
        guided, image = P.GuidedBackpropReLUModel(m), x.clone()
        first = guided(image[:1], 0)
        again = guided(image[:1], 0)
        np.testing.assert_array_equal(first, again)
        assert not np.shares_memory(first, again)
        assert image.grad is None
        assert not image.requires_grad
        assert len(guided(image, 0)) == 2, "both images"


class TestCrashes:
    def test_20_no_gradient_captured(self, m, x):
        m[:4].requires_grad_(False)
        assert both(P.GradCAM(m, [m.c2]), x).max() == 1
        with pytest.raises(ValueError, match="not a module of the model"):
            P.GradCAM(m, [nn.Conv2d(3, 8, 3)])(x, 0)
        with P.GradCAM(m, [m.c2]) as cam:
            pass
        with pytest.raises(RuntimeError, match="released"):
            both(cam, x)

        class Pair(nn.Module):
            def forward(self, x):
                return x, 1

        class First(nn.Module):
            def forward(self, pair):
                return pair[0]

        model = nn.Sequential(m.c1, Pair(), First(), *m[1:])
        expected = both(P.GradCAM(m, "c1"), x)
        np.testing.assert_allclose(both(P.GradCAM(model, [model[1]]), x), expected, atol=1e-6)
        unpacked = P.GradCAM(model, [model[1]], reshape_transform=lambda pair: pair[0])
        np.testing.assert_allclose(both(unpacked, x), expected, atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("cam_class", [P.GradCAM, P.EigenCAM, P.ScoreCAM, P.AblationCAM])
    def test_21_half_precision(self, m, x, dtype, cam_class):
        m.c2.weight.data[0], m.c2.bias.data[0] = 0, 0  # a dead channel
        expected = both(cam_class(m, [m.c2]), x)
        found = both(cam_class(m.to(dtype), [m.c2]), x.to(dtype))
        assert np.isfinite(found).all()
        assert np.abs(found - expected).max() < 0.15

    def test_22_shapley_of_two_layers_and_of_tokens(self, m, x):
        m.fc = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5))
        assert both(P.ShapleyCAM(m, [m.c1, m.c2]), x).max() == 1
        with P.ShapleyCAM(Transformer().eval(), "norm", reshape_transform=_grid) as cam:
            assert cam(images(), 0).max() == 1

    def test_23_a_child_that_is_none(self, m, x):
        class Trained(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.aux = m, nn.Linear(1, 1)
                self.aux = None

            def forward(self, x):
                return self.body(x)

        model = Trained()
        for cam in (P.FullGrad(model, []), P.AblationCAM(model, "body.c2")):
            assert both(cam, x).max() == 1
        assert P.GuidedBackpropReLUModel(model)(x[:1], 0).any()

    def test_24_pictures_of_concepts(self):
        explanations = np.random.default_rng(0).random((3, 16, 16))
        kept = explanations.copy()
        assert show_factorization_on_image(np.zeros((16, 16, 3)), explanations).shape == (16, 16, 3)
        np.testing.assert_array_equal(explanations, kept)

    def test_25_dff_without_a_transform(self, m, x):
        picture = Image.new("RGB", (16, 16))
        assert run_dff_on_image(m, m.r2, m.fc, picture, x[0], n_components=2).shape[::2] == (16, 3)
        with P.DeepFeatureFactorization(m, m.r2, computation_on_concepts=m.fc) as factorization:
            assert factorization(x, 2)[2].shape == (2, 5)


def _grid(tokens: torch.Tensor) -> torch.Tensor:
    return tokens[:, 1:].mT.unflatten(2, (3, 4))


class TestFurther:
    """The bullets below the table, in their order."""

    def test_projection_of_a_large_layer_needs_no_large_matrix(self):
        assert get_2d_projection(np.random.default_rng(0).random((1, 4, 224, 224), dtype=np.float32)).shape == (
            1,
            224,
            224,
        )

    def test_score_cam_makes_one_chunk_of_masks_at_a_time(self, m, x):
        sizes = []
        m.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        cam = P.ScoreCAM(m, [m.c2])
        cam.batch_size = 3
        both(cam, x)
        assert max(sizes[2:]) == 3

    @pytest.mark.parametrize("cam_class", [P.ScoreCAM, P.AblationCAM, P.FullGrad])
    def test_volumes(self, cam_class):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 5)
        )
        maps = cam_class(model, [] if cam_class is P.FullGrad else [model[1]])(torch.randn(1, 3, 4, 6, 8), 0)
        assert maps.shape == (1, 4, 6, 8)
        assert (maps.min(), maps.max()) == (0, 1)

    def test_volumes_are_enlarged_linearly(self):
        ramp = np.array([0.0, 1.0])[:, None, None] * np.ones((1, 2, 2))
        enlarged = scale_cam_image([ramp], (4, 4, 4))[0]
        assert (enlarged.min(), enlarged.max()) == (0, 1)
        np.testing.assert_allclose(enlarged[:, 0, 0], [0, 0.25, 0.75, 1], atol=1e-6)

    def test_constructor_options_of_every_class(self, m, x, method):
        import ttach

        options = {"tta_transforms": ttach.Compose([ttach.HorizontalFlip()])}
        cam = method(m, [] if method is P.FullGrad else ["c2"], **options)
        cam.batch_size = 4
        assert cam(x, 0, aug_smooth=True).shape == (2, 16, 16)

    @pytest.mark.slow
    @pytest.mark.parametrize("meta", [P.RefineCAM, P.FinerCAM, P.SESS])
    def test_meta_methods_are_whole(self, meta, m, x):
        with meta(m, ["r1", "c2"], compute_input_gradient=True) as cam:
            assert cam(x, aug_smooth=True).shape == (2, 16, 16)
            torch.testing.assert_close(cam.outputs, m(x).detach())
        with P.SESS(m, ["c2"], base_method=P.FinerCAM) as cam:
            assert cam(x).max() == 1

    def test_finer_cam_of_one_logit_and_of_lists(self, x):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
        assert P.FinerCAM(model, "1")(x).shape == (2, 16, 16)
        assert P.FinerCAM(net(), "c2")(x, target_idx=[1, 2]).shape == (2, 16, 16)

    def test_targets_have_a_default(self, m, x):
        assert P.GradCAM(m, ["c2"])(x).shape == (2, 16, 16)

    @pytest.mark.parametrize("cam_class", [P.AblationCAM, P.GradCAM, P.ScoreCAM])
    def test_order_of_the_layers(self, cam_class, m, x):
        late_first = cam_class(m, [m.c2, m.c1])(x, 0)
        np.testing.assert_allclose(late_first, cam_class(m, [m.c1, m.c2])(x, 0), atol=1e-6)

    def test_layer_called_twice_and_dead_branch(self, x):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.stem, self.conv, self.dead = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(3, 8, 1)

            def forward(self, x):
                self.dead(x)
                return self.conv(self.conv(self.stem(x)).relu()).mean((2, 3))

        model = Twice()
        runs = [P.GradCAM(model, "conv", call_index=index)(x, 0) for index in (0, 1)]
        mean = np.mean(runs, axis=0)
        span = np.ptp(mean, axis=(1, 2), keepdims=True)
        expected = (mean - mean.min((1, 2), keepdims=True)) / span
        np.testing.assert_allclose(P.GradCAM(model, "conv")(x, 0), expected, atol=1e-5)
        with pytest.raises(ValueError, match="dead"):
            P.GradCAM(model, ["dead", "conv"])(x, 0)

    def test_targets_of_several_outputs(self, m, x):
        for target in (SoftmaxOutputTarget(), RawScoresOutputTarget()):
            with pytest.raises(ValueError, match=r"."):
                P.GradCAM(m, ["c2"])(x, [target] * 2)
        mask = torch.zeros(4, 4)
        mask[0] = 1
        assert SemanticSegmentationTarget(1, mask)(torch.ones(3, 4, 4)) == 4

    def test_best_box_of_the_same_label(self):
        output = {
            "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]]),
            "labels": torch.tensor([2, 1]),
            "scores": torch.tensor([0.9, 0.5]),
        }
        assert FasterRCNNBoxScoreTarget([1], [[0, 0, 10, 10]], 0.5)(output) == pytest.approx(1.4)

    def test_token_grid_of_the_wrong_shape(self):
        with pytest.raises(ValueError, match="197 tokens are no grid of 7 x 14"):
            vit_reshape_transform(torch.zeros(1, 197, 8), height=7, width=14)
        with pytest.warns(CamWarning, match="gives 2 x 2 cells, but an image of 4 x 16 has 1 x 4"):
            P.GradCAM(Transformer().eval(), "norm", vit_reshape_transform)(torch.randn(1, 3, 4, 16), 0)

    def test_default_ablation_layer_is_not_shared(self, m, x):
        layers = [P.AblationCAM(m, "c2").ablation_layer for _ in range(2)]
        assert layers[0] is None or layers[0] is not layers[1]

    def test_the_multilayer_module_leads_to_the_method(self):
        from pytorch_grad_cam.ablation_cam_multilayer import AblationCAM

        assert AblationCAM is P.AblationCAM

    def test_metrics(self, m, x):
        maps = P.GradCAM(m, "c2")(x, 0)
        scores, pictures = DropInConfidence()(x, maps, [T(0)] * 2, m, return_visualization=True)
        assert scores.shape == (2,)
        assert len(pictures) == 2
        lonely = NoisyLinearImputer(noise=0, weighting=[((0, 1), 1.0)])
        mask = torch.ones(4, 4)
        mask[1, 1] = 0
        assert lonely(torch.arange(16.0).reshape(1, 4, 4), mask)[0, 1, 1] == 6, "its only neighbour"
        runs = []
        m.register_forward_pre_hook(lambda module, inputs: runs.append(len(inputs[0])))
        combined = ROADCombined()
        first = combined(x[:1], maps[:1], [T(0)], m)
        assert sum(runs) == 19, "the image and two of each of nine percentiles"
        np.testing.assert_array_equal(first, combined(x[:1], maps[:1], [T(0)], m))

    def test_preprocessed_images_are_float32(self):
        assert preprocess_image(np.zeros((4, 4, 3))).dtype == torch.float32

    def test_model_without_parameters(self):
        model = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        assert P.GradCAM(model, "0")(torch.rand(1, 3, 8, 8), 0).shape == (1, 8, 8)

    @pytest.mark.usefixtures("own_garbage")
    def test_a_failed_constructor_is_silent_at_the_end(self, m, capfd):
        with pytest.raises(ValueError, match="no such"):
            P.GradCAM(m, ["no such"])
        gc.collect()
        assert capfd.readouterr().err == ""

    def test_compiled_before(self, m, x):
        compiled = torch.compile(m, backend="eager")
        compiled(x)
        np.testing.assert_allclose(both(P.GradCAM(compiled, [m.c2]), x), both(P.GradCAM(net(), "c2"), x), atol=1e-6)

    def test_two_threads(self, m, x):
        cam = P.GradCAM(m, ["c2"])
        expected = [cam(x, category) for category in range(2)]
        wrong = []

        def work(index):
            wrong.extend(index for _ in range(60) if not np.array_equal(cam(x, index), expected[index]))

        in_threads(work, 2)
        assert not wrong

    def test_one_cell_and_constant_maps_have_a_reason(self, m, x):
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.Flatten())
        with pytest.warns(CamWarning, match=r"."):
            assert not P.GradCAM(model, "1")(x, 0).any()

    def test_names_of_modules(self):
        from pytorch_grad_cam.metrics.arcc import ARCC

        assert ARCC

    def test_full_grad_rescales_an_image_as_a_whole(self):
        from pytorch_grad_cam.engine.rescaled_contributions import Contributions

        strong = torch.zeros(1, 2, 2, 2)
        strong[0, 0, 0, 0], strong[0, 1, 1, 1] = 10, 0.1
        assert Contributions.of([torch.ones(2)], [strong]).rescaled()[0, 0, 1, 1] < 0.02

    def test_xgrad_cam_of_a_vanishing_sum(self):
        a = np.array([1e-8, -1e-8, -1e-7, 0]).reshape(1, 1, 2, 2)
        assert np.isfinite(P.XGradCAM.get_cam_weights(None, None, None, None, a, np.ones_like(a))).all()


class TestDownstream:
    """What other projects do with the classes (3c of the list)."""

    def test_mmpretrain(self, m, x):
        assert P.GradCAM in BaseCAM.__subclasses__()
        with pytest.warns(DeprecationWarning, match="use_cuda"):
            cam = P.GradCAM(model=m, target_layers=[m.c2], use_cuda=False)
        cam.activations_and_grads.release()
        cam.activations_and_grads = P.ActivationsAndGradients(cam.model, cam.target_layers, None)
        maps = both(cam, x)
        assert show_cam_on_image(np.zeros((16, 16, 3)), maps[0], use_rgb=False).dtype == np.uint8

    def test_subclasses_get_arrays(self, m, x):
        seen = []

        class Mine(BaseCAM):
            def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
                seen.extend([type(activations), type(grads)])
                return np.mean(grads, axis=(2, 3))

        np.testing.assert_allclose(both(Mine(m, [m.c2]), x), both(P.GradCAM(m, [m.c2]), x), atol=1e-6)
        assert seen == [np.ndarray] * 2

    def test_attributes(self, m, x):
        cam = P.GradCAM(model=m, target_layers=[m.c2])
        cam.batch_size = 32
        maps = cam(input_tensor=x, targets=[T(0)] * 2)[0, :]
        assert maps.dtype == np.float32
        assert maps.shape == (16, 16)
        assert cam.outputs.shape == (2, 5)


@pytest.mark.usefixtures("own_garbage")
def test_a_dropped_object_takes_its_hooks_with_it(m, x):
    cam = P.GradCAM(m, [m.c2])
    both(cam, x)
    reference = weakref.ref(cam)
    del cam
    gc.collect()
    assert reference() is None
    assert not m.c2._forward_hooks


def test_helpers_that_are_named_in_the_list():
    assert sobel_cam(np.zeros((4, 4, 3), np.uint8)).shape == (4, 4)
    assert scale_accross_batch_and_channels(np.zeros((1, 2, 4, 4)), (8, 8)).shape == (1, 2, 8, 8)
