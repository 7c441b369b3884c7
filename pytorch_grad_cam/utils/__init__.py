"""Targets, token layouts and images."""
