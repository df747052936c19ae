"""The notebook agent on real questions: an engine that knows what to do gets all of them right."""

import pytest
from agent.dabench_scripts import LOAD, SCRIPTS
from agent.scripted import Scripted, cell, evaluation_of, records_of, scored, what_was_printed
from real_data import real_path

from ftx.agent.benchmarks import open_benchmark
from ftx.agent.notebook import Notebook
from ftx.config.evaluation_schema import SandboxConfig
from ftx.sandbox import Sandbox, why_no_sandbox
from ftx.statistics import wilson
from ftx.tasks.dabench_rules import labels_equal, read_labels

pytestmark = pytest.mark.skipif(bool(why := why_no_sandbox()), reason=f"no sandbox works here: {why}")

FEES = """
import json
fees = [json.loads(line) for line in open("data/fees.jsonl")]
def fits(rule, key, value):
    \"\"\"An empty list, or null, takes everything.\"\"\"
    wanted = rule[key]
    return wanted is None or wanted == [] or (value in wanted if isinstance(wanted, list) else wanted == value)
def fitting(**asked):
    return [rule for rule in fees if all(fits(rule, key, value) for key, value in asked.items())]
def mean_fee(rules, amount):
    return sum(rule["fixed_amount"] + rule["rate"] * amount / 10000 for rule in rules) / len(rules)
len(fees)
"""
FEE_TASKS = {
    "1273": ["print(f\"{mean_fee(fitting(card_scheme='GlobalCard', is_credit=True), 10):.6f}\")"],
    "1305": [
        """
import pandas as pd
codes = pd.read_json("data/merchant_category_codes.jsonl", lines=True)
(code,) = codes.mcc[codes.description == "Eating Places and Restaurants"]
code
""",
        """
rules = fitting(card_scheme="GlobalCard", account_type="H", merchant_category_code=code)
print(f"{mean_fee(rules, 10):.6f}")
""",
    ],
    "1464": ['print(", ".join(str(rule["ID"]) for rule in fitting(account_type="R", aci="B")))'],
}


def test_the_tasks_of_dabstep_that_need_only_the_fees_are_solved(tmp_path):
    evaluation = evaluation_of(real_path("dabstep"))
    engine = Scripted(
        {task: [*map(cell, [FEES, *cells]), what_was_printed] for task, cells in FEE_TASKS.items()},
    )

    records = records_of(evaluation, engine, tmp_path, list(FEE_TASKS))
    result = scored(evaluation, records)

    assert {one["task"]: (one["official"], one["strict"]) for one in result.predictions} == dict.fromkeys(
        FEE_TASKS, (True, True)
    )
    assert result.scores["official"]["value"] == result.scores["strict.hard"]["value"] == 1
    assert result.scores["tool_error_rate"]["value"] == 0


def test_questions_of_dabench_get_the_published_labels_from_the_sandbox():
    """One notebook for all of them: a kernel for each would take most of a minute to start."""
    benchmark = open_benchmark(evaluation_of(real_path("dabench"), "dabench").data_agent)
    asked = {one.id: one for one in benchmark.questions}
    right = {}
    with benchmark.opened() as tables:
        names = {asked[task].files[0] for task in SCRIPTS}
        with Notebook(Sandbox(SandboxConfig(memory_gib=2)), {name: tables[name] for name in names}) as notebook:
            for task, code in SCRIPTS.items():
                printed = notebook.run(LOAD.format(name=asked[task].files[0]) + code)
                right[task] = labels_equal(read_labels(printed.stdout), asked[task].gold) or printed

    assert right == dict.fromkeys(SCRIPTS, True)
    assert len(right) >= 20


def test_questions_of_dabench_are_answered_through_the_whole_loop(tmp_path):
    evaluation = evaluation_of(real_path("dabench"), "dabench")
    files = {one.id: one.files[0] for one in open_benchmark(evaluation.data_agent).questions}
    turns = {
        task: [cell(LOAD.format(name=files[task]) + SCRIPTS[task]), what_was_printed] for task in ("0", "117", "414")
    }

    result = scored(evaluation, records_of(evaluation, Scripted(turns), tmp_path, list(turns)))

    assert {one["task"]: one["correct"] for one in result.predictions} == dict.fromkeys(turns, True)
    assert result.scores["correct.medium"] == {"value": 1.0, "n": 2, "ci95": list(wilson(2, 2))}
