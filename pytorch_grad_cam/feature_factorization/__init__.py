"""Concepts that a layer composes images of."""
