"""What libraries say at every start and no setting of the user's would end, silenced at its source."""

import logging
import warnings


def silence_libraries() -> None:
    """Call before the libraries are imported: some speak while they are."""
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("torch.distributed.elastic.multiprocessing.redirects").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator is found.*")
    # ftx says so itself, once for the run.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU.*")
    # peft asks for what transformers has renamed.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated.*")
    # A random model has no file that peft could compare the vocabulary with.
    warnings.filterwarnings("ignore", message="Could not find a config file in.*")
    for called in ("all_gather_into_tensor", "reduce_scatter_tensor", "broadcast_buffers"):  # by DeepSpeed, accelerate
        warnings.filterwarnings("ignore", message=f".*`(torch.distributed.)?{called}` is deprecated.*")
    # Trainer accumulates itself and tells accelerate 1; DeepSpeed has to know the real number.
    logging.getLogger("accelerate.accelerator").addFilter(
        lambda record: "Gradient accumulation steps mismatch" not in record.getMessage()
    )
