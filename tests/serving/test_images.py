"""Images as the policy was trained to see them, whatever a camera gives."""

import cv2
import numpy as np
import pytest
from PIL import Image

from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.serving.images import as_trained, decode_jpeg
from diffusion_policy.serving.limits import RequestError

PIXELS = 1_000_000


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image, *options):
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()


def test_images_of_the_right_size_are_as_they_were():
    image = smooth(24, 32)
    assert np.array_equal(as_trained(image, (3, 24, 32), PIXELS), np.moveaxis(image, -1, 0))


@pytest.mark.parametrize("size", [(480, 640), (720, 1280), (100, 30), (12, 16), (1, 1)])
def test_other_sizes_are_resized_and_cut_as_demonstrations_are(size):
    image = smooth(*size)
    expected = get_image_transform(size[::-1], (32, 24))(image)
    seen = as_trained(image, (3, 24, 32), PIXELS)
    assert seen.shape == (3, 24, 32)
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, np.moveaxis(expected, -1, 0))


def test_the_middle_is_kept():
    image = np.zeros((48, 192, 3), np.uint8)
    image[:, 64:128] = 255
    assert as_trained(image, (3, 24, 32), PIXELS).min() == 255


@pytest.mark.parametrize(
    ("image", "shape", "reason"),
    [
        (np.zeros((24, 32, 4), np.uint8), (3, 24, 32), r"expected \(H, W, 3\)"),
        (np.zeros((3, 24, 32), np.uint8), (3, 24, 32), r"expected \(H, W, 3\)"),
        (np.zeros((2000, 1000, 3), np.uint8), (3, 24, 32), "2000 x 1000, more than 1000000 pixels"),
        (np.zeros((1, 100_000, 3), np.uint8), (3, 240, 320), "more than 1000000 pixels"),
        (np.zeros((48, 64, 1), np.uint8), (1, 24, 32), "not resized"),
    ],
)
def test_what_is_no_image_of_this_policy_is_refused(image, shape, reason):
    with pytest.raises(RequestError, match=reason):
        as_trained(image, shape, PIXELS)


def test_jpegs_are_decoded_red_first_and_not_turned():
    image = smooth(48, 64)
    decoded = decode_jpeg(jpeg(image, cv2.IMWRITE_JPEG_QUALITY, 95), PIXELS)
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).mean() < 4
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees, as telephones say
    turned = cv2.imencode(".jpg", image)[1].tobytes()
    marker = exif.tobytes()
    turned = turned[:2] + b"\xff\xe1" + (len(marker) + 2).to_bytes(2, "big") + marker + turned[2:]
    assert decode_jpeg(turned, PIXELS).shape == image.shape


def test_the_size_of_a_jpeg_is_bounded_before_it_is_decoded():
    """A file whose header promises 4 gigapixels, of which nothing follows."""
    data = bytearray(jpeg(smooth(16, 16)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(RequestError, match=r"65535 x 65535, more than 1000000 pixels|header is damaged"):
        decode_jpeg(bytes(data), PIXELS)
    data[frame + 5 : frame + 9] = (1500).to_bytes(2, "big") * 2
    with pytest.raises(RequestError, match="1500 x 1500, more than 1000000 pixels"):
        decode_jpeg(bytes(data), PIXELS)


def test_damaged_jpegs_and_other_files_are_refused():
    whole = jpeg(smooth(48, 64))
    png = cv2.imencode(".png", smooth(48, 64))[1].tobytes()
    for data in (b"", b"\xff\xd8\xff", whole[:100], whole[: len(whole) // 2], png, b"\xff\xd8\xff" + png):
        with pytest.raises(RequestError, match=r"no JPEG|damaged"):
            decode_jpeg(data, PIXELS)
