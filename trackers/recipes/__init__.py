"""Recipes: how the shipped division model was made, on simulations only; anyone can run them."""
