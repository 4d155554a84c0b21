"""Reports: a run as people look at it, one picture and one page."""
