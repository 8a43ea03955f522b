"""Where the numbers of a training are also sent: TensorBoard, Weights & Biases, trackio.

`log.jsonl` in the run stays the truth. A sink is one module with a `SinkType` value, and one line
in `listing`; its package is imported when it is used.
"""
