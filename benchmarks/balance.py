"""How evenly ranks share the work of a step: packed rows of agent-like lengths, by the order that puts them into steps.

python -m benchmarks.balance [--ranks 64]
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from ftx.data.cost import Cost
from ftx.data.inspect_run import balance
from ftx.data.order import epoch_steps, share
from ftx.data.packing import pack

CONVERSATIONS, LONGEST = 51_389, 32_768
# Of the Jupyter agent: a global batch on one node.
IN_STEP, RANKS = 8, 8


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=64)
    given = parser.parse_args(arguments)
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(np.log(2500), 1.0, CONVERSATIONS), 1, LONGEST).astype(np.int64)
    rows = pack(lengths, LONGEST)
    efficiency = lengths.sum() / (len(rows) * LONGEST)
    sys.stdout.write(
        f"{CONVERSATIONS:,} conversations, {len(rows):,} rows of {LONGEST:,}: {100 * efficiency:.2f} % full\n"
    )
    segments = Cost().of_segments(lengths)
    costs = np.array([segments[row].sum() for row in rows])
    for order in ("balanced", "random"):
        steps = epoch_steps(costs, given.ranks, order=order, seed=42, epoch=0)
        shares = [balance(costs[step]) for step in steps if len(step) == given.ranks]
        sys.stdout.write(
            f"data.order={order:8}  mean/most work of {given.ranks} ranks: {np.mean(shares):.3f} over "
            f"{len(shares)} whole steps, worst {np.min(shares):.3f}\n"
        )
    steps = epoch_steps(segments, IN_STEP, order="balanced", seed=42, epoch=0)
    alone = [
        balance(np.array([segments[step[mine]].sum() for mine in share(segments[step], RANKS, IN_STEP)]))
        for step in steps
    ]
    together = [
        balance(np.resize([segments[step[row]].sum() for row in pack(lengths[step], LONGEST)] + [0.0] * RANKS, RANKS))
        for step in steps
    ]
    sys.stdout.write(
        f"steps of {IN_STEP} conversations for {RANKS} ranks, mean/most work: {np.mean(alone):.3f} where each packs "
        f"its own, {np.mean(together):.3f} where a step is packed first\n"
    )
    million = np.clip(draw.lognormal(8, 1, 1_000_000), 1, LONGEST).astype(np.int64)
    began = time.perf_counter()
    rows = pack(million, LONGEST)
    seconds = time.perf_counter() - began
    efficiency = million.sum() / (len(rows) * LONGEST)
    sys.stdout.write(f"1,000,000 lengths packed in {seconds:.2f} s, rows {100 * efficiency:.2f} % full\n")


if __name__ == "__main__":
    main(sys.argv[1:])
