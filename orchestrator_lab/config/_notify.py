"""Addresses of channels that are told of alerts: filled in from the environment, and never shown whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from orchestrator_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["address_secrets", "check_address", "mask_address", "notify_addresses", "scheme_of"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30})://(?P<rest>\S+)")
#: Schemes whose first part names a machine; with all others it may be a token.
_NAMED_HOSTS = frozenset(
    {"form", "forms", "http", "https", "json", "jsons", "mailto", "mailtos", "syslog", "xml", "xmls"}
)
#: Shortest part of an address that is taken for a secret; shorter ones would mask ordinary words.
_SECRET_LENGTH = 8


def check_address(address: str) -> str:
    """Return an address of apprise, or raise ValueError when it cannot be one.

    Examples
    --------
    >>> check_address("mailto://lab:${SMTP_PASSWORD}@example.org")
    'mailto://lab:${SMTP_PASSWORD}@example.org'
    """
    bare = _VARIABLE.sub("x", address)
    if "${" in bare:
        raise ValueError("a variable is written ${NAME}, with letters, digits and '_'")
    if _VARIABLE.fullmatch(address) is None and _ADDRESS.fullmatch(bare) is None:
        # The address itself is not repeated: it may hold a login.
        raise ValueError("an address of apprise is expected, such as mailto://user:${PASSWORD}@example.org")
    return address


def scheme_of(address: str) -> str:
    """Return the scheme of an address, which says what kind of channel it is and nothing more.

    Examples
    --------
    >>> scheme_of("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlaz")
    'slack'
    """
    found = _ADDRESS.fullmatch(address)
    return found["scheme"].lower() if found else "unknown"


def mask_address(address: str) -> str:
    """Return what may be shown of an address: its scheme, its host where that is one, and names of variables.

    Examples
    --------
    >>> mask_address("mailto://lab:s3cret@example.org:587?to=eve@example.org")
    'mailto://***@example.org:587'
    >>> mask_address("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlaz")
    'slack://***'
    >>> mask_address("${SLACK_ADDRESS}")
    '${SLACK_ADDRESS}'
    """
    if _VARIABLE.fullmatch(address):
        return address
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return "***"
    scheme = found["scheme"].lower()
    if scheme not in _NAMED_HOSTS:
        return f"{scheme}://***"
    authority = re.split(r"[/?#]", found["rest"], maxsplit=1)[0]
    login, _, host = authority.rpartition("@")
    return f"{scheme}://{'***@' if login else ''}{host}"


def notify_addresses(addresses: Sequence[str], environ: Mapping[str, str], *, check: bool = False) -> list[str]:
    """Fill the variables of addresses in.

    Parameters
    ----------
    addresses : sequence of str
        ``alerts.notify``.
    environ : mapping
        The environment of whoever starts the cluster.
    check : bool
        Whether to ask apprise if it understands them, which takes half a second.

    Returns
    -------
    list of str
        Whole addresses, with their secrets: for apprise, and for nobody's eyes.

    Raises
    ------
    ConfigError
        When a variable is not set, or apprise does not understand an address.

    Examples
    --------
    >>> notify_addresses(["mailto://lab:${WORD}@example.org"], {"WORD": "p@ss"})
    ['mailto://lab:p%40ss@example.org']
    """
    filled = []
    for number, address in enumerate(addresses):
        whole = _fill(address, number, environ)
        if check and not _known(whole):
            raise ConfigError(
                f"alerts.notify[{number}]: apprise does not understand {mask_address(address)}; it knows "
                "https://appriseit.com/services, such as mailto://user:${PASSWORD}@example.org"
            )
        filled.append(whole)
    return filled


def address_secrets(address: str) -> list[str]:
    """Return the parts of a whole address that nobody is to see.

    Examples
    --------
    >>> address_secrets("mailto://lab:correct-horse@example.org?to=eve")
    ['mailto://lab:correct-horse@example.org?to=eve', 'correct-horse']
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return [address]
    authority, *rest = re.split(r"[/?#&=]", found["rest"])
    login, _, host = authority.rpartition("@")
    parts = [login.partition(":")[2], *rest]
    if found["scheme"].lower() not in _NAMED_HOSTS:
        parts += [login, *host.split(":")]
    long = [part for part in parts if len(part) >= _SECRET_LENGTH]
    return list(dict.fromkeys([address, *long, *map(unquote, long)]))


def _fill(address: str, number: int, environ: Mapping[str, str]) -> str:
    alone = _VARIABLE.fullmatch(address) is not None
    # Up to its last @ the authority is a login, in which a password's own @ and / must be written otherwise.
    start = address.find("://") + 3
    stop = next((place for place in range(start, len(address)) if address[place] in "/?#"), len(address))
    login_ends = -1 if alone else address.rfind("@", start, stop)

    def value(found: re.Match[str]) -> str:
        name = found[1]
        text = environ.get(name, "")
        if not text:
            raise ConfigError(
                f"alerts.notify[{number}] names ${{{name}}}, which is not set in the environment: export {name} "
                "before the start, or take the address out"
            )
        return quote(text, safe="") if found.start() < login_ends else text.strip()

    return _VARIABLE.sub(value, address)


def _known(address: str) -> bool:
    import logging
    import warnings

    # What it logs of an address that it does not understand is the address.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        # Its plugins try modules that newer Pythons have lost, and do without them there.
        warnings.simplefilter("ignore", DeprecationWarning)
        import apprise

        return apprise.Apprise.instantiate(address) is not None
