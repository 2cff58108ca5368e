"""Compiles every Triton kernel for a GPU, which takes none: the interpreter of the other tests accepts more."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffusion_policy.model.diffusion import ema_kernel, linear_step_kernel, unet_kernels, unet_small_batch_ops
from diffusion_policy.model.vision import group_norm_kernels

HOPPER = GPUTarget("cuda", 90, 32)
FLOATS = {"sums_ptr", "stats_ptr", "gamma_ptr", "beta_ptr", "partial_ptr"}
NUMBERS = {"x0_x", "x0_out", "prev_x0", "prev_x", "prev_out", "sigma", "clip"}
LAYER = {"TAPS": 5, "STRIDE": 1, "PADDING": 2, "CHUNKS": 40, "FIRST_CHUNKS": 4, "CHUNKS_PER_TAP": 8, "SPLITS": 16}
LAYER |= {"NORM": True, "FILM": 2, "RESIDUAL": True, "EPS": 1e-5, "PRECISION": "tf32x3", "BM": 16, "BN": 128, "BK": 64}


def compile_kernel(kernel, dtype, **constants):
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name == "arrivals_ptr":
            types[name] = "*i32"
        elif name.endswith("_ptr"):
            types[name] = "*fp32" if name in FLOATS else f"*{dtype}"
        else:
            types[name] = "fp32" if name in NUMBERS else "i32"
    constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    triton.compile(ASTSource(fn=kernel, signature=types, constexprs=constexprs), target=HOPPER)
    sys.stdout.write(f"{kernel.__name__}\n")


for dtype in ("bf16", "fp32"):
    for film in (0, 1, 2):
        tile = {"FILM": film, "BT": 16, "BC": 32}
        compile_kernel(unet_kernels.norm_forward_kernel, dtype, RESIDUAL=True, EPS=1e-5, **tile)
        compile_kernel(unet_kernels.norm_backward_kernel, dtype, **tile)
    compile_kernel(unet_kernels.unfold_kernel, dtype, STRIDE=1, PADDING=2, TAPS=5, BLOCK=1024)
    compile_kernel(unet_kernels.fold_kernel, dtype, STRIDE=2, PADDING=1, TAPS=4, BIAS=True, BLOCK=512)
    compile_kernel(unet_kernels.column_sums_kernel, dtype, ROWS=64, BLOCK=32)
    compile_kernel(unet_small_batch_ops._layer_kernel, dtype, **LAYER)
    compile_kernel(group_norm_kernels._forward_kernel, dtype, EPS=1e-5, BP=256, BC=16)
    compile_kernel(group_norm_kernels._backward_kernel, dtype, BP=256, BC=16)
compile_kernel(linear_step_kernel._step_kernel, "fp32", CLIP=True, NOISE=True, BLOCK=256)
compile_kernel(ema_kernel._lerp_kernel, "fp32", BLOCK=2048)
