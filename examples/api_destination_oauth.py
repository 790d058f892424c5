"""An API destination behind OAuth: a token server, an API that wants its tokens, and a bus that brings events to it.

The API takes the first token only once, so that the bus is seen to fetch another one and to deliver what was refused.

python -m examples.api_destination_oauth
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from examples.running import PATIENCE_S, client, endpoint


class Servers(BaseHTTPRequestHandler):
    """``/token`` gives tokens, everything else is the API."""

    tokens = 0
    orders = 0
    arrived: queue.Queue[Any] = queue.Queue()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/token":
            self.give_token(body.decode())
        else:
            self.take_order(json.loads(body))

    def give_token(self, form: str) -> None:
        Servers.tokens += 1
        print(f"token server  gives token-{Servers.tokens} for grant_type={form.partition('=')[2].partition('&')[0]}")
        answer = {"access_token": f"token-{Servers.tokens}", "token_type": "Bearer", "expires_in": 3600}
        self.reply(200, json.dumps(answer).encode())

    def take_order(self, order: Any) -> None:
        token = self.headers["authorization"].removeprefix("Bearer ")
        refused = token == "token-1" and Servers.orders > 0
        print(f"API           POST {self.path} with {token}: {'401' if refused else '200'}")
        self.reply(401 if refused else 200, b"")
        if not refused:
            Servers.orders += 1
            self.arrived.put(order)

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The example tells what arrives."""


@contextmanager
def servers() -> Iterator[str]:
    """The URL of both."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Servers)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    with endpoint() as url, servers() as place:
        events = client("events", url)
        connection = events.create_connection(
            Name="shop-api",
            AuthorizationType="OAUTH_CLIENT_CREDENTIALS",
            AuthParameters={
                "OAuthParameters": {
                    "ClientParameters": {"ClientID": "shop", "ClientSecret": "the client's secret"},
                    "AuthorizationEndpoint": f"{place}/token",
                    "HttpMethod": "POST",
                    "OAuthHttpParameters": {"BodyParameters": [{"Key": "grant_type", "Value": "client_credentials"}]},
                },
                "InvocationHttpParameters": {"BodyParameters": [{"Key": "via", "Value": "busbar"}]},
            },
        )
        destination = events.create_api_destination(
            Name="orders",
            ConnectionArn=connection["ConnectionArn"],
            InvocationEndpoint=f"{place}/customers/*/orders",
            HttpMethod="POST",
            InvocationRateLimitPerSecond=10,
        )
        events.put_rule(Name="orders", EventPattern=json.dumps({"source": ["shop"]}))
        target = {
            "Id": "api",
            "Arn": destination["ApiDestinationArn"],
            "HttpParameters": {"PathParameterValues": ["$.detail.customer"]},
            "InputPath": "$.detail",
        }
        events.put_targets(Rule="orders", Targets=[target])

        for number in (1, 2):
            detail = json.dumps({"customer": "zoe", "order": number})
            events.put_events(Entries=[{"Source": "shop", "DetailType": "OrderPlaced", "Detail": detail}])
            order = Servers.arrived.get(timeout=PATIENCE_S)
            print(f"delivered     {json.dumps(order)}")
            assert order == {"customer": "zoe", "order": number, "via": "busbar"}

        shown = json.dumps(events.describe_connection(Name="shop-api"), default=str)
        assert "the client's secret" not in shown, "secrets are taken, and never given"

        events.remove_targets(Rule="orders", Ids=["api"])
        events.delete_rule(Name="orders")
        events.delete_api_destination(Name="orders")
        events.delete_connection(Name="shop-api")


if __name__ == "__main__":
    main()
