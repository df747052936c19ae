"""What MLflow's UI shows: its list of runs, a sweep's own page, its charts, and two runs beside each other."""

import json
import re
import shutil
import signal
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow_records import write_results, write_row
from tracking_server import TrackingServer

from ftx.config.compose import compose_all
from ftx.report import write_report
from ftx.runs_on_disk import find_run_folder, open_run_folder
from ftx.sweep_folder import open_sweep
from ftx.tracking import Sender

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
SECONDS = 120_000
RATES = (0.001, 0.004)


@pytest.fixture(scope="module")
def sweep(new_place):
    """Two learning rates with their report, and a server that shows them."""
    place = new_place()
    rates = ",".join(map(str, RATES))
    words = map(str, place.words(f"schedule.learning_rate={rates}", "name=rates"))
    composition = compose_all(list(words), multirun=True)
    folders = [
        open_run_folder(find_run_folder(composed.run, "", ""), composed.run, composed.words, {})
        for composed in composition.runs
    ]
    tracking = composition.runs[0].run.tracking
    made = open_sweep(composition, folders)
    made = made.with_parent(tracking, made.members)
    for at, (composed, folder) in enumerate(zip(composition.runs, folders, strict=True)):
        write_row(folder, 50)
        write_row(folder, 100)
        write_results(folder, accuracy=0.5 + at / 4)
        folder.write_status(state="finished")
        Sender(folder, composed.run).send("finished", "")
    write_report(made, tracking)
    server = TrackingServer(place.path)
    server.start()
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


@pytest.mark.long
def test_the_ui(sweep, page, tmp_path):
    """One story in chapters, since the server and the browser take their time to start."""
    made, server = sweep
    runs = [folder.read_status().mlflow_run_id for folder in made.folders()]
    experiment = MlflowClient(server.local_uri).get_run(runs[0]).info.experiment_id
    at = f"{server.local_uri}/#/experiments/{experiment}"
    the_list_names_the_sweep_and_its_runs(page, at, made, tmp_path)
    the_charts_have_a_section_for_each_task(page, at, tmp_path)
    a_sweeps_page_shows_its_report(page, f"{at}/runs/{made.mlflow_parent_id}", tmp_path)
    two_runs_compare_by_what_differs(page, server.local_uri, experiment, runs[:2], tmp_path)


def the_list_names_the_sweep_and_its_runs(page, at, made, tmp_path):
    """The runs lie under their sweep, each named by what was swept."""
    page.goto(f"{at}/runs")
    page.get_by_role("row").filter(has_text=made.name).get_by_role("button").first.click()
    for rate in RATES:
        page.get_by_role("link", name=f"lr={rate}", exact=True).wait_for()
    page.screenshot(path=tmp_path / "list.png")


def the_charts_have_a_section_for_each_task(page, at, tmp_path):
    """Scores apart from what training wrote down; the list beside them stays unfolded."""
    page.goto(f"{at}/runs?compareRunsMode=CHART")
    for section in ("classification", "Model metrics", "System metrics"):
        header = page.get_by_test_id("experiment-view-compare-runs-section-header")
        header.filter(has_text=re.compile(rf"^{section}\s*\([1-9]")).wait_for()
    page.screenshot(path=tmp_path / "charts.png")


def a_sweeps_page_shows_its_report(page, address, tmp_path):
    """The table is its description; the tags say what it belongs to and how it stands."""
    page.goto(address)
    page.get_by_role("cell", name="75.0 % [50.0, 90.0]").wait_for()
    page.get_by_text("Best accuracy: schedule.learning_rate=0.004").wait_for()
    for tag in ("ftx.experiment", "ftx.state", "ftx.sweep"):
        page.get_by_text(tag).first.wait_for()
    page.screenshot(path=tmp_path / "sweep.png")


def two_runs_compare_by_what_differs(page, uri, experiment, runs, tmp_path):
    """Of a hundred parameters one is left."""
    page.goto(f"{uri}/#/compare-runs?runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}")
    page.get_by_text("lr=0.001", exact=True).first.wait_for()
    page.get_by_role("switch", name="Parameters - Show diff only").click()
    page.get_by_role("cell", name="data.max_length").wait_for(state="detached")
    page.get_by_role("switch", name="Metrics - Show diff only").click()
    page.get_by_text("classification/accuracy", exact=True).first.wait_for()
    parameters = page.get_by_role("switch", name="Parameters - Show diff only").locator(
        "xpath=ancestor::*[.//table][1]"
    )
    rows = parameters.locator("table").first.get_by_role("row").all_inner_texts()
    page.get_by_role("switch", name="Parameters - Show diff only").scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "compare.png")
    assert [row.split()[0] for row in rows] == ["schedule.learning_rate"]
