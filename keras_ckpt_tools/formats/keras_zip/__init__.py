"""The `.keras` archive: a zip of a config, a weights file and assets."""
