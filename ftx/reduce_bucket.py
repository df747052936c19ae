"""How many gradients ZeRO's ranks exchange at a time: what planning counts, and DeepSpeed is told."""

# DeepSpeed's own 500 million take 4 GB on each device; a fifth of that still keeps a link busy for milliseconds.
REDUCE_BUCKET = 100_000_000
