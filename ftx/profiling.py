"""A window of steps under PyTorch's profiler, as a trace for chrome://tracing or https://ui.perfetto.dev."""

from contextlib import ExitStack

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ftx import progress
from ftx.run_folder import RunFolder


class ProfileWindow:
    """Records the optimizer steps ``first`` to ``last`` into ``profile/``, each under the mark ``step <n>``."""

    def __init__(self, steps: list[int], folder: RunFolder) -> None:
        """``steps``: first and last; none: nothing is recorded."""
        self._first, self._last = steps or (0, 0)
        self._folder = folder
        self._profile: profile | None = None
        self._began = 0
        self._mark = ExitStack()
        self._recorded = not steps

    def step_begins(self, step: int) -> None:
        if not self._first <= step <= self._last:
            return
        if self._profile is None:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self._profile, self._began = profile(activities=activities, record_shapes=True), step
            self._profile.start()
        self._mark.enter_context(record_function(f"step {step}"))

    def step_ends(self, step: int) -> None:
        self._mark.close()
        if step == self._last:
            self._write(step)

    def training_ends(self, step: int) -> None:
        """Write what there is of a window that was not over."""
        if self._profile is not None:
            self._write(step)
        elif not self._recorded:
            progress.say(f"no profile: none of the steps {self._first} to {self._last} was trained now")

    def _write(self, step: int) -> None:
        if self._profile is None:
            return
        self._profile.stop()
        self._folder.check_ours()
        self._folder.profile.mkdir(exist_ok=True)
        file = self._folder.profile / f"steps-{self._began}-{step}.json.gz"
        self._profile.export_chrome_trace(str(file))
        self._profile, self._recorded = None, True
        progress.say(f"profile: {file} (open it in https://ui.perfetto.dev)")
