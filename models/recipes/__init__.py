"""Recipes: how the shipped weights were made; anyone can run them."""
