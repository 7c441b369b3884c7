"""Clips with their maps over them: MP4 files, and the frames that matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.utils.overlays import labelled


def save_mp4(pictures: np.ndarray, file: str | Path, frames_per_second: float = 10) -> Path:
    """Write pictures, uint8 RGB (T, H, W, 3), as a film in H.264, by imageio-ffmpeg; return the path.

    A side of an odd length gets one pixel more, as the format needs. `utils.overlays.save_gif` needs no package.
    Raises ValueError for other pictures, ImportError without imageio-ffmpeg.
    """
    with needing("imageio-ffmpeg", "video"):
        from imageio_ffmpeg import write_frames

    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"the pictures are {pictures.dtype} {pictures.shape}, expected uint8 (T, H, W, 3)")
    height, width = pictures.shape[1:3]
    even = np.pad(pictures, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    size = even.shape[2], even.shape[1]
    writer = write_frames(str(file), size, fps=frames_per_second, macro_block_size=1, output_params=["-crf", "18"])
    writer.send(None)
    try:
        for picture in even:
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()
    return Path(file)


def key_frames(maps: np.ndarray, count: int = 5) -> list[int]:
    """The frames (their numbers, ascending) with the most evidence in a clip's map (T, H, W), apart from each other.

    The frame with the highest mean is taken, then the highest of those that are at least T / (2 count) frames from all
    that were taken, and so on. Raises ValueError for fewer than one.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected 1 or more")
    evidence = np.asarray(maps).reshape(len(maps), -1).mean(1)
    apart = len(evidence) / (2 * count)
    taken: list[int] = []
    for frame in np.argsort(-evidence, kind="stable").tolist():
        if len(taken) < count and all(abs(frame - other) >= apart for other in taken):
            taken.append(frame)
    return sorted(taken)


def strip(pictures: np.ndarray, frames: list[int], frames_per_second: float | None = None) -> np.ndarray:
    """Some frames of pictures, uint8 RGB (T, H, W, 3), side by side: (H, W * frames, 3), each with its number, or its
    time in seconds.
    """
    texts = [str(frame) if frames_per_second is None else f"{frame / frames_per_second:.2f} s" for frame in frames]
    return np.concatenate([labelled(pictures[frame], text) for frame, text in zip(frames, texts, strict=True)], axis=1)
