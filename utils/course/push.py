"""Built kernels and data sets pushed in order with Kaggle's official tool."""

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from utils import __version__
from utils.course.kernel_check import check
from utils.course.kernels import BY_NUMBER, DATASET_FILE, KERNEL_FILE, KERNELS, UTILS, WEIGHTS
from utils.course.notebooks import read_parameters
from utils.files import InputError, UsageError, read_json, write_json
from utils.startup import commit_of_package

PUSHED_FILE = "pushed.json"  # what has been pushed, so that an interrupted push goes on
_TOOL_FAILED = re.compile(r"\bnot valid\b|\berror\b|does not resolve|Skipping", re.IGNORECASE)
_TOOL_DONE = re.compile(r"successfully pushed|is being created")
_STATUS = re.compile(r'has status "(?:\w+\.)?(\w+)"')
_PATIENCE = 5  # times in a row that asking for a status may fail before a push gives up
# What the tool says when Kaggle has answered by a number, in two wordings: requests' own, and a hint of the tool.
_REFUSED = {
    "401": r"\b401\b|Authentication required|Unauthenticated",
    "403": r"\b403\b|You don't have access|Permission '[\w.]+' was denied",
    "404": r"\b404\b|resource was not found",
    "429": r"\b429\b|rate limited",
    "5xx": r"\b5\d\d Server Error|problem on Kaggle's side",
}
_NO_WAY = {  # and when nobody has answered; the first that fits
    r"\b407\b|Proxy Authentication": "the proxy wants a name and a password: https_proxy=http://NAME:PASSWORD@HOST:PORT",
    r"ProxyError|connect to proxy|Tunnel connection": "the proxy does not answer or refuses: check https_proxy",
    r"NameResolution|Failed to resolve|name resolution|getaddrinfo|Name or service": "no network or no DNS here: "
    "the name of Kaggle's server cannot be resolved",
    r"\b[Tt]imed out|Timeout": "Kaggle's server did not answer in time: check the network and try again",
    r"SSLError|CERTIFICATE_VERIFY": "the server's certificate is not trusted: is there a proxy that opens TLS, or is "
    "the clock wrong?",
    r"ConnectionError|NewConnection|Connection (refused|aborted|reset)|unreachable|Max retries|Remote end": "no "
    "connection to Kaggle's server: check the network and try again",
}


