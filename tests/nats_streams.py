"""A nats-server that tests share, emptied: what one test leaves in a stream, others would find."""

from __future__ import annotations

from consumers.streams import connect, jetstream


async def delete_streams(url: str) -> None:
    """Leave nothing of earlier tests, whichever they were."""
    client = await connect(url, "test")
    try:
        js = jetstream(client)
        for stream in await js.streams_info():
            assert stream.config.name
            await js.delete_stream(stream.config.name)
    finally:
        await client.close()
