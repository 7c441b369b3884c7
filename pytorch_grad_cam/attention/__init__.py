"""Attention weights of any model, captured within one call, and what the methods on them share."""
