"""A bound on what a request may carry, uploaded files aside, which Gradio bounds."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 2**20
UPLOAD = "/gradio_api/upload"
"""Where Gradio takes files. Others of its paths end alike, such as that of a call named upload."""


class BoundedBodies:
    """ASGI middleware that answers a request whose body has more than :data:`MOST_BYTES` with status 413."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and counts what is read of it."""
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MOST_BYTES:
                raise HTTPException(413)
            return message

        bounded = scope["type"] == "http" and scope["path"] != UPLOAD
        await self.app(scope, counted if bounded else receive, send)
