"""A task's result for a model in this process, without a run around it."""

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.prepare import Prepared
from ftx.engines.local import LocalEngine
from ftx.tasks.task import Record, Task, TaskInput, TaskResult


def scored_alone(task: Task, model, prepared: Prepared, evaluation: EvaluationConfig) -> TaskResult:
    """All its items at once; every one of them gets exactly one record."""
    items = task.items(prepared, evaluation)
    engine = LocalEngine(model, prepared.tokenizer, prepared.template, evaluation.batch_size)
    records: list[Record] = []
    task.answer(TaskInput(engine, model, prepared, evaluation, 0, prepared.folder), items, records.append)
    by_id = {record["id"]: record for record in records}
    assert len(by_id) == len(records) == len(items)
    return task.score(items, [by_id[item.id] for item in items], evaluation)
