"""Makes the regression images of this folder and `expected.json`.

Needs Pillow 10.4.0 and NumPy: `python make.py`. `expected.json` maps each file to what
`Image.open(file).convert("RGB")` gives: the mode, the size and the SHA-256 of the pixels, or an
error. Files of another Pillow version are not accepted.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

assert PIL.__version__ == "10.4.0", f"expected Pillow 10.4.0, found {PIL.__version__}"

HERE = Path(__file__).parent
rng = np.random.default_rng(1)


def picture(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Smooth waves, a flat block and a little noise: uint8 [height, width, channels]."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(channels):
        a, b, c = rng.uniform(0.05, 0.3, 3)
        planes.append(128 + 60 * np.sin(a * x + 3 * b) + 50 * np.cos(b * y + c * x))
    pixels = np.stack(planes, axis=2) + rng.normal(0, 6, (height, width, channels))
    pixels[: height // 3, : width // 3] = rng.integers(0, 256, channels)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    if mode in ("L", "P"):
        rgb = Image.fromarray(picture(width, height))
        return rgb.convert("L") if mode == "L" else rgb.quantize(40)
    return Image.fromarray(picture(width, height, len(mode)), mode)


def encoded(source: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    source.save(buffer, format=format, **options)
    return buffer.getvalue()


def put(name: str, data: bytes) -> None:
    (HERE / name).write_bytes(data)


def make_jpeg() -> None:
    for name in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            kind = "progressive" if progressive else "baseline"
            data = encoded(image(37, 29), "JPEG", quality=80, subsampling=name, progressive=progressive)
            put(f"jpeg_{name.replace(':', '')}_{kind}.jpg", data)
    put("jpeg_gray.jpg", encoded(image(33, 17, "L"), "JPEG"))
    put("jpeg_restart.jpg", encoded(image(50, 40), "JPEG", restart_marker_blocks=2))
    put("jpeg_rgb.jpg", encoded(image(31, 23), "JPEG", keep_rgb=True))
    cmyk = encoded(image(30, 21, "CMYK"), "JPEG")
    adobe = cmyk.find(b"Adobe")
    put("jpeg_cmyk.jpg", cmyk)
    put("jpeg_ycck.jpg", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :])
    progressive = encoded(image(48, 40), "JPEG", progressive=True)
    second_scan = progressive.find(b"\xff\xda", progressive.find(b"\xff\xda") + 2)
    put("jpeg_first_scan_only.jpg", progressive[:second_scan] + b"\xff\xd9")
    whole = encoded(image(40, 40), "JPEG")
    put("jpeg_no_end_marker.jpg", whole[:-2])
    put("jpeg_trailing_bytes.jpg", whole + b"bytes after the end")
    put("jpeg_truncated.jpg", whole[: len(whole) * 2 // 3])
    scan = whole.find(b"\xff\xda") + 200
    put("jpeg_end_marker_too_early.jpg", whole[:scan] + b"\xff\xd9")


def png(width: int, height: int, color: int, depth: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*item) for item in chunks)]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def make_png() -> None:
    gray = [bytes([0]) + rng.integers(0, 500, 20).astype(">u2").tobytes() for _ in range(9)]
    first = gray[0][1:3]
    put("png_gray16_transparent.png", png(20, 9, 0, 16, b"".join(gray), (b"tRNS", first)))
    wide = [bytes([0]) + rng.integers(0, 65536, 40).astype(">u2").tobytes() for _ in range(9)]
    put("png_gray16_alpha.png", png(20, 9, 4, 16, b"".join(wide)))
    gray2 = [bytes([0]) + rng.bytes(5) for _ in range(9)]
    put("png_gray2.png", png(19, 9, 0, 2, b"".join(gray2)))
    indices = [bytes([0, *range(16 * y, 16 * y + 16)]) for y in range(16)]
    short = rng.bytes(60)
    put("png_palette_too_short.png", png(16, 16, 3, 8, b"".join(indices), (b"PLTE", short)))
    data = encoded(image(40, 30), "PNG")
    put("png_truncated.png", data[: len(data) // 2])
    frames = [image(20, 16) for _ in range(2)]
    put("png_animated.png", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]))


def make_gif() -> None:
    for interlace in (0, 1):
        put(f"gif_interlace{interlace}.gif", encoded(image(31, 22, "P"), "GIF", interlace=interlace))
    data = encoded(image(20, 15, "P"), "GIF")
    frame = data.find(b",", 13 + 3 * (2 << (data[10] & 7)))
    place = struct.pack("<HH", 4, 3)
    for name, size in (("inside", (30, 24)), ("beyond", (10, 8))):
        moved = data[:6] + struct.pack("<HH", *size) + data[10 : frame + 1] + place + data[frame + 5 :]
        put(f"gif_frame_{name}.gif", moved)
        control = b"!\xf9\x04\x01\x00\x00\x02\x00"
        put(f"gif_frame_{name}_transparent.gif", moved[:frame] + control + moved[frame:])
    put("gif_truncated.gif", data[: len(data) // 2])


def make_webp() -> None:
    put("webp_lossy.webp", encoded(image(45, 31), "WEBP", quality=60))
    alpha = image(30, 22, "RGBA")
    put("webp_lossy_alpha.webp", encoded(alpha, "WEBP", quality=60))
    put("webp_lossless_alpha.webp", encoded(alpha, "WEBP", lossless=True, exact=True))
    second = image(30, 22, "RGBA")
    put("webp_animated.webp", encoded(alpha, "WEBP", save_all=True, append_images=[second]))
    data = encoded(image(45, 31), "WEBP", quality=60)
    put("webp_truncated.webp", data[:-2])


def bmp(width: int, height: int, bits: int, compression: int, data: bytes, tail: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 1, 1, 0, 0)
    offset = 14 + len(header) + len(tail)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + tail + data


def make_bmp() -> None:
    for bits in (1, 4, 8, 16, 24, 32):
        palette = rng.bytes(4 << bits) if bits <= 8 else b""
        pitch = (21 * bits + 31) // 32 * 4
        put(f"bmp_{bits}.bmp", bmp(21, 11, bits, 0, rng.bytes(pitch * 11), palette))
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    put("bmp_565.bmp", bmp(21, 11, 16, 3, rng.bytes(44 * 11), masks))
    put("bmp_top_down.bmp", bmp(21, -11, 24, 0, rng.bytes(64 * 11)))
    runs = b"\x05\x11\x00\x04\x01\x02\x03\x04\x03\x22\x00\x00" * 6 + b"\x00\x01"
    put("bmp_rle8.bmp", bmp(12, 6, 8, 1, runs, rng.bytes(1024)))
    runs4 = b"\x05\x12\x00\x04\x34\x56\x03\x78\x00\x00" * 6 + b"\x00\x01"
    put("bmp_rle4.bmp", bmp(12, 6, 4, 2, runs4, rng.bytes(64)))
    delta = b"\x05\x11\x00\x02\x00\x00\x02\x01\x0c\x22" + b"\x0c\x33\x00\x00" * 6 + b"\x00\x01"
    put("bmp_rle8_delta.bmp", bmp(12, 6, 8, 1, delta, rng.bytes(1024)))
    put("bmp_truncated.bmp", bmp(21, 11, 24, 0, rng.bytes(64 * 5)))


def tiff(width: int, height: int, tags: dict[int, list[int]], data: bytes, order: str = "<") -> bytes:
    """One strip; every tag is 16 bits, offsets and lengths 32."""
    directory = 8 + len(data) + len(data) % 2
    entries = {256: [width], 257: [height], 259: [1], 278: [height], **tags}
    extra = b""
    after = directory + 2 + 12 * (len(entries) + 2) + 4
    body = struct.pack(order + "H", len(entries) + 2)
    for tag, values in sorted([*entries.items(), (273, [8]), (279, [len(data)])]):
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        value = struct.pack(order + letter * len(values), *values)
        if len(value) > 4:
            value, extra = struct.pack(order + "I", after + len(extra)), extra + value
        body += struct.pack(order + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    magic = struct.pack("2sHI", b"II", 42, directory) if order == "<" else struct.pack(">2sHI", b"MM", 42, directory)
    return magic + data + b"\0" * (len(data) % 2) + body + b"\0" * 4 + extra


def make_tiff() -> None:
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        put(f"tiff_rgb_{compression}.tif", encoded(image(29, 19), "TIFF", compression=compression))
    put("tiff_predictor.tif", encoded(image(29, 19), "TIFF", compression="tiff_lzw", tiffinfo={317: 2}))
    put("tiff_bilevel_g4.tif", encoded(image(40, 25).convert("1"), "TIFF", compression="group4"))
    put("tiff_palette.tif", encoded(image(29, 19, "P"), "TIFF"))
    put("tiff_cmyk.tif", encoded(image(29, 19, "CMYK"), "TIFF", compression="tiff_lzw"))
    put("tiff_rotated.tif", encoded(image(29, 19), "TIFF", tiffinfo={274: 6}))
    pages = [image(20, 10) for _ in range(2)]
    put("tiff_pages.tif", encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    ramp = rng.integers(0, 500, 20 * 9)
    for order, name in (("<", "little"), (">", "big")):
        gray = {258: [16], 262: [1], 277: [1]}
        put(f"tiff_gray16_{name}.tif", tiff(20, 9, gray, ramp.astype(order + "u2").tobytes(), order))
    floats = rng.normal(120, 150, 20 * 9).astype("<f4").tobytes()
    put("tiff_float.tif", tiff(20, 9, {258: [32], 262: [1], 277: [1], 339: [3]}, floats))
    signed = rng.integers(-300, 600, 20 * 9).astype("<i4").tobytes()
    put("tiff_int32.tif", tiff(20, 9, {258: [32], 262: [1], 277: [1], 339: [2]}, signed))
    put("tiff_gray4_white_is_zero.tif", tiff(20, 9, {258: [4], 262: [0], 277: [1]}, rng.bytes(90)))
    put("tiff_low_bits_first.tif", tiff(20, 9, {258: [1], 262: [0], 266: [2], 277: [1]}, rng.bytes(27)))
    rgba = {258: [8] * 4, 262: [2], 277: [4]}
    put("tiff_premultiplied.tif", tiff(20, 9, {**rgba, 338: [1]}, rng.bytes(720)))
    put("tiff_rgb16.tif", tiff(20, 9, {258: [16] * 3, 262: [2], 277: [3]}, rng.bytes(1080)))
    data = encoded(image(29, 19), "TIFF", compression="tiff_lzw", strip_size=200)
    put("tiff_strips.tif", data)
    put("tiff_truncated.tif", encoded(image(29, 19), "TIFF")[:900])


def expected(path: Path) -> dict[str, object]:
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            rgb = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return {"error": True}
    return {"mode": mode, "size": list(rgb.size), "rgb_sha256": hashlib.sha256(rgb.tobytes()).hexdigest()}


def main() -> None:
    for make in (make_jpeg, make_png, make_gif, make_webp, make_bmp, make_tiff):
        make()
    files = sorted(path for path in HERE.iterdir() if path.suffix not in (".py", ".json"))
    record = {"pillow": PIL.__version__, "images": {path.name: expected(path) for path in files}}
    (HERE / "expected.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
