"""A mail server for tests: speaks enough SMTP to take mail, with STARTTLS and logins where it offers them."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Mailbox:
    """What the server took. `logins` are (user, password); `port` is on 127.0.0.1."""

    port: int
    mails: list[str] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    connections: int = 0


@contextmanager
def mail_server(
    folder: Path,
    *,
    starttls: bool = False,
    tls: bool = False,
    refuses_login: bool = False,
    drip: bool = False,
) -> Iterator[Mailbox]:
    """A server on a free port; its certificate is its own. `drip`: it says one character after the other."""
    context = _context(folder)
    listener = socket.create_server(("127.0.0.1", 0))
    box = Mailbox(listener.getsockname()[1])
    threads: list[threading.Thread] = []
    done = threading.Event()

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                box.connections += 1
                thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                threads.append(thread)
                thread.start()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if tls:
                connection = context.wrap_socket(connection, server_side=True)
            while drip and not done.wait(0.05):
                connection.sendall(b"2")
            _Session(connection, box, context if starttls else None, refuses_login).run()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield box
    finally:
        done.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


class _Session:
    def __init__(
        self, connection: socket.socket, box: Mailbox, context: ssl.SSLContext | None, refuses_login: bool
    ) -> None:
        self._connection, self._box, self._context = connection, box, context
        self._refuses_login = refuses_login
        self._buffer = b""

    def run(self) -> None:
        try:
            self._talk()
        finally:
            self._connection.close()

    def _talk(self) -> None:
        self._say("220 mail")
        while line := self._line():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    self._say(
                        *["250-mail", "250-STARTTLS"] if self._context else ["250-mail"], "250 AUTH PLAIN"
                    )
                case "STARTTLS" if self._context is not None:
                    self._say("220 go")
                    self._connection = self._context.wrap_socket(self._connection, server_side=True)
                case "AUTH":
                    _, user, password = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")
                    self._box.logins.append((user, password))
                    self._say(f"535 no {password}" if self._refuses_login else "235 welcome")
                case "DATA":
                    self._say("354 go")
                    self._box.encrypted.append(isinstance(self._connection, ssl.SSLSocket))
                    self._box.mails.append(self._mail())
                    self._say("250 taken")
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 fine")

    def _mail(self) -> str:
        lines = []
        while (line := self._line()) != ".":
            lines.append(line)
        return "\n".join(lines)

    def _say(self, *lines: str) -> None:
        self._connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def _line(self) -> str:
        while b"\r\n" not in self._buffer:
            data = self._connection.recv(65536)
            if not data:
                return ""
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line.decode()


def _context(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    file = folder / "mail.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
