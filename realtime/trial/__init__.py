"""Rules on what has been: frames played again, what fired, how two sets of rules differ, and why a cell was chosen."""
