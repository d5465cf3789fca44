"""What the readers of all formats share: limits, safe opening, bounded JSON, dtypes."""
