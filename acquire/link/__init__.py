"""The link: addresses, keys, checked messages, and a client that loses no frame whatever the service does."""
