"""The `.keras` archive: a zip file of a config, a weights file and assets."""
