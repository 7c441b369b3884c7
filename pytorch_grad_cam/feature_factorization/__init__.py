"""Concepts that a layer composes an image of."""
