"""A notebook as a page of its own, by Voila: for this machine, with a token, and without a word to other servers."""

import json
import os
import secrets
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tornado.web
from traitlets.config import Config

from utils.course.notebooks import KERNEL, kernel_variables
from utils.files import HOST, InputError, remove_left_overs
from utils.own.examples import MOST_MESSAGE

# jsonschema, which Voila imports, would compile a grammar of international addresses, for longer than all else takes;
# without that module it does not check them
sys.modules.setdefault("rfc3987_syntax", None)

from voila.app import Voila  # noqa: E402
from voila.voila_identity_provider import VoilaIdentityProvider  # noqa: E402

LOOPBACK = ("127.0.0.1", "localhost")
# What runs in the browser beside Voila itself; other extensions of JupyterLab that users have installed do not
_WIDGETS = ("@voila-dashboards/widgets-manager8", "@jupyter-widgets/jupyterlab-manager", "anywidget")
_PING = 90_000  # milliseconds; Jupyter's own times contradict each other, and it says so at every start
_TEMPLATE = "sheets"  # in voila/templates beside this file

# What a browser may load for a page: nothing from another server. Voila writes scripts and styles into the page.
_CONTENT = (
    "default-src 'self'; script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class _Refused(tornado.web.RequestHandler):
    """The answer to a request whose Host is none of the page's names, whatever it asks for."""

    def prepare(self) -> None:
        self.set_status(403)
        self.finish("This page answers to its own address only.\n")


class _Page(Voila):
    """Voila for one notebook; what users have configured for theirs does not count."""

    names: tuple[str, ...]  # that its Host may have
    address = ""  # with the token, once it listens
    opened: Callable[[str], None]

    def init_handlers(self) -> list:
        pattern = "|".join(name.replace(".", r"\.") for name in self.names)
        # before Voila's own handlers, of which those for static files ask for no Host
        self.app.add_handlers(rf"(?!(?:{pattern})$).*$", [(r".*", _Refused)])
        return super().init_handlers()

    def launch_browser(self) -> None:  # called once it listens
        self.opened(f"{self.connection_url}?token={self.token}")


def serve(
    code: str, *, title: str, host: str, port: int, opened: Callable[[str], None], browser: bool
) -> None:
    """Show what `code` displays as a page, until Ctrl-C or SIGTERM.

    Every visit has a kernel of its own, which ends with it. Files that the page makes for itself lie in a temporary
    folder; a kernel that dies is not started again, and the page says so (sheets.js).

    Args:
        code: Python that a kernel runs, with this repository's `utils`.
        title: of the page.
        host: address to listen at; 127.0.0.1 is reached from this machine only.
        port: the next free one is taken where it is in use.
        opened: gets the page's address with its token, when it can be opened.
        browser: open it there.

    Raises:
        InputError: nothing can listen at `host`.
    """
    check_host(host)
    remove_left_overs(Path(tempfile.gettempdir()))  # of pages that were killed
    ending = f".{HOST}.{os.getpid()}.tmp"
    with tempfile.TemporaryDirectory(prefix=".course-page-", suffix=ending) as name:
        folder = Path(name)
        notebook = folder / "notebook" / "page.ipynb"
        notebook.parent.mkdir()
        notebook.write_text(json.dumps(_notebook(code, title)), encoding="utf-8")
        (folder / "tmp").mkdir()  # Jupyter leaves empty folders where temporary files are
        os.environ.update(_variables(folder))
        tempfile.tempdir = os.environ["TMPDIR"]
        settings = folder / "ipython" / "profile_default" / "ipython_kernel_config.py"
        settings.parent.mkdir(parents=True)
        settings.write_text(
            "c.IPKernelApp.log_level = 40\n", encoding="utf-8"
        )  # its messages have a key each

        def open_page(address: str) -> None:
            opened(address)
            if browser:  # by a file, since everybody on this machine can see a program's arguments
                start = folder / "open.html"
                start.write_text(f'<meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
                webbrowser.open(start.as_uri())

        page = _Page(config=Config(_settings(folder)), notebook_path=str(notebook), ip=host, port=port)
        page.names = (*LOOPBACK, host.lower())
        page.token = secrets.token_urlsafe(24)
        page.opened = open_page
        try:
            page.initialize([])
            page.start()
        finally:
            tempfile.tempdir = None  # the folder goes; whoever comes next looks for another


def check_host(host: str) -> None:
    """Raise InputError unless this machine can listen at an address, and only there: its Host is looked at."""
    try:
        with socket.socket() as trial:
            trial.bind((host, 0))
            where = trial.getsockname()[0]
    except OSError as error:
        raise InputError(
            f"--host {host}: this machine cannot listen there ({error.strerror}). Leave it out, or give the name or "
            "the IPv4 address by which others reach this machine."
        ) from None
    if where == "0.0.0.0":
        raise InputError(
            f"--host {host}: stands for all addresses. Give the one by which others reach this machine."
        )


def _notebook(code: str, title: str) -> dict[str, Any]:
    cell = {"cell_type": "code", "id": "page", "metadata": {}, "source": code}
    return {
        "cells": [cell | {"execution_count": None, "outputs": []}],
        "metadata": {"kernelspec": {"name": KERNEL, "display_name": KERNEL}, "title": title},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _variables(folder: Path) -> dict[str, str]:
    """For this process and its kernels: the page's template, and places that are neither read nor written at home."""
    own = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTER_DATA_DIR": "data",
        "MPLCONFIGDIR": "mpl",
        "TMPDIR": "tmp",
    }
    return (
        kernel_variables()
        | {name: str(folder / place) for name, place in own.items()}
        | {"JUPYTER_NO_CONFIG": "1", "JUPYTER_PATH": str(Path(__file__).parent)}
    )


def _settings(folder: Path) -> dict[str, Any]:
    return {
        "Voila": {
            "config_file_paths": [],
            "connection_dir_root": str(folder),
            "identity_provider_class": VoilaIdentityProvider,
            "log_level": "ERROR",
            "tornado_settings": {
                "headers": {"Content-Security-Policy": _CONTENT},
                "websocket_max_message_size": MOST_MESSAGE,
                "ws_ping_interval": _PING,
                "ws_ping_timeout": _PING,
            },
        },
        "VoilaConfiguration": {
            "template": _TEMPLATE,
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "file_allowlist": [],
            "extension_allowlist": [*_WIDGETS],
        },
        "KernelRestarter": {"restart_limit": 0, "time_to_dead": 1.0},
        # A page that is left ends its kernel itself; this ends those of browsers that could not, after ten minutes.
        "MappingKernelManager": {"cull_idle_timeout": 600, "cull_interval": 60, "cull_connected": False},
    }
