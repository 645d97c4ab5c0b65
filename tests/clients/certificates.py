"""Certificates of a run: an authority, a server's for localhost, and a client's."""

import dataclasses
import os

import trustme


@dataclasses.dataclass
class Certificates:
    """Paths of PEM files; `server` and `client` hold the chain and the key in one file."""

    authority: str
    server: str
    client: str


def make(directory):
    authority = trustme.CA(organization_name="ouroloop's examples")
    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("client@localhost", common_name="client")
    made = Certificates(*(os.path.join(directory, f"{name}.pem") for name in ("ca", "srv", "cli")))
    authority.cert_pem.write_to_path(made.authority)
    server.private_key_and_cert_chain_pem.write_to_path(made.server)
    client.private_key_and_cert_chain_pem.write_to_path(made.client)
    return made
