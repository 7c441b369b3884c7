"""Run any model untouched, capture what its layers return, score its output. Internal; imports no other room."""
