"""The schema of ``hardware``: what a run is computed on."""

from dataclasses import dataclass

from ftx.config.schema_keys import key, section


@dataclass(frozen=True)
class TflopsConfig:
    """What one device computes at most, in 10¹² FLOP/s without sparsity: matrices of 16-bit floats, of 32-bit floats
    with and without the tensor cores' short mantissas."""

    half: float | None = key(None, above=0)
    tf32: float | None = key(None, above=0)
    single: float | None = key(None, above=0)


@dataclass(frozen=True)
class HardwareConfig:
    """What a run is computed on. Only the precision changes its result."""

    device: str = key("cpu", choices=("cpu", "cuda"), identity=False)
    # What the devices are called, for messages and reports.
    gpu: str | None = key(None, identity=False)
    nodes: int = key(1, minimum=1, identity=False)
    gpus_per_node: int = key(0, minimum=0, identity=False)
    processes_per_node: int = key(1, minimum=1, identity=False)
    # How several processes share the work: auto is zero2. ddp keeps everything whole in each of them, zero1 shares out
    # the optimizer's state, zero2 the gradients too, zero3 and fsdp (PyTorch's own) the weights too.
    strategy: str = key("auto", choices=("auto", "ddp", "zero1", "zero2", "zero3", "fsdp"), identity=False)
    precision: str = key("fp32", choices=("fp32", "bf16", "fp16"))
    # Rows that one device takes through the model at once; auto: as many as a plan finds room for.
    micro_batch: int | str = key(1, choices=("auto",), minimum=1, identity=False)
    # CPU threads of one process; null: all cores, shared among the runs that work side by side.
    threads: int | None = key(None, minimum=1, identity=False)
    # Keep only the inputs of each layer and compute the rest again in the backward pass: less memory, a third slower.
    activation_checkpointing: bool = key(False, identity=False)
    # Those inputs wait in the host's memory.
    activation_offload: bool = key(False, identity=False)
    # Multiply 32-bit matrices with 10 bits of mantissa on a GPU's tensor cores.
    tf32: bool = key(True, identity=False)
    # Let cuDNN try its convolutions and keep the fastest; models without convolutions gain nothing.
    cudnn_benchmark: bool = key(False, identity=False)
    # What one device computes at most in this precision, in 10¹² FLOP/s, for mfu; null: as known for its name.
    peak_tflops: float | None = key(None, above=0, identity=False)
    # The same for plans, by precision, from the maker's data sheet.
    tflops: TflopsConfig = section(TflopsConfig, identity=False)
    # Of one device, as the system reports it.
    memory_gib: float | None = key(None, above=0, identity=False)
    # The device's memory is the host's too.
    unified_memory: bool = key(False, identity=False)
    # What one device reads and writes of its own memory, in 10⁹ bytes a second.
    bandwidth_gb_s: float | None = key(None, above=0, identity=False)
    # What one device sends to others while it receives as much: within its node, and to other nodes.
    interconnect_gb_s: float | None = key(None, above=0, identity=False)
    network_gb_s: float | None = key(None, above=0, identity=False)
    # Of one node.
    host_memory_gib: float | None = key(None, above=0, identity=False)
