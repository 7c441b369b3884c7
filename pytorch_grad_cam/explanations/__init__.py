"""Explanations of a picture for people: `explain`, `compare`, and a page for the browser."""
