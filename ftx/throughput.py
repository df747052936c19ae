"""How fast a run goes."""

import resource
import time

import torch


class StepClock:
    """Seconds and tokens since the last metrics row of this process."""

    def __init__(self) -> None:
        self.restart(0, 0)

    def restart(self, step: int, tokens: int) -> None:
        self._since, self._step, self._tokens = time.perf_counter(), step, tokens

    def read(self, step: int, tokens: int) -> tuple[float, float]:
        """(seconds a step, tokens a second) since the last restart, and restart."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        steps, seen = max(step - self._step, 1), tokens - self._tokens
        self.restart(step, tokens)
        return seconds / steps, seen / seconds

    def leave_out(self, seconds: float) -> None:
        """Time that was not spent on training steps, such as an evaluation."""
        self._since += seconds


def peak_memory_gib() -> float:
    """The most memory this process has held so far: allocated on the GPU where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
