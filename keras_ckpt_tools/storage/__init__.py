"""Stage, commit, keep: how bytes become a checkpoint, and which checkpoints stay.

Knows files, not Keras.
"""
