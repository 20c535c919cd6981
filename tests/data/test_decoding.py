"""Decoding: as the reference does it, only the stated formats, nothing skipped, nothing waited for."""

from __future__ import annotations

import io
import os
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipbench.data.decoding import END, FORMATS, as_rgb, check_content, check_header, check_images, decode
from clipbench.data.paths import IMAGE_SUFFIXES
from clipbench.errors import DataError
from tests.data.pictures import picture


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb_as_pillow_converts_it(tmp_path: Path, mode: str) -> None:
    source = picture(1).convert("RGBA" if mode == "RGBA" else "L" if mode == "LA" else "RGB").convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    source.save(path)
    pixels = decode(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (20, 30, 3)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))


def test_exif_orientation_is_ignored_as_in_the_reference(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by a quarter to look at it"
    picture(1).save(tmp_path / "turned.jpg", exif=exif)
    picture(1).save(tmp_path / "plain.jpg")
    np.testing.assert_array_equal(decode(tmp_path / "turned.jpg"), decode(tmp_path / "plain.jpg"))
    assert decode(tmp_path / "turned.jpg").shape == (20, 30, 3)


def test_a_truncated_jpeg_is_named(truncated: Path) -> None:
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be decoded \(.*truncated"):
        decode(truncated)


def test_an_empty_file_a_text_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    lines = check_images([tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path / "gone.jpg"])
    assert len(lines) == 3
    assert "empty.jpg: the file is empty (0 bytes)" in lines[0]
    assert "text.jpg: not an image" in lines[1]
    assert "gone.jpg: the file does not exist" in lines[2]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as the module sets it, which pytest undoes
@pytest.mark.parametrize("limit", [500, 200])
def test_a_decompression_bomb_is_an_error_also_where_pillow_only_warns(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # 600 pixels: a warning above 500, an error above 2 x 200
    with pytest.raises(DataError, match=r"0\.png: too many pixels, taken for a decompression bomb"):
        decode(files[0])


def test_decoding_leaves_the_callers_warning_filters_alone(files: list[Path]) -> None:
    before = list(warnings.filters)
    decode(files[0])
    assert warnings.filters == before


def test_check_images_counts_all_bad_files_in_order(files: list[Path], truncated: Path) -> None:
    assert check_images(files) == []
    lines = check_images([files[0], truncated, files[1], truncated.with_name("gone.jpg")])
    assert [line.split(":")[0] for line in lines] == [str(truncated), str(truncated.with_name("gone.jpg"))]


# What is refused


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("sixteen.png", np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50),
        ("sixteen.tif", np.arange(1200, dtype=np.uint16).reshape(30, 40)),
        ("float.tif", np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)),
        ("int.tif", np.arange(1200, dtype=np.int32).reshape(30, 40)),
        ("sixteen.pgm", np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50),
    ],
)
def test_more_than_eight_bits_a_channel_is_refused_not_clipped(name: str, pixels: np.ndarray, tmp_path: Path) -> None:
    path, image = tmp_path / name, Image.fromarray(pixels)
    image.save(path)
    with pytest.raises(DataError, match=rf"{name}: it has (more than 8 bits|floating-point).*scale it to 8 bits"):
        decode(path)
    assert "scale it to 8 bits" in str(check_header(path))
    assert "scale it to 8 bits" in str(check_content(path, path.read_bytes()))
    with pytest.raises(DataError, match="scale it to 8 bits"):
        as_rgb(image)


def test_colours_of_sixteen_bits_are_scaled_by_pillow_and_read(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + struct.pack(">12H", *range(0, 60000, 5000)) for _ in range(4))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert decode(tmp_path / "deep.png")[0].ravel().tolist() == [value >> 8 for value in range(0, 60000, 5000)]


@pytest.mark.parametrize(("width", "height"), [(1, 100_000), (100_000, 1), (3, 601)])
def test_a_line_is_no_photo(width: int, height: int, tmp_path: Path) -> None:
    Image.new("RGB", (width, height)).save(tmp_path / "line.png")
    with pytest.raises(DataError, match=rf"line\.png: {width} x {height} pixels: one side is more than 200 times"):
        decode(tmp_path / "line.png")
    Image.new("RGB", (1, 200)).save(tmp_path / "ribbon.png")
    assert decode(tmp_path / "ribbon.png").shape == (200, 1, 3)


def test_only_the_stated_formats_are_tried_whatever_the_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "eps.png").write_text(eps)
    for kind, options in (("ICO", {}), ("PCX", {}), ("TGA", {}), ("DDS", {}), ("PDF", {})):
        picture(1, 32, 32).save(tmp_path / f"{kind}.jpg", kind, **options)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=rf"{path.name}: not an image that can be read \(JPEG, PNG"):
            decode(path)


def test_every_ending_that_is_listed_has_a_format_that_is_read() -> None:
    Image.init()
    of = {ending: kind for ending, kind in Image.EXTENSION.items() if ending in IMAGE_SUFFIXES}
    assert set(of) == IMAGE_SUFFIXES - {".avif"} | (set(of) & {".avif"})
    assert set(of.values()) <= set(FORMATS)


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "lime")]
    for name, options in (("a.gif", {}), ("a.webp", {"lossless": True}), ("a.png", {})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert decode(tmp_path / name)[0, 0].tolist() == [255, 0, 0], name


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device", "link to nowhere", "forbidden"])
def test_what_is_no_file_is_named_and_not_waited_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = Path("x.jpg")
    words = {"link to nowhere": "the link leads nowhere", "forbidden": "you may not read it"}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to nowhere":
        path.symlink_to("gone.jpg")
    else:
        path.write_bytes(b"x")
        monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(DataError, match=words.get(kind, f"a {kind}, not a file")):
        decode(path)


# Found without decoding


def test_a_file_that_is_cut_off_is_found_by_its_content_and_a_whole_one_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        buffer = io.BytesIO()
        picture(3, 60, 60).save(buffer, kind)
        data, path = buffer.getvalue(), tmp_path / f"x.{kind}"
        assert check_content(path, data) is None, kind
        assert str(check_content(path, data[: len(data) // 2])).startswith(f"{path}: "), kind
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    for kind in ("JPEG", "PNG", "WEBP"):
        buffer = io.BytesIO()
        picture(3, 60, 60).save(buffer, kind)
        assert check_content(tmp_path, buffer.getvalue()) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_file_that_is_cut_off_is_found_by_its_end(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    picture(3, 120, 120).save(path, kind)
    data = path.read_bytes()
    assert check_header(path) is None
    path.write_bytes(data + bytes(200))
    assert check_header(path) is None, "some programs write a little behind the image"
    for length in (len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:length])
        assert str(check_header(path)).startswith(f"{path}: ")


def test_a_good_end_saves_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    for kind in ("JPEG", "PNG", "WEBP"):
        picture(3, 400, 400).save(tmp_path / "image", kind)
        assert (tmp_path / "image").stat().st_size > END, "it has more than the end that is looked at"
        assert check_header(tmp_path / "image") is None


def test_a_png_with_a_wrong_checksum_is_found_without_a_whole_look(files: list[Path]) -> None:
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 255
    files[0].write_bytes(data)
    with pytest.raises(DataError):
        decode(files[0])
    assert "0.png: cannot be decoded" in str(check_content(files[0], bytes(data)))


def test_a_header_says_what_it_can(files: list[Path], truncated: Path) -> None:
    assert check_header(files[0]) is None
    assert "truncated" in str(check_header(truncated)), "its header is whole, but it does not end as it must"
    files[1].write_bytes(b"")
    assert "1.png: the file is empty (0 bytes)" in str(check_header(files[1]))
