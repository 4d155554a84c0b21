"""What is kept of a run, written while it happens, in open formats that survive the death of their writer."""
