"""Pictures of runs: run -> story -> *curves* -> figure, or page.

A floor of its own, because it draws whatever says where training is: directories and files
(`loading`), and live models and managers (`training`). Nothing here imports Keras or TensorFlow
unless it is handed an object of theirs, and Matplotlib is imported by `plot` alone.
"""
