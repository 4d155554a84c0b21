"""Shipped workers: files that the Python of another environment loads by path; they import nothing of cytoloop."""
