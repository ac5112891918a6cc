"""``python -m standalone.sandbox``: serve until SIGTERM or SIGINT; prints the base URL."""

import argparse

from standalone.sandbox.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m standalone.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
