"""A model in another environment: a process of that environment's Python runs it, and frames go there and back."""
