"""Triton kernels of the U-Net's training: what is left between its matrix products."""

# mypy: ignore-errors
import triton
import triton.language as tl


@triton.jit
def mish(x):
    """`x * tanh(softplus(x))`; Misra 2019."""
    e = tl.exp(tl.minimum(x, 20.0))
    n = e * (e + 2)
    return x * (n / (n + 2))


@triton.jit
def unfold_kernel(
    x_ptr, out_ptr, T_in, T_out, C, stride_b, stride_t,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Neighbourhoods `(B * T_out, C * TAPS)` of sequences `(B, T_in, C)`."""
    row = tl.program_id(0)
    b = row // T_out
    entry = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    t = (row % T_out) * STRIDE + entry % TAPS - PADDING
    inside = entry < C * TAPS
    x = tl.load(x_ptr + b * stride_b + t * stride_t + entry // TAPS, mask=inside & (t >= 0) & (t < T_in), other=0.0)
    tl.store(out_ptr + row.to(tl.int64) * C * TAPS + entry, x, mask=inside)


@triton.jit
def fold_kernel(
    columns_ptr, bias_ptr, out_ptr, T_in, T_out, C,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transpose of `unfold_kernel`: `(B * T_out, C * TAPS)` summed into `(B, T_in, C)`, plus a bias `(C,)`."""
    row = tl.program_id(0)
    b = row // T_in
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    if BIAS:
        total += tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    for tap in tl.static_range(TAPS):
        shifted = row % T_in + PADDING - tap
        t = shifted // STRIDE
        reached = (shifted >= 0) & (shifted % STRIDE == 0) & (t < T_out)
        source = columns_ptr + (b * T_out + t).to(tl.int64) * C * TAPS + c * TAPS + tap
        total += tl.load(source, mask=(c < C) & reached, other=0.0).to(tl.float32)
    tl.store(out_ptr + row.to(tl.int64) * C + c, total.to(out_ptr.dtype.element_ty), mask=c < C)


@triton.jit
def _group_of(group, b, T, C, width, BT: tl.constexpr, BC: tl.constexpr):
    """Channels `(1, BC)` of a group and which there are; entries `(BT, BC)` of a sequence and which there are."""
    t = tl.arange(0, BT)[:, None]
    column = tl.arange(0, BC)[None, :]
    c = group * width + column
    inside = column < width
    return c, inside, b.to(tl.int64) * T * C + t * C + c, (t < T) & inside


@triton.jit
def norm_forward_kernel(
    y_ptr, gamma_ptr, beta_ptr, film_ptr, residual_ptr, out_ptr, stats_ptr, T, C, width, film_stride,
    FILM: tl.constexpr, RESIDUAL: tl.constexpr, EPS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Group norm, Mish, FiLM and residual of `(B, T, C)`; one program for a group of one sequence.

    FILM is 0 for none, 1 for a bias `(B, C)`, 2 for scale and bias `(B, 2C)`. Mean and reciprocal deviation are kept
    in `stats` `(B, groups, 2)`.
    """
    group, b = tl.program_id(0), tl.program_id(1)
    c, inside, entry, mask = _group_of(group, b, T, C, width, BT, BC)
    y = tl.load(y_ptr + entry, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(y) / (T * width)
    centred = tl.where(mask, y - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / (T * width) + EPS)
    normed = centred * rstd * tl.load(gamma_ptr + c, mask=inside, other=0.0)
    out = mish(normed + tl.load(beta_ptr + c, mask=inside, other=0.0))
    film = film_ptr + b * film_stride + c
    if FILM == 2:
        out *= tl.load(film, mask=inside, other=0.0).to(tl.float32)
        film += C
    if FILM > 0:
        out += tl.load(film, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        out += tl.load(residual_ptr + entry, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + entry, out.to(out_ptr.dtype.element_ty), mask=mask)
    stats = stats_ptr + (b * tl.num_programs(0) + group) * 2
    tl.store(stats, mean)
    tl.store(stats + 1, rstd)


@triton.jit
def norm_backward_kernel(
    grad_ptr, y_ptr, gamma_ptr, beta_ptr, film_ptr, stats_ptr, grad_y_ptr, grad_film_ptr, sums_ptr, T, C, width,
    film_stride, FILM: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of `norm_forward_kernel`: of `y`, of FiLM; `sums` `(B, 3C)` over time for gamma, beta, y."""
    group, b = tl.program_id(0), tl.program_id(1)
    c, inside, entry, mask = _group_of(group, b, T, C, width, BT, BC)
    flat_column = tl.arange(0, BC)
    flat_c = group * width + flat_column
    flat_inside = flat_column < width
    y = tl.load(y_ptr + entry, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + entry, mask=mask, other=0.0).to(tl.float32)
    stats = stats_ptr + (b * tl.num_programs(0) + group) * 2
    mean, rstd = tl.load(stats), tl.load(stats + 1)
    gamma = tl.load(gamma_ptr + c, mask=inside, other=0.0)
    normed = tl.where(mask, (y - mean) * rstd, 0.0)
    x = normed * gamma + tl.load(beta_ptr + c, mask=inside, other=0.0)
    e = tl.exp(tl.minimum(x, 20.0))
    n = e * (e + 2)
    tanh = n / (n + 2)
    if FILM == 1:
        grad_film = grad_film_ptr + b * C + flat_c
        tl.store(grad_film, tl.sum(grad, axis=0).to(grad_film_ptr.dtype.element_ty), mask=flat_inside)
    if FILM == 2:
        grad_film = grad_film_ptr + b * 2 * C + flat_c
        grad_scale = tl.sum(grad * x * tanh, axis=0)
        tl.store(grad_film, grad_scale.to(grad_film_ptr.dtype.element_ty), mask=flat_inside)
        tl.store(grad_film + C, tl.sum(grad, axis=0).to(grad_film_ptr.dtype.element_ty), mask=flat_inside)
        grad *= tl.load(film_ptr + b * film_stride + c, mask=inside, other=0.0).to(tl.float32)
    grad_x = tl.where(mask, grad * (tanh + x * (1 - tanh * tanh) * (e / (1 + e))), 0.0)
    grad_normed = grad_x * gamma
    offset = tl.sum(grad_normed) / (T * width)
    slope = tl.sum(grad_normed * normed) / (T * width)
    grad_y = tl.where(mask, rstd * (grad_normed - offset - normed * slope), 0.0)
    tl.store(grad_y_ptr + entry, grad_y.to(grad_y_ptr.dtype.element_ty), mask=mask)
    sums = sums_ptr + b * 3 * C + flat_c
    tl.store(sums, tl.sum(grad_x * normed, axis=0), mask=flat_inside)
    tl.store(sums + C, tl.sum(grad_x, axis=0), mask=flat_inside)
    tl.store(sums + 2 * C, tl.sum(grad_y, axis=0), mask=flat_inside)


@triton.jit
def column_sums_kernel(x_ptr, out_ptr, N, C, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums `(C,)` in float32 of the columns of `(N, C)`."""
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for start in range(0, N, ROWS):
        n = start + tl.arange(0, ROWS)
        mask = (n < N)[:, None] & (c < C)[None, :]
        total += tl.load(x_ptr + n[:, None].to(tl.int64) * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + c, tl.sum(total, axis=0), mask=c < C)
