"""Outputs that say of each position what is there: their forms, and targets that mean a region."""
