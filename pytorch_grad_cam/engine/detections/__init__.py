"""Detectors' outputs, whatever their form: boxes with the scores of classes, and the one that a target asks for."""
