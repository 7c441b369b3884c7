"""Clips: maps of frames on one scale, films that are read back, the frames that matter."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.overlays import save_gif
from pytorch_grad_cam.volumes.films import key_frames, save_mp4, strip
from pytorch_grad_cam.volumes.frames import FrameByFrame
from pytorch_grad_cam.volumes.sliding_window_cam import SlidingWindowCAM


class OfPictures(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(2, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, picture):
        return self.head(self.features(picture).mean((2, 3)))


class Recurrent(nn.Module):
    """A CNN over the frames of (N, T, C, H, W) and an LSTM over what it says."""

    def __init__(self):
        super().__init__()
        self.network, self.lstm = OfPictures(), nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, clip):
        said = self.network(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
        return self.head(self.lstm(said)[0][:, -1])


@pytest.fixture
def clip():
    clip = torch.randn(2, 2, 6, 32, 32, generator=torch.Generator().manual_seed(0))
    clip[:, :, 4, 4:10, 6:12] += 3
    return clip


def test_a_network_for_pictures_over_frames_has_maps_on_one_scale(clip):
    network = OfPictures()
    maps = HiResCAM(FrameByFrame(network), "network.features")(clip, 1)
    assert maps.shape == (2, 6, 32, 32)
    frames = HiResCAM(network, "features", normalize=None)(clip[0].transpose(0, 1), 1)
    np.testing.assert_allclose(maps[0], (frames - frames.min()) / (frames.max() - frames.min()), atol=1e-5)
    frames_first = HiResCAM(FrameByFrame(network, axis=1), "network.features", axes="NTCHW")(clip.transpose(1, 2), 1)
    np.testing.assert_allclose(frames_first, maps, atol=1e-6)


def test_a_long_clip_in_windows_of_frames(clip):
    long = torch.cat([clip[:1], clip[:1].flip(2)], dim=2)
    model = FrameByFrame(OfPictures())
    whole = GradCAM(model, "network.features")(long, 1)
    stitched = SlidingWindowCAM(model, "network.features", roi_size=(4, -1, -1))(long, 1)
    np.testing.assert_allclose(stitched, whole, atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_a_recurrent_network_has_a_map_for_each_frame(clip):
    model = Recurrent().eval()
    frames_first = clip.transpose(1, 2)
    maps = HiResCAM(model, "network.features", axes="NTCHW")(frames_first, 0)
    assert maps.shape == (2, 6, 32, 32)
    kept = {}

    def keep(module, read, output):
        kept["map"] = output

    handle = model.network.features.register_forward_hook(keep)
    scores = model(frames_first)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), kept["map"])
    evidence = (gradient * kept["map"]).sum(1).relu().unflatten(0, (2, 6)).detach()
    highest = [int(each.flatten(1).amax(1).argmax()) for each in evidence]
    assert [int(each.max((1, 2)).argmax()) for each in maps] == highest
    found = HiResCAM(model, axes="NTCHW")(frames_first, 0)
    assert found.shape == (2, 6, 32, 32)


class TwoPaths(nn.Module):
    """Few frames with many channels, many frames with few, as SlowFast."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.slow = nn.Sequential(nn.Conv3d(2, 12, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.ReLU())
        self.fast = nn.Sequential(nn.Conv3d(2, 4, 3, (1, 2, 2), 1), nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, clips):
        slow, fast = clips
        return self.head(torch.cat([self.slow(slow).mean((2, 3, 4)), self.fast(fast).mean((2, 3, 4))], 1))


class OfOneClip(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = TwoPaths()

    def forward(self, clip):
        return self.network([clip[:, :, ::3], clip])


@pytest.mark.filterwarnings("error")
def test_two_paths(clip):
    """Each path has the frames that it reads; of one clip that both read they are joined."""
    clips = [clip[:, :, ::3], clip]
    network = TwoPaths()
    slow = HiResCAM(network, "slow")(clips, 1)
    fast = HiResCAM(network, "fast", spatial_from=1, check_place=False)(clips, 1)
    assert (slow.shape, fast.shape) == ((2, 2, 32, 32), (2, 6, 32, 32))
    joined = HiResCAM(OfOneClip(), ["network.slow", "network.fast"], fuse=None)(clip, 1)
    assert joined.shape == (2, 2, 6, 32, 32)
    np.testing.assert_allclose(joined[:, 1], fast, atol=1e-6)
    for frame, whole in zip(slow[0], joined[0, 0, [0, 5]], strict=True):
        np.testing.assert_allclose(whole, frame, atol=1e-5)


def test_a_gif_read_back(tmp_path):
    pictures = np.zeros((3, 8, 10, 3), np.uint8)
    pictures[0, :, :, 0], pictures[1, :, :, 1], pictures[2, :, :, 2] = 255, 255, 255
    save_gif(pictures, tmp_path / "clip.gif", frames_per_second=5)
    with Image.open(tmp_path / "clip.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (3, (10, 8), 200)
        for number in range(3):
            film.seek(number)
            assert np.abs(np.asarray(film.convert("RGB"), int) - pictures[number]).max() < 10


def test_a_film_read_back(tmp_path):
    reader = pytest.importorskip("imageio_ffmpeg")
    pictures = np.zeros((6, 33, 40, 3), np.uint8)
    for number in range(6):
        pictures[number, 5 * number : 5 * number + 8, 16:24] = 255
    file = save_mp4(pictures, tmp_path / "clip.mp4", frames_per_second=5)
    frames = reader.read_frames(str(file))
    facts = next(frames)
    assert (facts["size"], facts["fps"]) == ((40, 34), 5)
    found = [np.frombuffer(frame, np.uint8).reshape(34, 40, 3).astype(int) for frame in frames]
    assert len(found) == 6
    for number, frame in enumerate(found):
        rows = np.flatnonzero(frame[:33, 20, 0] > 128)
        assert abs(rows.mean() - pictures[number, :, 20, 0].nonzero()[0].mean()) < 1


def test_what_is_no_film_is_refused(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(ValueError, match=r"float64 \(2, 4, 4, 3\), expected uint8"):
        save_mp4(np.zeros((2, 4, 4, 3)), tmp_path / "clip.mp4")


def test_key_frames_have_the_most_evidence_and_are_apart():
    maps = np.zeros((20, 2, 2))
    maps[[3, 4, 12, 17], 0, 0] = [0.9, 1.0, 0.5, 0.7]
    assert key_frames(maps, 1) == [4]
    assert key_frames(maps, 3) == [4, 12, 17]
    assert key_frames(maps[:2], 5) == [0, 1]
    with pytest.raises(ValueError, match="count is 0"):
        key_frames(maps, 0)


def test_a_strip_of_frames():
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((6, 20, 60, 3), np.uint8)
    shown = strip(pictures, [1, 4], frames_per_second=2)
    assert shown.shape == (20, 120, 3)
    assert (shown[-1, 0, 0], shown[-1, -1, 0]) == (1, 4)
    assert shown[:10, :40].max() > 150
    assert not np.array_equal(shown, strip(pictures, [1, 4]))
