"""The sections of the configuration tree, a file each; `schema.py` puts them together."""
