"""The learning rate of every step against formulas written out."""

import math

import pytest
import torch
from tiny_training import column, tiny, train_in, write_chats
from transformers import get_scheduler

from ftx.config.schema import ScheduleConfig
from ftx.errors import UserError
from ftx.schedules import scheduler_arguments, training_steps

RATE, STEPS = 2e-3, 40

pytestmark = pytest.mark.usefixtures("one_thread")


def rates(schedule: ScheduleConfig, steps: int = STEPS) -> list[float]:
    """What Trainer makes of the arguments: the rate of each step."""
    arguments = scheduler_arguments(schedule, steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = get_scheduler(
        arguments["lr_scheduler_type"],
        optimizer,
        num_warmup_steps=arguments["warmup_steps"],
        num_training_steps=steps,
        scheduler_specific_kwargs=arguments["lr_scheduler_kwargs"],
    )
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def half_cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


AFTER_WARMUP = {
    "cosine": lambda done, left: half_cosine(done),
    "cosine_with_min_lr": lambda done, left: 0.2 + 0.8 * half_cosine(done),
    "linear": lambda done, left: 1 - done,
    "constant": lambda done, left: 1,
    # Ten steps of decay.
    "wsd": lambda done, left: 1 if left >= 10 else 1 - math.sqrt(1 - left / 10),
}


@pytest.mark.parametrize("name", AFTER_WARMUP)
@pytest.mark.parametrize("warmup", [0.1, 4, 0], ids=["ratio", "steps", "none"])
def test_every_step_has_the_rate_of_the_formula(name, warmup):
    found = rates(ScheduleConfig(name=name, warmup=warmup, min_lr_ratio=0.2, decay=0.25))
    steps = 4 if warmup else 0
    for step, rate in enumerate(found):
        done = (step - steps) / (STEPS - steps)
        share = step / steps if step < steps else AFTER_WARMUP[name](done, STEPS - step)
        assert rate == pytest.approx(RATE * share, rel=1e-9), step


@pytest.mark.parametrize(
    ("shape", "left_of_rate"),
    [
        ("linear", lambda done: 1 - done),
        ("cosine", half_cosine),
        ("1-sqrt", lambda done: 1 - math.sqrt(done)),
    ],
)
@pytest.mark.parametrize("decay", [0.2, 8], ids=["share", "steps"])
def test_wsd_decays_in_the_last_part_by_its_shape(shape, left_of_rate, decay):
    found = rates(ScheduleConfig(name="wsd", warmup=0.05, decay=decay, decay_shape=shape))
    assert found[:2] == pytest.approx([0, RATE / 2])
    assert found[2:33] == pytest.approx([RATE] * 31)
    assert found[33:] == pytest.approx([RATE * left_of_rate(at / 8) for at in range(1, 8)])


def test_wsd_that_does_not_fit_is_refused_and_shares_that_make_up_the_whole_do():
    with pytest.raises(UserError, match=r"schedule\.decay=30: with 15 steps of warm-up longer than the 40 steps"):
        scheduler_arguments(ScheduleConfig(name="wsd", warmup=15, decay=30), STEPS)
    arguments = scheduler_arguments(ScheduleConfig(name="wsd", warmup=0.5, decay=0.5), 7)
    assert (arguments["warmup_steps"], arguments["lr_scheduler_kwargs"]["num_decay_steps"]) == (4, 3)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"), [(3, None, 27), (3, 100, 27), (3, 5, 5), (None, 100, 100), (0, None, 0)]
)
def test_training_ends_after_its_epochs_or_its_steps(epochs, max_steps, steps):
    assert training_steps(ScheduleConfig(epochs=epochs, max_steps=max_steps), steps_per_epoch=9) == steps


def test_a_run_by_steps_repeats_epochs_as_long_as_it_needs(tmp_path):
    data = write_chats(tmp_path)
    words = ("schedule=wsd", "schedule.epochs=null", "schedule.max_steps=13", "schedule.warmup=2", "schedule.decay=4")
    _, rows = train_in(tmp_path / "run", tiny(data, *words, "schedule.learning_rate=1e-3"))
    assert column(rows, "epoch")[-1] == pytest.approx(13 / 5)
    decay = [1 - math.sqrt(at / 4) for at in range(1, 4)]
    assert column(rows, "learning_rate") == pytest.approx([1e-3 * share for share in [0, 0.5, *[1] * 8, *decay]])
