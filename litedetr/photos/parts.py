"""How many parts a picture file has: comments, chunks, segments and scans beyond any camera's or program's only cost time.

Decoders go through every part, some of them at a cost that grows with what came before, so a small file can keep one busy for
minutes. Here a file is walked by its lengths alone, and no further than the limits.
"""

from __future__ import annotations

import mmap
import struct

SEGMENTS = 10_000
"""Of a JPEG before its first scan: a large XMP packet comes in a few hundred."""
SCANS = 200
"""Of a JPEG; a progressive one has about ten."""
CHUNKS = 1_000
"""Of a PNG, without those of pixels."""
PIXEL_CHUNKS = 100_000
EXIF_BYTES = 128 * 1024
"""In a PNG; a JPEG has no room for more than half of it."""
BLOCKS = 10_000
"""Of a GIF before its first frame, each of at most 255 bytes."""
STRIPS = 200_000
"""Of a TIFF: one a row at most."""
SPACES = 10_000
"""Bytes between the numbers of a PPM's header, and comments in one that is written in digits."""

Content = bytes | mmap.mmap


class TooManyParts(Exception):
    """The file has more parts than a picture needs; the message is what they are called."""


def check(content: Content) -> None:
    """Walk the file of a picture as its format says; broken files are left to the decoder's own words.

    Raises:
        TooManyParts: there are more than the limits above.
    """
    head = content[:8]
    try:
        if head[:2] == b"\xff\xd8":
            _jpeg(content)
        elif head == b"\x89PNG\r\n\x1a\n":
            _png(content)
        elif head[:4] == b"GIF8":
            _gif(content)
        elif head[:4] in (b"II*\0", b"MM\0*"):
            _tiff(content)
        elif head[:1] == b"P" and head[1:2] in b"123456":
            _ppm(content)
    except (IndexError, struct.error):
        return  # it ends early


def _count(parts: int, limit: int, name: str) -> None:
    if parts > limit:
        raise TooManyParts(name)


def _jpeg(content: Content) -> None:
    place, parts = 2, 0
    while content[place] == 0xFF:
        parts += 1
        _count(parts, SEGMENTS, "segments")
        kind = content[place + 1]
        if kind in (0xDA, 0xD9):
            break
        if kind == 0xFF:  # padding
            place += 1
        else:
            place += 2 if kind == 0x01 or 0xD0 <= kind <= 0xD8 else 2 + struct.unpack_from(">H", content, place + 2)[0]
    scans = 0
    while (place := content.find(b"\xff\xda", place)) >= 0:
        place, scans = place + 2, scans + 1
        _count(scans, SCANS, "scans")


def _png(content: Content) -> None:
    place, chunks, pixels = 8, 0, 0
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IEND":
            break
        if kind in (b"IDAT", b"fdAT", b"fcTL"):
            pixels += 1
            _count(pixels, PIXEL_CHUNKS, "chunks")
        else:
            chunks += 1
            _count(chunks, CHUNKS, "chunks")
        _count(length if kind == b"eXIf" else 0, EXIF_BYTES, "EXIF entries")
        place += 12 + length


def _gif(content: Content) -> None:
    flags, place, blocks = content[10], 13, 0
    if flags & 0x80:
        place += 3 << ((flags & 7) + 1)
    while content[place] == 0x21:  # an extension: its blocks, and an empty one
        place += 2
        while True:
            blocks += 1
            _count(blocks, BLOCKS, "comments")
            length = content[place]
            place += 1 + length
            if not length:
                break


def _tiff(content: Content) -> None:
    order = "<" if content[0] == 0x49 else ">"
    (place,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, place)
    for entry in range(entries):
        tag, _, count = struct.unpack_from(order + "HHI", content, place + 2 + 12 * entry)
        if tag in (273, 279, 324, 325):  # where strips or tiles lie, and their lengths
            _count(count, STRIPS, "strips")


def _ppm(content: Content) -> None:
    place, spaces = 2, 0
    for _ in range(2 if content[1] in b"14" else 3):
        while content[place] in b" \t\r\n\v\f#":
            if content[place] == 0x23:
                while content[place] not in b"\r\n":
                    place += 1
                    spaces += 1
                    _count(spaces, SPACES, "comments")
            place += 1
            spaces += 1
            _count(spaces, SPACES, "comments")
        while content[place] not in b" \t\r\n\v\f#":
            place += 1
    if content[1] in b"123":  # pixels in digits
        comments = 0
        while (place := content.find(b"#", place)) >= 0:
            place, comments = place + 1, comments + 1
            _count(comments, SPACES, "comments")
