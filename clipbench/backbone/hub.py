"""Files of the Hugging Face hub and of open_clip's other addresses: from the cache, else from the network.

Whether there is a network is asked once and answered in seconds: the hub's own client tries for minutes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from clipbench.errors import BackboneError

SECONDS = 5.0  # to connect; as long again for the name of the host
HUB = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class NotFetched(BackboneError):
    """A file that is neither on this machine nor to be had; the message is the reason alone."""


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """The first of these files of a repository that is in the hub's cache on this machine."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    for name in names:
        try:
            found = try_to_load_from_cache(repository, name)
        except HFValidationError:
            return None
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    return None


def fetched(repository: str, names: Sequence[str], backbone: str) -> Path:
    """The first of these files that a repository has, from the cache or from the hub.

    Raises:
        BackboneError: no network, no such repository or file, or no access; says what would help.
    """
    there = cached(repository, names)
    if there is not None:
        return there
    try:
        return download(repository, names)
    except NotFetched as reason:
        raise BackboneError(
            f"backbone '{backbone}': {' or '.join(names)} of {HUB}/{repository} is not on this machine and could not be"
            f" downloaded ({reason}); bring the repository's files here in another way and name their folder:"
            f" 'local-dir:FOLDER'"
        ) from reason


def download(repository: str, names: Sequence[str]) -> Path:
    """The first of these files that a repository has, from the hub.

    Raises:
        NotFetched: with the reason.
    """
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise NotFetched("the package huggingface_hub is not installed") from error
    refuse_offline(os.environ.get("HF_ENDPOINT") or HUB)
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except errors.RemoteEntryNotFoundError:
            continue
        except errors.RepositoryNotFoundError as error:
            raise NotFetched("there is no such repository, or it needs a login: `hf auth login`") from error
        except (OSError, ValueError, errors.HTTPError) as error:  # HTTPError: of the client that the hub uses
            raise NotFetched(gist(error)) from error
    raise NotFetched("the repository has no such file")


def refuse_offline(address: str) -> None:
    """Raise NotFetched at once where the network is switched off or not there.

    Args:
        address: of the server that would be asked.
    """
    for name in OFFLINE:
        if os.environ.get(name, "").lower() in ("1", "on", "yes", "true"):
            raise NotFetched(f"{name} is set")
    host = "/".join(address.split("/")[:3])
    if not reachable(host):
        raise NotFetched(f"no network: {host.partition('//')[2]} cannot be reached")


_REACHED: set[str] = set()


def reachable(host: str) -> bool:
    """Whether a server answers anything at all within seconds; asked through the user's proxies, until it does."""
    if host in _REACHED:
        return True
    import http.client
    import ssl
    import urllib.error
    import urllib.request

    answered: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=SECONDS)  # noqa: S310
        except urllib.error.HTTPError:
            answered.append(True)
        except urllib.error.URLError as error:  # certificates: the hub's client may have others, let it speak
            answered.append(isinstance(error.reason, ssl.SSLError))
        except (OSError, ValueError, http.client.HTTPException):  # it breaks off; a proxy that is no address
            answered.append(False)
        else:
            answered.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # a resolver without a server takes longer than any timeout
    asking.start()
    asking.join(2 * SECONDS)
    if not (answered and answered[0]):
        return False
    _REACHED.add(host)
    return True


def gist(error: BaseException) -> str:
    """The first line of a message, or the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:160] if lines else type(error).__name__
