"""Decoders: from what a net says of each pixel to cells. One file for each family of nets."""
