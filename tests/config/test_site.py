"""launchers/site.yaml: what a cluster needs in every job, under what the words say."""

import pytest

from ftx.config import arms, site
from ftx.config.compose import compose
from ftx.errors import UserError


@pytest.fixture
def says(tmp_path, monkeypatch):
    """Writes a site file and puts it where the checkout's own would be."""

    def write(text):
        (tmp_path / "site.yaml").write_text(text)
        monkeypatch.setattr(site, "SITE", tmp_path / "site.yaml")
        monkeypatch.setattr(arms, "SITE", tmp_path / "site.yaml")

    return write


def test_the_site_is_the_default_and_words_come_first(says):
    says("partition: gpu\naccount: team\nsetup: [module load cuda]\nsbatch: {mail-type: FAIL}\n")
    launcher = compose("launcher=slurm", "launcher.account=mine", "launcher.sbatch.nice=5").launcher
    assert (launcher.partition, launcher.account, launcher.setup) == ("gpu", "mine", ["module load cuda"])
    assert launcher.sbatch == {"mail-type": "FAIL", "nice": 5}


def test_it_says_nothing_to_other_launchers(says):
    says("partition: gpu\n")
    assert compose("launcher=local").launcher.partition is None


def test_a_key_that_no_launcher_has_is_refused(says):
    says("partitoin: gpu\n")
    with pytest.raises(UserError, match=r"site\.yaml: partitoin: no launcher key \(did you mean partition\?\)"):
        compose("launcher=slurm")
