"""The extra state of a run: random generators, callbacks, data, tracked objects."""
