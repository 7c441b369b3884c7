"""Maps of a picture as a person looks at them: explain, compare, the page."""
