"""A sweep over nodes and ranks with one MLflow server, also one that is away for a while."""

import json
import signal
from dataclasses import replace

import pytest
from run_records import MEASURED, histories, points_of, rows_of
from slurm_runs import check_as_undisturbed, check_same_learning, check_same_points, outcomes, ranks_on
from tracking_server import TrackingServer

from ftx.attempts import FINISHED
from ftx.run_folder import RunFolder

EPOCHS = (0, 1, 2, 3)


@pytest.fixture
def server(tmp_path):
    made = TrackingServer(tmp_path)
    made.start()
    yield made
    made.stop(signal.SIGTERM)


@pytest.fixture
def served(site, server):
    """A site whose jobs send to the server, by the address that nodes reach it at."""
    return replace(site, uri=f"http://{site.cluster.controller_ip}:{server.port}")


def test_an_epoch_sweep_over_two_nodes_with_two_ranks_each(served, undisturbed):
    """ZeRO-2 on gloo; the same weights as one process learns, and MLflow has a parent with its four children."""
    said = served.launched(
        "-m",
        "schedule.epochs=0,1,2,3",
        "schedule.global_batch_size=4",
        "hardware.nodes=2",
        "hardware.processes_per_node=2",
        "launcher.parallel=2",
    )
    (array,) = said.arrays
    described = json.loads((said.sweep / "sweep.json").read_text())
    folders = {int(run["swept"]["schedule.epochs"]): RunFolder(served.runs / run["run"]) for run in described["runs"]}
    for element, epochs in enumerate(EPOCHS):
        folder = folders[epochs]
        assert served.wait_for_end(folder, f"{array}_{element}") == "COMPLETED"
        assert (folder.read_status().state, outcomes(folder)) == ("finished", [(0, FINISHED)])
        if epochs:
            check_same_learning(folder, undisturbed("schedule.global_batch_size=4", f"schedule.epochs={epochs}"))
    mlflow = served.mlflow()
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    children = {
        run.info.run_id: run for run in mlflow.search_runs(experiments) if "mlflow.parentRunId" in run.data.tags
    }
    assert set(children) == {folder.read_status().mlflow_run_id for folder in folders.values()}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {described["mlflow_parent_id"]}
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    for folder in folders.values():
        check_same_points(histories(mlflow, folder.read_status().mlflow_run_id), points_of(rows_of(folder)))
    parent = mlflow.get_run(described["mlflow_parent_id"])
    assert parent.info.status == "FINISHED", "the last job closes it"
    assert "report.md" in [file.path for file in mlflow.list_artifacts(parent.info.run_id)]


def test_a_server_that_is_down_for_the_middle_third_of_a_run(served, server, undisturbed):
    """The run holds still while the server starts: else its last third might be over before that."""
    said = served.launched("schedule.epochs=24")
    steps = 24 * 7
    served.wait_for_step(said.folder, steps // 3)
    server.stop(signal.SIGKILL)
    served.wait_for_step(said.folder, 2 * steps // 3)
    at_work = [one for node in served.cluster.nodes for one in ranks_on(served.cluster, node)]
    for rank in at_work:
        rank.send(signal.SIGSTOP)
    server.start()
    for rank in at_work:
        rank.send(signal.SIGCONT)
    assert at_work, "the run was over before the server was back: nothing was tested"
    check_as_undisturbed(served, said.folder, said.job, undisturbed("schedule.epochs=24"))
    assert histories(served.mlflow(), said.folder.read_status().mlflow_run_id).keys() >= MEASURED
