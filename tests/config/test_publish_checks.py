"""What the words say of publishing, before anything is trained."""

import pytest

from ftx.config.compose import compose
from ftx.errors import UserError

HUB = ("export.hub=true", "export.repository=me/mine")


def test_what_is_right():
    export = compose(*HUB, "export.upload=[model,gguf]", "export.push=dry", "export.register=my models").export
    assert (export.repository, export.upload, export.private) == ("me/mine", ["model", "gguf"], True)
    assert compose("method=lora", "export=[merge]", "export.register=mine").export.register == "mine"
    assert compose("method=lora", *HUB, "export.upload=[merged]").export.upload == ["merged"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export.hub=true"], "export.repository is not set: export=hub needs export.repository=OWNER/NAME"),
        ([HUB[0], "export.repository=mine"], "export.repository=mine: not a name on the hub; write OWNER/NAME"),
        ([HUB[0], "export.repository=me/mine/too"], "not a name on the hub"),
        ([HUB[0], "export.repository=me/a..b"], "not a name on the hub"),
        ([*HUB, "export.upload=[]"], "export.upload=[]: nothing to upload; choose of model, merged, gguf"),
        ([*HUB, "export.upload=[modle]"], "export.upload=[modle]: no such part (did you mean model?)"),
        ([*HUB, "export.upload=[merged]"], "method=full has no adapter to merge"),
        ([*HUB, "export.push=never"], "export.push=never: no such value"),
        ([*HUB, "schedule.epochs=0"], "export.hub: schedule.epochs=0 trains nothing that could be published"),
        (["export.card=true", "schedule.epochs=0"], "export.card: schedule.epochs=0 trains nothing"),
        (["export.register=a/b"], "export.register=a/b: not a name for MLflow's registry; write one without / and :"),
        (["export.register=a", "tracking.offline=true"], "tracking.offline=true sends nothing to MLflow"),
        (
            ["export.register=a", "method=lora"],
            "export.register=a: an adapter on random weights is nothing without them; say export=[merge] too",
        ),
        (
            ["export.register=a", "method=qlora", "model=hub", "model.name=a/b"],
            "not in the 4 bits that it was trained on; say export=[merge] too",
        ),
        (["export.repository=me/mine"], "nothing in this run reads it, only export=hub does"),
        (["export.push=dry"], "nothing in this run reads it, only export=hub does"),
        (["export.private=false"], "nothing in this run reads it, only export=hub does"),
    ],
)
def test_a_mistake(words, message):
    with pytest.raises(UserError) as told:
        compose(*words)
    assert message in str(told.value)
    assert len(str(told.value).splitlines()) == 1
