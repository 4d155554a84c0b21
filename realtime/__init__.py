"""From tracks to decisions: rules, limits, the pipeline, the service with its journal, replay, command line."""
