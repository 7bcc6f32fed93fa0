"""Still pictures of panes: a screen as text, and as HTML with its colours."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.terminal_theme import TerminalTheme

__all__ = ["Screen", "Screens"]

_FRAME = (
    "background:#1e1e1e;color:#d4d4d4;padding:8px 10px;border-radius:6px;overflow:auto;line-height:1.2;"
    "font-size:12px;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:0 0 12px 0"
)

_OSC = re.compile(r"\x1b\].*?(?:\x07|\x1b\\|$)", re.MULTILINE)

#: Background and text as in the frame, so that a program that asks for the default colours gets those around it; then
#: the eight colours and their bright ones, each legible on this background.
_THEME: tuple[Any, ...] = (
    (30, 30, 30),
    (212, 212, 212),
    [
        *((90, 90, 90), (241, 76, 76), (35, 209, 139), (226, 192, 82)),
        *((86, 156, 250), (214, 112, 214), (41, 184, 219), (212, 212, 212)),
    ],
    [
        *((140, 140, 140), (255, 110, 110), (80, 230, 170), (245, 245, 67)),
        *((120, 180, 255), (230, 140, 230), (100, 210, 240), (255, 255, 255)),
    ],
)


class Screen:
    r"""What a pane showed at one moment.

    Parameters
    ----------
    agent : str
        Whose pane.
    ansi : str
        Its lines, colours as escape sequences.

    Examples
    --------
    >>> screen = Screen("boss", "\x1b[31mhello\x1b[0m\n")
    >>> screen.text
    'hello'
    """

    def __init__(self, agent: str, ansi: str) -> None:
        self.agent = agent
        self.ansi = ansi.rstrip("\n")

    @property
    def text(self) -> str:
        """The screen without colours, blank lines at the end cut."""
        from rich.text import Text

        lines = [Text.from_ansi(line).plain.rstrip() for line in self.ansi.split("\n")]
        return "\n".join(lines).rstrip("\n")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"── {self.agent} ──\n{self.text}"

    def __contains__(self, part: str) -> bool:
        return part in self.text

    def _repr_html_(self) -> str:
        return f"<div><b>{html.escape(self.agent)}</b><pre style='{_FRAME}'>{self.html()}</pre></div>"

    def html(self) -> str:
        """Return the lines as HTML with inline colours; all text is escaped.

        Returns
        -------
        str
            To be put into a ``<pre>``; nothing in it is interpreted by a browser but ``<span style>``.
        """
        console, _ = self._console()
        return console.export_html(inline_styles=True, code_format="{code}", theme=_theme()).rstrip("\n")

    def svg(self, *, title: str | None = None) -> str:
        """Return the screen as a picture for a paper; nothing in it is loaded from elsewhere.

        Parameters
        ----------
        title : str, optional
            What stands above it; the agent's name when omitted.

        Returns
        -------
        str
            An SVG document, the same for the same screen.
        """
        from rich._export_format import CONSOLE_SVG_FORMAT

        console, width = self._console()
        console.width = width
        # Without the fonts that rich would have the reader's browser fetch.
        code_format = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        return console.export_svg(
            title=self.agent if title is None else title, theme=_theme(), code_format=code_format, unique_id="screen"
        )

    def _console(self) -> tuple[Console, int]:
        """Return a console on which the screen was printed, and how wide it is."""
        import io

        from rich.ansi import AnsiDecoder
        from rich.console import Console

        # One decoder for all lines: tmux says a colour once, and it goes on into the next lines.
        # Links are left out: rich would write their address into the page as the agent gave it.
        lines = list(AnsiDecoder().decode(_OSC.sub("", self.ansi)))
        while lines and not lines[-1].plain.strip():
            lines.pop()
        console = Console(
            record=True,
            file=io.StringIO(),
            force_terminal=True,
            force_jupyter=False,  # in a kernel rich would show each line by itself, beside the picture
            color_system="truecolor",
            width=1000,
            legacy_windows=False,
        )
        width = 1
        for line in lines:
            line.rstrip()
            width = max(width, line.cell_len)
            console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)
        return console, width


def _theme() -> TerminalTheme:
    from rich.terminal_theme import TerminalTheme

    return TerminalTheme(*_THEME)


class Screens:
    """The panes of several agents at one moment.

    Parameters
    ----------
    screens : list of Screen
        One per agent, in the cluster's order.
    """

    def __init__(self, screens: list[Screen]) -> None:
        self._screens = {screen.agent: screen for screen in screens}

    def __getitem__(self, agent: str) -> Screen:
        return self._screens[agent]

    def __iter__(self) -> Iterator[Screen]:
        return iter(self._screens.values())

    def __len__(self) -> int:
        return len(self._screens)

    def __repr__(self) -> str:
        return "\n\n".join(repr(screen) for screen in self)

    def _repr_html_(self) -> str:
        return "".join(screen._repr_html_() for screen in self)
