"""Everything that a terminal may be sent: each sequence of xterm's manual, and bytes that are no text at all."""

from __future__ import annotations

ESC, CSI, OSC, DCS, ST = b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b\\"
#: DEC private modes of xterm; those that would switch off what the fake itself needs are set last to what it needs.
PRIVATE_MODES = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 18, 19, 25, 30, 35, 38, 40, 41, 42, 43, 44, 45, 46, 47, 66, 67, 69, 80,
    95, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1010, 1011, 1014, 1015, 1016, 1034, 1035, 1036, 1037, 1039,
    1040, 1041, 1042, 1043, 1044, 1045, 1046, 1047, 1048, 1049, 1050, 1051, 1052, 1053, 1060, 1061, 2001, 2002, 2003,
    2005, 2006, 2026, 2027, 2031, 2048,
)  # fmt: skip


def sequences() -> list[bytes]:
    """Return one of each."""
    found: list[bytes] = [bytes([code]) for code in range(32) if code != 0x1B]
    found += [ESC + bytes([code]) for code in range(0x20, 0x7F) if code not in b"[]PX^_c"]
    found += [ESC + b"[" + bytes([code]) for code in range(0x40, 0x7F)]
    for prefix in (b"", b"?", b">", b"=", b"<"):
        for middle in (b"", b" ", b"!", b'"', b"$", b"'", b"*", b"+", b"#", b"&", b",", b")", b"|"):
            for final in range(0x40, 0x7F):
                if (prefix, middle) != (b"", b""):
                    found.append(CSI + prefix + b"1;2" + middle + bytes([final]))
    found += [CSI + f"{n}m".encode() for n in range(110)]
    found += [CSI + text + b"m" for text in (b"38;5;200", b"48;5;17", b"38;2;1;2;3", b"48:2::9:8:7", b"4:3", b"58;5;9")]
    for number in PRIVATE_MODES:
        found += [CSI + f"?{number}h".encode(), CSI + f"?{number}l".encode()]
    found += [CSI + f"{n}h".encode() + CSI + f"{n}l".encode() for n in (2, 4, 12, 20)]
    found += [CSI + f"{n}t".encode() for n in (*range(1, 25),)]
    found += [CSI + f"{n}n".encode() for n in (5, 6)] + [
        CSI + f"?{n}n".encode() for n in (6, 15, 25, 26, 53, 55, 62, 75)
    ]
    for number in (*range(13), 17, 19, 22, 46, 50, 51, 52, 60, 61, 104, 105, *range(110, 120), 133, 777, 1337):
        body = {52: b"52;c;aGVsbG8=", 8: b"8;;http://x/", 133: b"133;A"}.get(number, f"{number};x".encode())
        found += [OSC + body + b"\x07", OSC + body + ST]
    found += [DCS + body + ST for body in (b"$qm", b"+q544e", b"0;1|17/41", b"q#0;2;0;0;0#0~~@@vv@@~~$-", b"tmux;x")]
    found += [ESC + kind + b"text" + ST for kind in (b"X", b"^", b"_")]
    found += [b"\xc2" + bytes([code]) for code in range(0x80, 0xA0)]  # C1 as UTF-8
    return found


def broken_utf8() -> list[bytes]:
    """Return bytes that are no UTF-8: cut, overlong, surrogates, beyond the last plane, C1 as single bytes."""
    return [
        b"\x80", b"\xbf", b"\xc0\xaf", b"\xc1\xbf", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff", b"\xe2(\xa1", b"\xf0(\x8c\xbc",
        *(bytes([code]) for code in range(0x80, 0xA0) if code not in {0x90, 0x98, 0x9B, 0x9D, 0x9E, 0x9F}),
    ]  # fmt: skip


def everything() -> bytes:
    """Return all of it, with text in between, and the modes put back that a program needs afterwards."""
    pieces = [piece + b"~" for piece in (*sequences(), *broken_utf8())]
    back = (
        ST + CSI + b"!p" + CSI + b"?2004h" + CSI + b"?1049l" + CSI + b"?6l" + CSI + b"?7h" + CSI + b"?25h" + CSI + b"r"
        + CSI + b"4l" + CSI + b"20l" + CSI + b"?69l" + CSI + b"?1l" + ESC + b">" + CSI + b"?2026l" + ESC + b"(B"
        + CSI + b"?1004l" + CSI + b"?1000l" + CSI + b"?1002l" + CSI + b"?1003l" + b"\x0f" + CSI + b"0m"
    )  # fmt: skip
    return b"".join(pieces) + back
