"""Mutants that no test can notice, and why: what they change leaves every result as it is, or within rounding."""

_BY_REASON: dict[str, list[str]] = {
    "PyTorch's sort on the CPU is stable in any case": [
        "ablation_layer: stable=True -> stable=False",
        "finer_cam: stable=True -> stable=False",
        "metrics.perturbation_confidence: stable=True -> stable=False",
        "perturbation.window_maps: stable=True -> stable=False",
    ],
    "a seed comes from half as many numbers": ["random_cam: 2 ** 62 -> 2 ** 61"],
    "how exactly a loop converges, or how long it goes on when it has": [
        "metrics.multigrid: _CHECKED_EVERY = 4 -> _CHECKED_EVERY = 3",
        "metrics.multigrid: _MOST_ITERATIONS = 64 -> _MOST_ITERATIONS = 63",
        "metrics.multigrid: _TOLERANCE = 3e-06 -> _TOLERANCE = 6e-06",
    ],
    "both ways of computing it give the same": [
        "engine.torch_quirks.zero_rows: gradient.ndim < 2 -> gradient.ndim <= 2",
        "engine.principal_component: matrix.shape[1] <= matrix.shape[2] -> matrix.shape[1] < matrix.shape[2]",
        "engine.dominant_eigenvector: _MOST_SQUARED = 256 -> _MOST_SQUARED = 255",
        "engine.dominant_eigenvector: matrices.shape[1] <= _MOST_SQUARED -> matrices.shape[1] < _MOST_SQUARED",
    ],
    "any factor about as large as the values will do": [
        "engine.principal_component: matrix.abs().amax -> matrix.amax",
        "perturbation.masked_scores: positions.to(most_precise_dtype(positions.device)).square().sum(2) * varies"
        " -> positions.to(most_precise_dtype(positions.device)).square().mean(2) * varies",
        "ablation_layer: energy = activations.reshape(images, channels, -1).square().sum(2)"
        " -> energy = activations.reshape(images, channels, -1).square().mean(2)",
    ],
    "where the rounding decides, the matrix is nearly constant and not negative": [
        "engine.kernel_component: similarity.abs().amax((1, 2))[:, None] -> similarity.abs().amin((1, 2))[:, None]",
        "engine.kernel_component: similarity.abs().amax -> similarity.amax",
        "engine.kernel_component: eigenvalue > rounding -> eigenvalue >= rounding",
    ],
    "the tests run on a CPU": [
        "engine.maps: return torch.float32 if device.type == 'mps' else torch.float64 -> return torch.float64",
    ],
    "where the agreement or the projection is zero any sign will do": [
        "engine.principal_component: agreement < 0 -> agreement <= 0",
        "engine.principal_component: agreement.abs() > _NO_AGREEMENT * possible"
        " -> agreement.abs() >= _NO_AGREEMENT * possible",
        "engine.principal_component: lowest.abs() > highest.abs() -> lowest.abs() >= highest.abs()",
    ],
    "it is where the solution starts from": [
        "metrics.multigrid: images.double().masked_fill(missing[:, None], 0)"
        " -> images.double().masked_fill(missing[:, None], 1)",
    ],
    "only its shape counts": [
        "metrics.multigrid: (:1, :, 0, 0) -> (:1, :, 1, 0)",
        "metrics.multigrid: (:1, :, 0, 0) -> (:1, :, 0, 1)",
    ],
    "all of it is overwritten": [
        "perturbation.masked_scores: torch.zeros_like(varies).scatter -> torch.ones_like(varies).scatter"
    ],
    "the map is scaled to [0, 1] in the end": [
        "fullgrad_cam: first_principal_component(maps) if call.eigen_smooth else maps.sum(1)"
        " -> first_principal_component(maps) if call.eigen_smooth else maps.mean(1)",
    ],
    "how a sparse system is solved": [
        "metrics.road: diag_pivot_thresh=0 -> diag_pivot_thresh=1",
        "metrics.road: {'SymmetricMode': True} -> {'SymmetricMode': False}",
    ],
    "from where on it is worth the time to look for rows of zeros": [
        "engine.torch_quirks.zero_rows: _WORTH_LOOKING = 64 -> _WORTH_LOOKING = 63",
        "engine.torch_quirks.zero_rows: len(gradient) < _WORTH_LOOKING -> len(gradient) <= _WORTH_LOOKING",
        "engine.torch_quirks.zero_rows: return rows if 2 * len(rows) < len(gradient) else None -> return rows",
        "engine.torch_quirks.zero_rows: 2 * len(rows) < len(gradient) -> 2 < len(gradient)",
        "engine.torch_quirks.zero_rows: 2 * len(rows) -> 1 * len(rows)",
        "engine.torch_quirks.zero_rows: 2 * len(rows) -> 2 / len(rows)",
        "engine.torch_quirks.zero_rows: 2 * len(rows) < len(gradient) -> 2 * len(rows) <= len(gradient)",
    ],
    "what stays on the device, if it could": [
        "perturbation.window_maps: return {'as_tensor': True} if ours else {} -> return {}",
        "perturbation.window_maps: {'as_tensor': True} -> {'as_tensor': False}",
    ],
    "the blur is symmetric": [
        "perturbation.sliding_windows: "
        "torch.arange(length)[:, None] + offsets -> torch.arange(length)[:, None] - offsets",
    ],
}
EQUIVALENT = {change: reason for reason, changes in _BY_REASON.items() for change in changes}