@dataclass(frozen=True)
class Push:
    """A built folder on its way to Kaggle."""

    folder: Path
    tool: Sequence[str] = ("kaggle",)  # the command of the official tool
    pause: float = 60.0  # seconds between two questions for a status
    answer_within: float = 120.0  # seconds that one such question may take

    def commands(self, only: str | None = None) -> list[str]:
        """The exact command lines of a push, in order, with comments: what is waited for, what takes GPU hours.

        The owner's data sets that are not in the folder, as the weights before they are made, come first: they must
        be on Kaggle.

        Raises:
            UsageError: no kernel has the number `only`.
            InputError: the folder does not pass `check`.
        """
        items = self._checked_items(only)
        lines = [
            f"{shlex.join(self._ask('datasets', name))}  # must be on Kaggle, it is not in {self.folder}: "
            f"{self._way_to(name)} makes it"
            for name in self._datasets_elsewhere(items)
        ]
        for item in items:
            if (item / DATASET_FILE).is_file():
                slug = read_json(item / DATASET_FILE)["id"]
                lines += [
                    f"{shlex.join(self._create(item))}  # the first time, {_megabytes(item)}",
                    f"{shlex.join(self._version(item))}  # later, when it has changed",
                    f'{shlex.join(self._ask("datasets", slug))}  # until it says "ready"',
                ]
                continue
            values = read_json(item / KERNEL_FILE)
            for source in values["kernel_sources"]:
                lines.append(f'{shlex.join(self._ask("kernels", source))}  # until it says "complete"')
            line = shlex.join(self._push(item))
            if values["enable_gpu"]:
                limit = read_parameters(item / values["code_file"]).get("MAX_HOURS")
                line += "  # takes GPU hours" + (f", at most {limit:g}" if limit else "")
            lines.append(line)
        return lines

    def run(self, only: str | None = None) -> None:
        """Push data sets, then kernels in order; before one that takes an output, wait until that is complete.

        What was pushed is noted in pushed.json in the folder: a second call leaves out what has not changed
        since, and goes on. `only` pushes one kernel, by its number, changed or not.

        Raises:
            UsageError: no kernel has the number `only`.
            InputError: the folder does not pass `check`, the tool is not installed, it has failed or has
                printed an error, a data set of weights is nowhere, or a kernel that is waited for has failed.
        """
        items = self._checked_items(only)
        if shutil.which(self.tool[0]) is None:
            raise InputError(
                "The official `kaggle` tool is not here. ./course setup installs it; elsewhere: pip install "
                "kaggle==2.2.5"
            )
        self._check_own_datasets(items)
        notes = self.folder / PUSHED_FILE
        pushed = read_json(notes) if notes.is_file() else {}
        if not isinstance(pushed, dict):
            raise InputError(f"{notes}: not what a push has noted. Remove it; then all is pushed again.")
        try:
            for item in items:
                if only is None and pushed.get(item.name) == _fingerprint(item):
                    print(f"{item.name}: pushed before, unchanged", flush=True)
                    continue
                self._push_one(item)
                pushed[item.name] = _fingerprint(item)
                write_json(self.folder / PUSHED_FILE, pushed)
        except KeyboardInterrupt:
            print(
                f"Interrupted. {PUSHED_FILE} knows what was pushed; the same command again goes on.",
                flush=True,
            )
            raise

    def _checked_items(self, only: str | None) -> list[Path]:
        items = self._items(only)
        if problems := check(self.folder):
            raise InputError("\n".join([f"{self.folder} does not pass `./course kaggle check`:", *problems]))
        return items

    def _items(self, only: str | None) -> list[Path]:
        if only is None:
            slugs = [UTILS, WEIGHTS, *(kernel.slug for kernel in KERNELS)]
            return [self.folder / slug for slug in slugs if (self.folder / slug).is_dir()]
        if only not in BY_NUMBER:
            raise UsageError(f"--only {only}: no such kernel. Known: {', '.join(BY_NUMBER)}.")
        return [self.folder / BY_NUMBER[only].slug]

    def _push_one(self, item: Path) -> None:
        if (item / DATASET_FILE).is_file():
            slug = read_json(item / DATASET_FILE)["id"]
            known = self.is_on_kaggle(slug)
            if not known:
                self._check_token_is_of(slug.split("/")[0])
            self._must(self._version(item) if known else self._create(item))
            self._wait("datasets", slug)
            if known and item.name == UTILS:
                print(
                    "Kernels that were pushed before keep the earlier version of this data set until they are "
                    "pushed again (--only NUMBER)."
                )
            return
        for source in read_json(item / KERNEL_FILE)["kernel_sources"]:
            self._wait("kernels", source)
        self._must(self._push(item))

    def _check_own_datasets(self, items: list[Path]) -> None:
        """Ask before hours of work whether the owner's data sets are there that are not in the folder."""
        for name in self._datasets_elsewhere(items):
            if not self.is_on_kaggle(name):
                raise InputError(f"The data set {name} is not on Kaggle; {self._way_to(name)} makes it.")

    def _datasets_elsewhere(self, items: list[Path]) -> list[str]:
        """The owner's data sets that the kernels among `items` take and that are not among them."""
        wanted: dict[str, None] = {}
        for path in (item / KERNEL_FILE for item in items if (item / KERNEL_FILE).is_file()):
            values = read_json(path)
            owner = values["id"].split("/")[0]
            wanted |= dict.fromkeys(
                name for name in values["dataset_sources"] if name.startswith(f"{owner}/")
            )
        here = {item.name for item in items}
        return [name for name in wanted if name.split("/")[1] not in here]

    def _way_to(self, name: str) -> str:
        owner, slug = name.split("/")
        if slug == WEIGHTS:
            return f"./course kaggle weights --owner {owner} --out {self.folder}"
        return "a push without --only" if slug == UTILS else "Output > New dataset of the kernel"

    def is_on_kaggle(self, name: str) -> bool:
        """Whether the owner has a data set, by Kaggle's own answer.

        Raises:
            InputError: there is no answer to that: no token, no way to Kaggle, no permission, a fault there.
        """
        asked = self._call(self._ask("datasets", name), quiet=True)
        if not asked.returncode:
            return True
        kind = _refusal(asked.stdout)
        if kind == "404":
            return False
        if kind == "403":  # Kaggle says so too of a data set that is not there: the owner's list tells
            command = [*self.tool, "datasets", "list", "--mine", "--csv", "-s", name.split("/")[1]]
            listed = self._call(command, quiet=True)
            if not listed.returncode and re.search(r"^ref,|No datasets found", listed.stdout, re.MULTILINE):
                return re.search(rf"^{re.escape(name)},", listed.stdout, re.MULTILINE) is not None
        raise InputError(
            f"Kaggle does not say whether there is a data set {name}: {_reason(asked.stdout)}. Nothing was sent."
        )

    def _check_token_is_of(self, owner: str) -> None:
        """Raise InputError when the tool's token is another user's: what it makes would not be the owner's."""
        told = self._call([*self.tool, "config", "view"], quiet=True)
        user = re.search(r"^- username: (\S+)", told.stdout, re.MULTILINE)
        if user and user[1] not in ("None", owner):
            raise InputError(
                f"The Kaggle token here is of user {user[1]}, and {self.folder} was built for {owner}. Build it "
                f"with --owner {user[1]}, or use the token of {owner}."
            )

    def _create(self, item: Path) -> list[str]:
        return [*self.tool, "datasets", "create", "-p", str(item), "--dir-mode", "zip"]

    def _version(self, item: Path) -> list[str]:
        message = f"{__version__} {commit_of_package()}".strip()
        return [*self.tool, "datasets", "version", "-p", str(item), "-m", message, "--dir-mode", "zip"]

    def _push(self, item: Path) -> list[str]:
        return [*self.tool, "kernels", "push", "-p", str(item)]

    def _ask(self, kind: str, name: str) -> list[str]:
        return [*self.tool, kind, "status", name]

    def _call(self, command: list[str], *, quiet: bool = False) -> subprocess.CompletedProcess:
        """Run the tool, both of its outputs as one text, shown as it comes unless `quiet`."""
        if quiet:
            pipe = subprocess.PIPE
            try:
                return subprocess.run(
                    command, stdout=pipe, stderr=subprocess.STDOUT, text=True, timeout=self.answer_within
                )
            except subprocess.TimeoutExpired:
                return subprocess.CompletedProcess(command, 1, f"timed out after {self.answer_within:g} s")
        print(f"$ {shlex.join(command)}", flush=True)
        text = io.StringIO()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                print(f"  {line}", end="", flush=True)
                text.write(line)
        return subprocess.CompletedProcess(command, process.returncode, text.getvalue())

    def _must(self, command: list[str]) -> None:
        """Run the tool; its exit code is 0 also after errors that it only prints, so its words are read."""
        done = self._call(command)
        lines = done.stdout.splitlines()
        failed = [line for line in lines if _TOOL_FAILED.search(line)]
        if done.returncode or failed or not _TOOL_DONE.search(done.stdout):
            said = _reason(done.stdout) if done.returncode or not failed else " ".join(failed)
            raise InputError(
                f"{shlex.join(command)}\nhas failed: {said}\nMend it and push again; what is done stays."
            )

    def _wait(self, kind: str, name: str) -> None:
        """Ask for the status of a kernel or data set until it is complete, with the time so far."""
        good = {"kernels": "complete", "datasets": "ready"}[kind]
        bad = ("error", "cancel_requested", "cancel_acknowledged", "failed", "deleted")
        failures = 0
        with tqdm(bar_format="{desc} ({elapsed})", leave=False) as bar:
            while True:
                asked = self._call(self._ask(kind, name), quiet=True)
                found = _STATUS.search(asked.stdout)
                status = (found.group(1) if found else _last_line(asked.stdout)).lower()
                failures = failures + 1 if asked.returncode else 0
                if asked.returncode:
                    status = _reason(asked.stdout)
                if failures >= _PATIENCE or (failures and _refusal(asked.stdout) == "401"):
                    raise InputError(f"{name}: asking for its status failed {failures} times: {status}.")
                if not asked.returncode and status == good:
                    break
                if not asked.returncode and status in bad:
                    way = "push it again with --only" if kind == "kernels" else "push again"
                    raise InputError(
                        f"{name} has status {status}: {' '.join(asked.stdout.split())}\nMend it and {way}."
                    )
                bar.set_description_str(f"waiting for {name}: {status}")
                time.sleep(self.pause)
        print(f"{name}: {good}", flush=True)


