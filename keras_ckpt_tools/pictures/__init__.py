"""Plots and report pages of runs.

A layer of its own, because it draws directories and files (`runs`) as well as live models and
managers (`training`). Keras and TensorFlow are imported only for their own objects, and Matplotlib
only by `plot`.
"""
