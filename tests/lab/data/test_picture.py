import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import read_image
from moebius.lab.data.picture import convert_or_raise, convert_picture


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("rgb", "grey"),
    [
        ((255, 0, 0), 76),  # (19595·255 + 32768) / 65536 = 76.7
        ((0, 255, 0), 150),  # (38470·255 + 32768) / 65536 = 150.2
        ((0, 0, 255), 29),  # (7471·255 + 32768) / 65536 = 29.6
        ((200, 100, 50), 124),  # 8172318 / 65536 = 124.7
        ((255, 255, 255), 255),
    ],
)
def test_grey_is_itu_r_601(rgb, grey):
    assert convert_picture(encode(Image.new("RGB", (1, 1), rgb)), 1, "grey").tolist() == [[[grey]]]


def test_rgb_is_channels_first():
    assert convert_picture(encode(Image.new("RGB", (1, 1), (1, 2, 3))), 1, "rgb").tolist() == [[[1]], [[2]], [[3]]]


def test_rgb_of_a_grey_image_repeats_it_and_grey_of_that_is_the_image():
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    rgb = convert_picture(pixels, 4, "rgb")
    assert (rgb == pixels).all()
    assert (convert_picture(np.ascontiguousarray(rgb.transpose(1, 2, 0)), 4, "grey")[0] == pixels).all()


def test_resize_is_bilinear():
    pixels = np.array([[0, 255], [0, 255]], dtype=np.uint8)
    assert convert_picture(pixels, 4, "grey")[0, 0].tolist() == [0, 64, 191, 255]  # 255 · (0, ¼, ¾, 1)
    assert convert_picture(pixels, 1, "grey").tolist() == [[[128]]]


def test_the_right_size_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    assert (convert_picture(encode(Image.fromarray(pixels)), 8, "grey")[0] == pixels).all()


def test_sixteen_bits_keep_their_upper_eight():
    pixels = np.array([[0, 255], [256, 65535]], dtype=np.uint16)
    assert convert_picture(encode(Image.fromarray(pixels)), 2, "grey").tolist() == [[[0, 0], [1, 255]]]


def test_a_palette_with_transparency_becomes_its_colours():
    image = Image.new("RGB", (2, 2), (200, 100, 50)).quantize(2)
    assert convert_picture(encode(image, transparency=bytes([255, 0])), 2, "grey")[0, 0, 0] == 124


def test_a_photograph_is_turned_upright():
    image = Image.fromarray(np.array([[0] * 8, [255] * 8] * 4, dtype=np.uint8).repeat(4, 0)[:8])
    orientation = Image.Exif()
    orientation[0x0112] = 6  # the camera was turned by a quarter
    upright = convert_picture(encode(image, "JPEG", exif=orientation.tobytes(), quality=100), 8, "grey")
    plain = convert_picture(encode(image, "JPEG", quality=100), 8, "grey")
    assert (upright[0] == np.rot90(plain[0], -1)).all()
    assert (upright != plain).any()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "TIFF"])
def test_a_picture_is_turned_upright_by_what_its_file_says_of_it(kind):
    """In XMP alone, as editors write it; in a tag of TIFF."""
    xmp = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    options = {"PNG": {"pnginfo": text}, "TIFF": {"tiffinfo": {274: 6}}}.get(kind, {"xmp": xmp.encode()})
    options |= {"lossless": True} if kind == "WEBP" else {"quality": 100}
    image = Image.fromarray(np.repeat([[0], [255]], 8, 1).repeat(4, 0).astype(np.uint8))
    upright = convert_picture(encode(image, kind, **options), 8, "grey")
    assert (upright[0, :, :4] == 255).all()
    assert (upright[0, :, 4:] == 0).all()


GLYPHS = {
    "LA": Image.merge("LA", (Image.new("L", (2, 2)), Image.fromarray(np.array([[255, 0], [0, 0]], np.uint8)))),
    "L": Image.fromarray(np.array([[10, 0], [0, 0]], np.uint8)),
    "I;16": Image.fromarray(np.array([[10, 300], [300, 300]], np.uint16)),
    "P": Image.fromarray(np.array([[1, 0], [0, 0]], np.uint8)).convert("P"),
}
KEYS = {"L": 0, "I;16": 300, "P": bytes([0, 255])}


@pytest.mark.parametrize("mode", [*GLYPHS, "RGBA"])
def test_a_glyph_on_transparent_pixels_lies_on_white(mode):
    image = GLYPHS["LA"].convert("RGBA") if mode == "RGBA" else GLYPHS[mode]
    options = {"transparency": KEYS[mode]} if mode in KEYS else {}
    with pytest.warns(UserWarning, match="transparent pixels of images become white"):
        (pixels,) = convert_picture(encode(image, **options), 2, "grey").tolist()
    assert pixels[0][0] <= 10
    assert [pixels[0][1], *pixels[1]] == [255] * 3


def test_half_transparent_pixels_are_mixed_with_white_and_opaque_ones_stay():
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    with pytest.warns(UserWarning, match="become white"):
        assert convert_picture(encode(half), 1, "rgb").ravel().tolist() == [255, 127, 127]
    opaque = Image.new("RGBA", (1, 1), (200, 100, 50, 255))
    assert convert_picture(encode(opaque), 1, "grey").tolist() == [[[124]]]


def test_a_white_glyph_on_transparent_pixels_is_refused():
    image = Image.new("RGBA", (2, 2), (255, 255, 255, 0))
    image.putpixel((0, 0), (255, 255, 255, 255))
    with pytest.raises(DataError, match="it is white where it is not transparent"):
        convert_or_raise(encode(image), 2, "rgb", "a.png")


def test_a_file_is_read_as_its_bytes_are(tmp_path):
    content = encode(Image.new("RGB", (5, 3), (9, 8, 7)))
    (tmp_path / "a.png").write_bytes(content)
    assert (read_image(tmp_path / "a.png", 4, "rgb").numpy() == convert_picture(content, 4, "rgb")).all()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: there is no such image file"):
        read_image(tmp_path / "a.png", 4)


@pytest.mark.parametrize("cut", [10, 60])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, cut):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(pixels))[:cut])
    with pytest.raises(DataError, match=r"a\.png: the image cannot be decoded"):
        read_image(tmp_path / "a.png", 4)


def test_text_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match="no image in any known format"):
        read_image(tmp_path / "a.png", 4)


def test_an_unknown_colour_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="color: must be grey or rgb, got 'blue'"):
        read_image(tmp_path / "a.png", 4, "blue")


def test_a_format_for_which_another_program_is_started_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (2, 2)).save(path, "EPS")
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path, 2)
