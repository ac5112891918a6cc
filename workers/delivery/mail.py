"""Mail by SMTP: `smtp://host[:587]` with STARTTLS, `smtps://host[:465]` with TLS from the first byte.

Credentials are never sent in the clear; `settings.require_tls` false allows mail without credentials to a
server that offers no encryption.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, make_msgid
from urllib.parse import urlsplit

from routing.address import ForbiddenAddressError, Resolver, connect
from routing.transport import Transport
from workers.delivery.values import DeliveryError, Event, Integration, seconds_left

PORTS = {"smtp": 587, "smtps": 465}
_US = "orrery"  # how we greet: the machine's own name is nobody's business


def send(transport: Transport, integration: Integration, event: Event, deadline: float) -> str:
    """Mail the event to `settings.to`."""
    message = _message(integration, event)
    try:
        with _session(transport.resolver, integration, deadline) as session:
            _log_in(session, integration)
            refused = session.send_message(message)
    except ForbiddenAddressError as error:
        raise ForbiddenAddressError(error.host, error.reason, field="endpoint") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:  # OSError: TLS, too
        is_late = isinstance(error, TimeoutError) or time.monotonic() >= deadline
        why = "The server did not answer in time." if is_late else _told(error, integration)
        raise DeliveryError(why) from None
    if refused:
        raise DeliveryError(f"The server refused {', '.join(sorted(refused))} and took the others.")
    return f"The server took the mail to {message['To']}."


def _told(error: Exception, integration: Integration) -> str:
    """What went wrong, in words that hold no credential: what a server says to a login may."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"The server refused the login ({error.smtp_code})."
        case smtplib.SMTPResponseException():
            return f"The server answered {error.smtp_code}: {integration.quoted(error.smtp_error)}"
        case smtplib.SMTPRecipientsRefused():
            return f"The server refused {', '.join(sorted(error.recipients))}."
        case _:
            return f"The mail was not sent: {integration.quoted(str(error))}"


def _message(integration: Integration, event: Event) -> EmailMessage:
    given = integration.settings
    to = given.get("to")
    recipients = [to] if isinstance(to, str) else to
    sender = given.get("from") or integration.credentials.get("username")
    if not recipients or not isinstance(recipients, list) or not isinstance(sender, str):
        raise DeliveryError("An email integration needs settings.from and settings.to. Set them.")
    message = EmailMessage(policy=SMTP_POLICY)
    try:
        message["From"] = sender
        message["To"] = ", ".join(str(recipient) for recipient in recipients)
        message["Subject"] = f"Orrery: {' '.join(event.text.split())}"[:200]
        message["Date"] = format_datetime(event.at)
        message["Message-ID"] = make_msgid(str(event.id), domain=sender.rpartition("@")[2] or _US)
        message.set_content(f"{event.text}\n\n{event.type} at {event.at.isoformat()}\n")
    except (MessageError, ValueError, IndexError, TypeError) as error:
        raise DeliveryError(
            f"settings.from or settings.to is no mail address ({integration.quoted(str(error))})."
        ) from None
    return message


@contextlib.contextmanager
def _session(resolver: Resolver, integration: Integration, deadline: float) -> Iterator[smtplib.SMTP]:
    """A session with the server, encrypted if it has to be, that is cut off at the deadline.

    Raises ForbiddenAddressError, OSError, and what smtplib raises.
    """
    parts = urlsplit(integration.address())
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 587)
    connection = connect(
        host, port, resolver, seconds=seconds_left(deadline), allow_private=integration.allows_private
    )
    with connection, _cut_off(connection, seconds_left(deadline)):
        context = _context(integration)
        if parts.scheme == "smtps":
            connection = context.wrap_socket(connection, server_hostname=host)
        session = _Session(connection, host, timeout=seconds_left(deadline))
        with contextlib.closing(session):
            session.greet()
            if parts.scheme == "smtp" and session.has_extn("starttls"):
                session.starttls(context=context)
                session.ehlo_or_helo_if_needed()
            elif parts.scheme == "smtp" and integration.settings.get("require_tls") is not False:
                raise DeliveryError(
                    "The server offers no STARTTLS. Use smtps://, or set settings.require_tls to false."
                )
            yield session
            with contextlib.suppress(smtplib.SMTPException, OSError):
                session.quit()


class _Session(smtplib.SMTP):
    """smtplib's client on a connection that was made elsewhere."""

    def __init__(self, connection: socket.socket, host: str, *, timeout: float) -> None:
        super().__init__(local_hostname=_US, timeout=timeout)
        self.sock = connection
        self._host = host  # whose certificate STARTTLS asks for

    def greet(self) -> None:
        """Read the server's greeting and answer it."""
        code, said = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        self.ehlo_or_helo_if_needed()


def _log_in(session: smtplib.SMTP, integration: Integration) -> None:
    username = integration.credentials.get("username")
    password = integration.credentials.get("password")
    if username is None or password is None:
        return
    if not isinstance(session.sock, ssl.SSLSocket):
        raise DeliveryError("The connection is not encrypted: the login was not sent. Use smtps://.")
    session.login(username, password)


def _context(integration: Integration) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if integration.settings.get("verify_tls") is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _cut_off(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Ends the connection after `seconds`: a socket's timeout begins anew with each piece that comes in.

    Through a descriptor of its own, for wrapping a socket in TLS takes the first one away.
    """
    twin = connection.dup()

    def cut() -> None:
        with contextlib.suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        twin.close()
