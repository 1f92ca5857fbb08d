"""Bytes for people."""


def size_text(count: int) -> str:
    """812 bytes, 3.4 MB, 1.21 GB (decimal, as download pages have it)."""
    if count < 1000:
        return f"{count} bytes"
    for unit, factor in (("kB", 10**3), ("MB", 10**6), ("GB", 10**9)):
        if count < 999.5 * factor or unit == "GB":
            return f"{count / factor:.3g} {unit}"
    raise AssertionError
