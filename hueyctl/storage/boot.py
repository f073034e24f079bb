"""Which boot of the machine this is."""

from __future__ import annotations

import sys


def boot_id() -> str | None:
    """What differs between any two boots of this machine; None where the system doesn't tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return _boot_id_of_macos() if sys.platform == "darwin" else None


def _boot_id_of_macos() -> str | None:
    import ctypes  # loaded where it is needed: every `hueyctl enqueue` would wait for it
    import ctypes.util

    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    text = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(text))
    failed = libc.sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, 0)
    return None if failed else text.value.decode("ascii")
