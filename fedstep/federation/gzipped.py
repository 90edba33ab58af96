"""gzip with a bound: what is inflated never grows past what the caller allows."""

import zlib

from fedstep.errors import WireError

__all__ = ["deflate", "inflate"]

_GZIP = 31  # zlib's number for a gzip header and trailer around a window of 32 kB


def deflate(body: bytes) -> bytes:
    """The same gzip bytes for the same body: no name and no time in the header."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def inflate(body: bytes, most: int) -> bytes:
    """What was compressed, at most `most` bytes; WireError for anything but one whole gzip member within them.

    >>> inflate(deflate(b"coefficients"), 100)
    b'coefficients'
    """
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise WireError("the body says gzip and is not gzip", "Send one whole gzip member.") from error
    if len(plain) > most:
        raise WireError(f"the body inflates to more than {most} bytes", "Send less.")
    if not unpacker.eof or unpacker.unused_data:
        raise WireError("the gzip body is cut off or followed by other bytes", "Send one whole gzip member.")
    return plain