def _megabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:,.1f} MB"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def _refusal(said: str) -> str | None:
    """Kaggle's answer in the tool's words, as a key of _REFUSED; None where it has not answered so."""
    if any(re.search(pattern, said) for pattern in _NO_WAY):
        return None
    return next((kind for kind, pattern in _REFUSED.items() if re.search(pattern, said)), None)


def _reason(said: str) -> str:
    """Why the tool has failed, by its words, and the way out: one line without a full stop."""
    for pattern, meaning in _NO_WAY.items():
        if re.search(pattern, said):
            return meaning
    kind = _refusal(said)
    if kind == "403":
        first = next((line.strip() for line in said.splitlines() if re.search(_REFUSED["403"], line)), "")
        return (
            f"it refuses access (403: {first[:200]}): the token must be the owner's and be allowed to do this"
        )
    if kind == "404":
        return f"it is not there (404: {_last_line(said)})"
    if kind == "429":
        return "Kaggle takes no more questions for now (429, rate limit): try again in some minutes"
    if kind == "5xx":
        return f"a fault of Kaggle's own ({next(line for line in said.splitlines() if line.strip())}): try again later"
    return _token_problem(refused=kind == "401") or _last_line(said)


def _token_problem(*, refused: bool) -> str:
    """What is wrong with the tokens that the tool looks for; empty where nothing is.

    Version 2.2.5 looks for an access token (the variable KAGGLE_API_TOKEN, a file of ~/.kaggle), then for user name
    and key (variables, kaggle.json), then for what `kaggle auth login` has left in ~/.kaggle. One that Kaggle does
    not accept, or an empty file, is passed over for the next.

    Args:
        refused: the tool has asked for a token, so that one which is there was not accepted.
    """
    home = Path.home() / ".kaggle"
    config = home if home.is_dir() else Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "kaggle"
    file = Path(os.environ.get("KAGGLE_CONFIG_DIR") or config).expanduser() / "kaggle.json"
    way = (
        f"Log in: {shlex.join(official_tool())} auth login. Or on kaggle.com: Settings > API > Generate New Token, and "
        f"put it into {home / 'access_token'} (chmod 600)"
    )
    access = [home / name for name in ("access_token", "access_token.txt")]
    places = ["KAGGLE_API_TOKEN"] * bool(os.environ.get("KAGGLE_API_TOKEN"))
    for path in access:
        try:
            if path.is_file() and path.read_text(encoding="utf-8").strip():
                places.append(str(path))
        except PermissionError:
            return f"{path} must not be read by this user: chmod 600 {path}, as its owner"
        except ValueError:  # some other file of that name
            return f"{path} is not text, so it gives no token. {way}"
    problem, others = _legacy_problem(file, way)
    login = home / "credentials.json"
    places += others + [str(login)] * login.exists()
    if problem and not places:
        return problem
    if not refused:
        return ""
    if places:
        return f"it does not accept the token ({', '.join(places)}): expired or mistyped. {way}"
    empty = ", ".join(f"{path} is empty" for path in access if path.is_file())
    return f"there is no Kaggle token on this machine{f' ({empty})' if empty else ''}. {way}"


