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
    """What to put before a command so that /etc/hosts is that file, where that can be had, and,
    if told so, the user is not root; an empty list if neither can be had."""
    root = os.geteuid() == 0
    namespace = ["unshare", "--mount"] if root else ["unshare", "--map-root-user", "--mount"]
    mount = [*namespace, "sh", "-euc", MOUNT, "sh", hosts]
    if not root:
        ways = [[*mount, "unshare", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}"]]
    elif unprivileged:
        account = pwd.getpwnam("nobody")
        user, group = account.pw_uid, account.pw_gid
        become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        # Best where root's files belong to that account, so that the interpreter and the sources
        # can be read wherever they are; but not in a chroot, nor in most containers.
        ways = [
            [*mount, "unshare", f"--map-user={user}", f"--map-group={group}"],
            [*mount, *become],
            become,
        ]
    else:
        ways = [mount]
    for prefix in ways:
        try:
            subprocess.run([*prefix, "true"], check=True, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            continue
        return prefix
    return []
