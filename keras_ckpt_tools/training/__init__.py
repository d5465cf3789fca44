"""A run of training: what it is, when to save, how it goes on.

The callbacks and the manager turn events into calls of the same few parts: `run` counts, `cadence`
says when, `tracked` takes and restores state, `writing` commits it.
"""
