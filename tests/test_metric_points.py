"""A row's place on the run's own clock."""

from ftx.metric_points import TrainingTime, points_of

BEGIN = 1_700_000_000_000


def trained(step, seconds):
    return {"step": step, "epoch": 0.5, "train_loss": 1.0, "step_seconds": seconds, "mfu": None}


def test_a_row_stands_where_the_training_had_come_to():
    """Three steps of half a second, three of a quarter, four of a whole one: what belongs to a step comes before it."""
    evaluations = [{"step": step, "epoch": 0.5, "eval_loss": 2.0} for step in (0, 3, 10)]
    samples = [{"step": step, "system/cpu_percent": 1.0} for step in (3, 6, 8)]
    rows = [evaluations[0], trained(3, 0.5), trained(6, 0.25), trained(10, 1.0)]
    clock = TrainingTime(BEGIN, rows)
    assert [clock.of(row) - BEGIN for row in rows[1:]] == [1500, 2250, 6250]
    assert [clock.of(row) - BEGIN for row in evaluations] == [0, 0, 2250]
    assert [clock.of(row) - BEGIN for row in samples] == [0, 1500, 2250]


def test_it_is_the_same_before_and_after_later_rows_came():
    """A sender looks at a file that grows; a row that a resume wrote a second time counts once."""
    rows = [trained(2, 0.1), trained(4, 0.2), trained(4, 0.7), trained(6, 0.3)]
    whole = TrainingTime(BEGIN, rows)
    for known in range(1, len(rows) + 1):
        assert TrainingTime(BEGIN, rows[:known]).of(rows[known - 1]) == whole.of(rows[known - 1])
    sample = {"step": 4, "system/cpu_percent": 1.0}
    assert TrainingTime(BEGIN, rows[:1]).of(sample) == whole.of(sample) == BEGIN + 200


def test_points():
    points = points_of(trained(3, 0.5), TrainingTime(BEGIN, [trained(3, 0.5)]))
    assert {(point.key, point.value, point.step, point.timestamp) for point in points} == {
        ("epoch", 0.5, 3, BEGIN + 1500),
        ("train_loss", 1.0, 3, BEGIN + 1500),
        ("step_seconds", 0.5, 3, BEGIN + 1500),
    }
    (only,) = points_of({"step": 3, "epoch": 0.5, "eval_loss": 2.0}, TrainingTime(BEGIN, []))
    assert (only.key, only.timestamp) == ("eval_loss", BEGIN)
