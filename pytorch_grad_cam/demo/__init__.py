"""The bundled network: handwritten digits in clutter.

`load_digits_net()` gives the trained network, `example_scene()` one held-out scene. `scenes` makes any number
of further scenes with exact ground truth (needs scikit-learn), `train` is the command that made the weights.
"""

from pytorch_grad_cam.demo.network import DigitsNet, example_scene, load_digits_net, preprocess_scene

__all__ = ["DigitsNet", "example_scene", "load_digits_net", "preprocess_scene"]
