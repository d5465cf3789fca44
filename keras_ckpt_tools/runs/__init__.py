"""The directory of a run: its checkpoints, newest and best, retention, preview of a resume."""
