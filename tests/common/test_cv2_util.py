import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.common.cv2_util import draw_reticle, draw_text, get_image_transform, optimal_row_cols


def facts(compat: Path) -> dict:
    return json.loads((compat / "numerics" / "misc.json").read_text())


def test_images_are_those_of_the_original(compat: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (72, 128, 3), dtype=np.uint8)
    for case in facts(compat)["get_image_transform"]:
        transform = get_image_transform(tuple(case["input_res"]), tuple(case["output_res"]), case["bgr_to_rgb"])
        result = transform(image)
        assert list(result.shape) == case["shape"]
        assert hashlib.sha256(np.ascontiguousarray(result).tobytes()).hexdigest() == case["sha256"]


def test_grids_are_those_of_the_original(compat: Path) -> None:
    for case in facts(compat)["optimal_row_cols"]:
        n_cameras, ratio, resolution = case["args"]
        assert list(optimal_row_cols(n_cameras, ratio, tuple(resolution))) == case["returns"]


def test_sizes_that_were_not_promised_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(72, 128, 3\), expected \(720, 1280, 3\)"):
        get_image_transform()(np.zeros((72, 128, 3), np.uint8))
    with pytest.raises(ValueError, match="n_cameras is 0"):
        optimal_row_cols(0, 1.3)


def test_marks_are_where_they_should_be() -> None:
    image = np.full((100, 200, 3), 128, np.uint8)
    draw_reticle(image, 50.2, 40, label_color=(255, 0, 0))
    marked = np.argwhere((image != 128).any(axis=-1))
    assert np.allclose(marked.mean(0), [40, 50], atol=0.5)
    assert (image[40, 50] == 128).all()  # what it points at stays visible

    one, two = np.zeros((2, 100, 200, 3), np.uint8)
    draw_text(one, text="Episode", uv_top_left=(12, 10))
    draw_text(two, text="Episode\nStage", uv_top_left=(12, 10))
    rows, columns = np.nonzero(one.any(axis=-1))
    assert 8 <= rows.min() <= 14
    assert 10 <= columns.min() <= 16
    assert (one[: rows.max()] == two[: rows.max()]).all()
    assert two[rows.max() + 2 :].any()
    draw_text(one, text="at the edge", uv_top_left=(190, 95))  # cut off, no error
