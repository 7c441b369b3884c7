"""Volumes, clips and signals: windows over what is larger than the model's input, files with their geometry, films."""
