"""Loading of a checkpoint of 260 MB whose every byte is verified, against torch.load, which verifies none.

Several in a row: fresh memory takes longer than reading the file, and in turns the second way gets that of the first.
"""

import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
from omegaconf import OmegaConf
from side_by_side import compare

from diffusion_policy.common.checkpoint_file import read_checkpoint, write_checkpoint

MEGABYTES = 260
N_TENSORS = 600
CALLS = 8


def main() -> None:
    numel = MEGABYTES * 10**6 // 4 // N_TENSORS
    weights = OrderedDict((f"layer.{i}.weight", torch.randn(numel)) for i in range(N_TENSORS))
    cfg = {"policy": {"horizon": 16}, "training": {"use_ema": False}}
    with tempfile.TemporaryDirectory() as folder:
        own, original = Path(folder, "own.ckpt"), Path(folder, "original.ckpt")
        write_checkpoint(own, {"cfg": cfg, "state_dicts": {"model": weights}, "values": {"epoch": 1}})
        counters = {"epoch": b"\x80\x04K\x01.", "global_step": b"\x80\x04K\x01."}
        content = {"cfg": OmegaConf.create(cfg), "state_dicts": {"model": weights}, "pickles": counters}
        torch.save(content, original)
        for title, path, weights_only in (("this framework's", own, True), ("the original's", original, False)):
            ways = {
                "torch.load": lambda path=path, safe=weights_only: torch.load(path, weights_only=safe),
                "read_checkpoint, every byte verified": lambda path=path: read_checkpoint(path),
            }
            size = path.stat().st_size / 1e6
            compare(f"A checkpoint of {size:.0f} MB in {title} format", ways, rounds=9, calls=CALLS)


if __name__ == "__main__":
    main()
