"""Adam that reads and writes every parameter once a step."""

from torch.optim import Adam, AdamW, Optimizer


def fuse_adam(optimizer: Optimizer) -> None:
    """Has torch's Adam or AdamW use its fused kernel, unless its arguments chose `fused` or `foreach`.

    To be called once a checkpoint is loaded, which says how its optimizer ran. Other optimizers stay as they are.
    """
    if type(optimizer) not in (Adam, AdamW):
        return
    for group in optimizer.param_groups:
        chosen = group["fused"] is not None or group["foreach"] is not None or group["differentiable"]
        if chosen or not all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]):
            continue
        group["fused"] = True
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                # Counted on the CPU without `fused`, where the kernel could not read it.
                state["step"] = state["step"].to(parameter.device)
