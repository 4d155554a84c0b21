"""Training: images and masks in, a model package out. Needs the extra `train`."""
