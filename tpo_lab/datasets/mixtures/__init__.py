"""Mixtures that are shipped, as YAML."""
