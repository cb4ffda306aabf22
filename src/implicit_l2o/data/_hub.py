"""Single files of the public hub, checked against the size and the SHA-256 that it states."""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from implicit_l2o.data._files import atomic

HUB = "https://huggingface.co/datasets"


class _KeepLinked(urllib.request.HTTPRedirectHandler):
    """Remember the size and digest of the stored file, which the hub states on the redirect and not on the target."""

    linked: dict[str, str]

    def __init__(self) -> None:
        self.linked = {}

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        for name in ("X-Linked-Size", "X-Linked-ETag"):
            if headers.get(name):
                self.linked[name] = headers[name].strip('"')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(repository: str, name: str, target: Path, *, what: str, progress: bool) -> Path:
    """Fetch the parquet file `name` of a repository unless `target` is there; the file appears only when complete.

    Args:
        repository: on the hub, `owner/name`.
        name: of the file in it.
        target: where it goes.
        what: the data set, for messages.
        progress: show a bar.

    Raises:
        ConnectionError: the download failed, or what came is not the file that the hub states.
    """
    from tqdm import tqdm

    if target.is_file():
        return target
    url = f"{HUB}/{repository}/resolve/main/{name}"
    redirect = _KeepLinked()
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.build_opener(redirect).open(url, timeout=30) as response, atomic(target) as file:
            size = int(redirect.linked.get("X-Linked-Size") or response.headers.get("Content-Length") or 0)
            bar = tqdm(total=size or None, desc=f"downloading {name}", unit="B", unit_scale=True, disable=not progress)
            with bar:
                while chunk := response.read(1 << 18):
                    if not received and not chunk.startswith(b"PAR1"):  # a login page, say
                        raise ConnectionError("what came is not a parquet file")
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
            if size and received != size:
                raise ConnectionError(f"{received} bytes of {size} arrived")
            expected = redirect.linked.get("X-Linked-ETag", "")
            # The tag is a SHA-256 for files kept in large-file storage; 64 hexadecimal digits tell it from others.
            if len(expected) == 64 and digest.hexdigest() != expected:
                raise ConnectionError("its SHA-256 is not the one the hub states")
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"{what} could not be downloaded from {url} ({reason}); give a folder (folder=) that holds {name}."
        ) from error
    return target
