"""The experiment file: read, checked completely, errors with file and line."""
