"""Models by name, with their preprocessing and categories."""
