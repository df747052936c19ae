"""What a person sees in MLflow's UI: its list of runs, a sweep's own page, its charts, and two runs beside each other."""

import json
import shutil
import signal
from urllib.parse import quote

import pytest
from mlflow_records import write_results, write_row
from tracking_server import TrackingServer

from ftx.config.compose import compose_all
from ftx.report import write_report
from ftx.run_folder import open_run_folder
from ftx.sweep_folder import open_sweep
from ftx.tracking import Sender
from launchers.folders import locate

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
SECONDS = 60_000
RATES = (0.001, 0.002, 0.004)


@pytest.fixture(scope="module")
def sweep(new_place):
    """Three runs of learning rates, sent to a server that is up, with their report."""
    place = new_place()
    server = TrackingServer(place.path)
    server.start()
    words = place.words(
        f"schedule.learning_rate={','.join(map(str, RATES))}", f"tracking.uri={server.local_uri}", "name=rates"
    )
    composition = compose_all([str(word) for word in words], multirun=True)
    folders = [locate(composed) for composed in composition.runs]
    for composed, folder in zip(composition.runs, folders, strict=True):
        open_run_folder(folder, composed.run, composed.words, {})
    made = open_sweep(composition, folders)
    made = made.with_parent(composition.runs[0].run.tracking, made.members)
    for at, (composed, folder) in enumerate(zip(composition.runs, folders, strict=True)):
        write_row(folder, 10)
        write_row(folder, 20)
        write_results(folder, accuracy=0.5 + at / 8)
        folder.write_status(state="finished")
        Sender(folder, composed.run).send("finished", "")
    write_report(made, composition.runs[0].run.tracking)
    yield made, server
    server.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def page():
    """Of a browser that talks to nobody but this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1700, "height": 1300})
        page.set_default_timeout(SECONDS)
        yield page
        browser.close()


def experiment_of(sweep):
    return sweep.folders()[0].read_status().mlflow_run_id


def test_the_ui(sweep, page, tmp_path):
    """One story in chapters, since the server and the browser take their time to start."""
    made, server = sweep
    from mlflow import MlflowClient

    mlflow = MlflowClient(server.local_uri)
    runs = [folder.read_status().mlflow_run_id for folder in made.folders()]
    experiment = mlflow.get_run(runs[0]).info.experiment_id
    at = f"{server.local_uri}/#/experiments/{experiment}"
    the_list_names_the_sweep_and_its_runs(page, at, made, tmp_path)
    the_charts_have_a_section_for_each_task(page, at, tmp_path)
    a_sweeps_page_shows_its_report(page, f"{at}/runs/{made.mlflow_parent_id}", tmp_path)
    two_runs_compare_by_what_differs(page, server.local_uri, experiment, runs[:2], tmp_path)


def the_list_names_the_sweep_and_its_runs(page, at, made, tmp_path):
    """The runs lie under their sweep, each named by what was swept."""
    page.goto(f"{at}/runs")
    page.get_by_role("link", name=made.name).wait_for()
    page.get_by_role("button", name="expand").or_(page.locator("[class*=expander], [aria-label*=xpand]")).first.click()
    for rate in RATES:
        page.get_by_role("link", name=f"learning_rate={rate}", exact=True).wait_for()
    page.screenshot(path=tmp_path / "list.png")
