"""The admin API as a process."""

from __future__ import annotations

import gc
import ipaddress

import uvicorn

from admin_api.app import create_app
from standalone.signals import end_quietly
from store.settings import Settings

_GRACE_SECONDS = 10
_KEEP_ALIVE_SECONDS = 75  # longer than the usual 60 s of a proxy in front, which must be the one to close


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; requests under way get ten seconds to end.

    Beyond the loopback address second factors cannot be postponed, whatever the settings say.
    """
    end_quietly()
    if not is_loopback(host):
        settings = settings.model_copy(update={"second_factor_postponable": False})
    app = create_app(settings)
    gc.freeze()  # what is loaded by now stays: an answer of a thousand rows walked through it several times
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # the application trusts those of ORRERY_TRUSTED_PROXIES
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
