"""Packages: model files with what is needed to use them, our own and those of BioImage.IO."""
