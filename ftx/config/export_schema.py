"""The schema of ``export``: what leaves the platform once a run is trained and scored."""

from dataclasses import dataclass

from ftx.config.schema_keys import key

# What export.upload may name: as trained, merged, files for llama.cpp.
UPLOADS = ("model", "merged", "gguf")
QUANTIZATIONS = ("f32", "f16", "bf16", "q8_0", "q4_k_m", "q5_k_m", "q6_k")


@dataclass(frozen=True)
class ExportConfig:
    """Each step is a switch, so that ``export=[merge,gguf]`` chooses several; none changes what a run is."""

    # The adapter added into the weights of its base, in 16 bits.
    merge: bool = False
    # A file for llama.cpp for each of export.quantization.
    gguf: bool = False
    # README.md: a model card.
    card: bool = False
    # Upload to export.repository.
    hub: bool = False
    quantization: list[str] = key(["f16"])
    # Compare what came out with the trained model, in a process of its own.
    check: bool = True
    # OWNER/NAME on the hub.
    repository: str | None = None
    private: bool = True
    # What goes there: the model as trained (an adapter stays one), the merged one, the files for llama.cpp.
    upload: list[str] = key(["model"])
    # dry: show files and sizes, and upload nothing.
    push: str = key("yes", choices=("yes", "dry"))
    # Register the model in MLflow's model registry under this name.
    register: str | None = None
