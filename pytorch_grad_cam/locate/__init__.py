"""Find the layer that explains a model."""

from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.locate.search import layout_of, locate, suggest_layers

__all__ = ["Location", "layout_of", "locate", "suggest_layers"]
