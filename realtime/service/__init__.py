"""The service: supervised engine processes, their journals, and every frame exactly once."""
