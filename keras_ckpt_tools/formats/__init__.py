"""One file per kind of artefact: tell what it is, read it, write it.

`kinds` tells, `source` reads, `weights_file`, `keras_archive` and `legacy_h5` write. Readers import
neither Keras nor TensorFlow; whatever touches live Keras objects is in `state` and in the writers.
"""
