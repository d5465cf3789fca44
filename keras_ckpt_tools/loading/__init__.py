"""Open what somebody saved: inspect, trust, load, compare, verify.

`configs` walks what a file says, `resolve` judges each name in it, `inspect` shows that and
`model` acts on it, so the report and the gate cannot disagree. `closed_room` is where Keras builds
from the file, `remedies` is what to say when something else was handed over. Of these, `inspect`
and what it uses import neither Keras nor TensorFlow.
"""
