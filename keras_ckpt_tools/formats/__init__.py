"""One folder or module per file format: detect it, read it, write it.

`kinds` detects, `open_source` opens whatever is read. Nothing here imports Keras or TensorFlow;
what touches live Keras objects is in `live`.
"""
