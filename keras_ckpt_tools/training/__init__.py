"""Training runs: when to save, what to save, and how a run resumes.

The callbacks and the manager turn events into calls of the same modules: `run` counts, the save
schedule decides when to save, `state` takes and restores state, `writing` commits it.
"""
