"""Trained networks and real pictures: which methods point at the object?"""