def _legacy_problem(file: Path, way: str) -> tuple[str, list[str]]:
    """What is wrong with user name and key, the token of older versions, and where they are."""
    variables = [name for name in ("KAGGLE_USERNAME", "KAGGLE_KEY") if os.environ.get(name)]
    in_file: Any = {}
    if file.exists():
        try:
            in_file = json.loads(file.read_text(encoding="utf-8"))
        except PermissionError:
            return f"{file} must not be read by this user: chmod 600 {file}, as its owner", []
        except (OSError, ValueError) as error:
            return f"{file} is not valid JSON ({error}), so it gives no token. {way}", []
        if not isinstance(in_file, dict) or not {"username", "key"} <= in_file.keys():
            return f"{file} has no username and key, so it gives no token. {way}", []
    if len(variables) == 1 and not in_file:
        other = {"KAGGLE_USERNAME": "KAGGLE_KEY", "KAGGLE_KEY": "KAGGLE_USERNAME"}[variables[0]]
        return f"{variables[0]} is set and {other} is not: set both, or neither", []
    return "", ["KAGGLE_USERNAME and KAGGLE_KEY"] * (len(variables) == 2) + [str(file)] * bool(in_file)


def _fingerprint(folder: Path) -> str:
    """SHA-256 over names and bytes of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def official_tool() -> Sequence[str]:
    """The command of the `kaggle` tool: of this Python's environment, from where one stands, else the one on PATH."""
    beside = Path(sys.executable).with_name("kaggle")
    if not beside.is_file():
        return ("kaggle",)
    here = Path.cwd()
    return (str(beside.relative_to(here) if beside.is_relative_to(here) else beside),)
