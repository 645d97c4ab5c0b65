"""Linux namespaces that the suites run in: the same machine for them wherever they run."""

import functools
import os
import pwd
import subprocess

# Many machines' `localhost` has no IPv6 address, without which many tests fail on any loop.
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
MOUNT = 'mount --bind "$1" /etc/hosts; shift; exec "$@"'


def write_hosts(path):
    """Write HOSTS and the machine's own name."""
    with open(path, "w") as file:
        file.write(f"{HOSTS}127.0.0.1 {os.uname().nodename}\n")


@functools.cache
def enter(hosts, unprivileged):
    """What to put before a command so that /etc/hosts is that file and, if told so and this is
    root, the user is not root; an empty list where no namespace can be had."""
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-euc", MOUNT, "sh", hosts]
    if os.geteuid() != 0:
        user, group = os.getuid(), os.getgid()
    elif unprivileged:
        # Root's files belong to this account in there, so that the interpreter and the sources
        # can be read wherever they are.
        account = pwd.getpwnam("nobody")
        user, group = account.pw_uid, account.pw_gid
    else:
        user = None
    if user is not None:
        prefix += ["unshare", f"--map-user={user}", f"--map-group={group}"]
    try:
        subprocess.run([*prefix, "true"], check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return []
    return prefix
